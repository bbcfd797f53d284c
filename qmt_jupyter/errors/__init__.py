"""Every error that a user can meet: one class, one sentence, one next step.

QmtError
├── InviteError          the link itself: InviteMalformed, InviteSignatureInvalid, InviteExpired
├── ConfigurationError   this machine: HomeNotWritable, IdentityDamaged, IdentityInUse, PortInUse,
│                        OptionInvalid, InterfaceUnknown, LedgerDamaged, LedgerNewer,
│                        KeyUnavailable
├── MeshError            the way to the host: HostNotFound (UdpBlocked), HostGone,
│                        VersionMismatch, ProtocolViolation, NotJoined, NotHosting, HubNotFound
├── Refused              the host said no: AdmissionRefused (InviteUsedUp), RequestInvalid,
│                        ModelUnknown, PromptTooLong, Busy, Stopped, RecordsUnwritable,
│                        MembershipEnded (Revoked), HubRefused,
│                        LimitReached (RequestsUsedUp, TokensUsedUp, TokensReserved,
│                        RequestRateReached, TokenRateReached, TooManyAtOnce, ModelNotAllowed,
│                        DayUsedUp, MonthUsedUp, OutsideHours, Paused)
└── ProviderError        the engine: EngineMissing, ModelFileMissing, ModelFileInvalid,
                         ModelNotLoaded, OutOfMemory, DownloadFailed, GenerationFailed,
                         UpstreamUnreachable, UpstreamRefused

``code`` is the word that travels in refusals and in ``--json`` output; it never changes meaning.
A sentence never contains a token, a key or a traceback.
"""

from __future__ import annotations

from .base import QmtError
from .invites import (
    InviteError,
    InviteExpired,
    InviteMalformed,
    InviteSignatureInvalid,
)
from .limits import (
    DayUsedUp,
    LimitReached,
    ModelNotAllowed,
    MonthUsedUp,
    OutsideHours,
    Paused,
    RequestRateReached,
    RequestsUsedUp,
    TokenRateReached,
    TokensReserved,
    TokensUsedUp,
    TooManyAtOnce,
)
from .machine import (
    ConfigurationError,
    HomeNotWritable,
    IdentityDamaged,
    IdentityInUse,
    InterfaceUnknown,
    KeyUnavailable,
    LedgerDamaged,
    LedgerNewer,
    OptionInvalid,
    PortInUse,
)
from .mesh import (
    HostGone,
    HostNotFound,
    HubNotFound,
    MeshError,
    NotHosting,
    NotJoined,
    ProtocolViolation,
    UdpBlocked,
    VersionMismatch,
)
from .providers import (
    DownloadFailed,
    EngineMissing,
    GenerationFailed,
    ModelFileInvalid,
    ModelFileMissing,
    ModelNotLoaded,
    OutOfMemory,
    ProviderError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from .refusals import (
    AdmissionRefused,
    Busy,
    HubRefused,
    InviteUsedUp,
    MembershipEnded,
    ModelUnknown,
    PromptTooLong,
    RecordsUnwritable,
    Refused,
    RequestInvalid,
    Revoked,
    Stopped,
)

__all__ = [
    "AdmissionRefused",
    "Busy",
    "ConfigurationError",
    "DayUsedUp",
    "DownloadFailed",
    "EngineMissing",
    "GenerationFailed",
    "HomeNotWritable",
    "HostGone",
    "HostNotFound",
    "HubNotFound",
    "HubRefused",
    "IdentityDamaged",
    "IdentityInUse",
    "InterfaceUnknown",
    "InviteError",
    "InviteExpired",
    "InviteMalformed",
    "InviteSignatureInvalid",
    "InviteUsedUp",
    "KeyUnavailable",
    "LedgerDamaged",
    "LedgerNewer",
    "LimitReached",
    "MembershipEnded",
    "MeshError",
    "ModelFileInvalid",
    "ModelFileMissing",
    "ModelNotAllowed",
    "ModelNotLoaded",
    "ModelUnknown",
    "MonthUsedUp",
    "NotHosting",
    "NotJoined",
    "OptionInvalid",
    "OutOfMemory",
    "OutsideHours",
    "Paused",
    "PortInUse",
    "PromptTooLong",
    "ProtocolViolation",
    "ProviderError",
    "QmtError",
    "RecordsUnwritable",
    "Refused",
    "RequestInvalid",
    "RequestRateReached",
    "RequestsUsedUp",
    "Revoked",
    "Stopped",
    "TokenRateReached",
    "TokensReserved",
    "TokensUsedUp",
    "TooManyAtOnce",
    "UdpBlocked",
    "UpstreamRefused",
    "UpstreamUnreachable",
    "VersionMismatch",
]
