"""Every error that a user can meet: one class, one sentence, one next step.

QmtError
├── InviteError          the link itself: InviteMalformed, InviteSignatureInvalid, InviteExpired
├── ConfigurationError   this machine: HomeNotWritable, IdentityDamaged, IdentityInUse, PortInUse,
│                        OptionInvalid, InterfaceUnknown, LedgerDamaged, LedgerNewer,
│                        KeyUnavailable
├── MeshError            the way to the host: HostNotFound (UdpBlocked), HostGone,
│                        VersionMismatch, ProtocolViolation, NotJoined, NotHosting
├── Refused              the host said no: AdmissionRefused (InviteUsedUp), RequestInvalid,
│                        ModelUnknown, PromptTooLong, Busy, Stopped, RecordsUnwritable,
│                        MembershipEnded (Revoked),
│                        LimitReached (RequestsUsedUp, TokensUsedUp, TokensReserved,
│                        RequestRateReached, TokenRateReached, TooManyAtOnce, ModelNotAllowed)
└── ProviderError        the engine: EngineMissing, ModelFileMissing, ModelFileInvalid,
                         ModelNotLoaded, OutOfMemory, DownloadFailed, GenerationFailed,
                         UpstreamUnreachable, UpstreamRefused

``code`` is the word that travels in refusals and in ``--json`` output; it never changes meaning.
A sentence never contains a token, a key or a traceback.
"""

from __future__ import annotations

from typing import ClassVar


class QmtError(Exception):
    """Base of all errors raised on purpose.

    ``sentence`` says what happened, ``next_step`` what to do about it (may be empty), and
    ``retry_after`` in how many seconds another try makes sense (None: not by waiting).
    """

    code: ClassVar[str] = "error"
    default_next_step: ClassVar[str] = ""

    def __init__(
        self,
        sentence: str,
        *,
        next_step: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.next_step = self.default_next_step if next_step is None else next_step
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.sentence} {self.next_step}".strip()

    def _render_traceback_(self) -> list[str]:
        """IPython asks for this: a cell shows the sentence, not forty frames."""
        return [f"{type(self).__name__}: {self}"]


class InviteError(QmtError):
    """Something is wrong with an invite link; no packet has left this machine."""

    code = "invite"


class InviteMalformed(InviteError):
    """The text is not an invite of a version this release reads."""

    code = "invite-malformed"
    default_next_step = "Copy the whole line that begins with qmt://mesh/join/ and try again."


class InviteSignatureInvalid(InviteError):
    """The invite was altered after it was signed, or never signed by the host it names."""

    code = "invite-signature"
    default_next_step = "Ask the host for a fresh link."


class InviteExpired(InviteError):
    """The invite's lifetime is over."""

    code = "invite-expired"
    default_next_step = "Ask the host for a fresh link."


class ConfigurationError(QmtError):
    """Something about this machine or an option keeps the work from starting."""

    code = "configuration"


class HomeNotWritable(ConfigurationError):
    """The directory that holds keys and models cannot be written."""

    code = "home-not-writable"
    default_next_step = "Set QMT_HOME to a directory that you own."


class IdentityDamaged(ConfigurationError):
    """A key file exists but does not hold a key; it is never overwritten."""

    code = "identity-damaged"
    default_next_step = "Move the file away to start with a new identity; old invites then end."


class IdentityInUse(ConfigurationError):
    """Another host already runs on this identity."""

    code = "identity-in-use"
    default_next_step = "Stop the other host, or set QMT_HOME to another directory for this one."


class PortInUse(ConfigurationError):
    """The port asked for belongs to another program."""

    code = "port-in-use"
    default_next_step = "Choose another --port, or leave it out for a free one."


class OptionInvalid(ConfigurationError):
    """An option's value cannot be understood."""

    code = "option-invalid"


class InterfaceUnknown(OptionInvalid):
    """A network interface named in the settings does not exist here."""

    code = "interface-unknown"


class LedgerDamaged(ConfigurationError):
    """The host's records cannot be read; the file is set aside, never overwritten."""

    code = "ledger-damaged"
    default_next_step = "Start again without it (earlier invites are over then) or put a copy back."


class LedgerNewer(ConfigurationError):
    """The host's records were written by a newer release."""

    code = "ledger-newer"
    default_next_step = "Update qmt-jupyter, or set QMT_HOME to another directory."


class KeyUnavailable(ConfigurationError):
    """The key of an upstream is not where it was said to be."""

    code = "key-unavailable"
    default_next_step = "Put it there, or name another source: env:NAME, keyring:SERVICE, prompt."


class MeshError(QmtError):
    """The host could not be reached, or the connection did not hold."""

    code = "mesh"


class HostNotFound(MeshError):
    """No way of finding the host led to it; the sentence lists what was tried."""

    code = "host-not-found"
    default_next_step = "Check that the host runs and both are on the same network, then try again."
    report: tuple[dict[str, str | float], ...] = ()  # source, what it said, seconds


class UdpBlocked(HostNotFound):
    """No UDP leaves this machine, and no relay led to the host."""

    code = "udp-blocked"
    default_next_step = "Ask the host for a link made with --relay URL: that is reached by HTTPS."


class HostGone(MeshError):
    """The host stopped answering, or closed, while something was under way."""

    code = "host-gone"
    default_next_step = "Try again when the host is back."


class VersionMismatch(MeshError):
    """The two sides speak different versions of the exchange."""

    code = "version-mismatch"


class ProtocolViolation(MeshError):
    """The other side sent something that the exchange does not allow."""

    code = "protocol"
    default_next_step = "If it happens again, update qmt-jupyter on both sides."


class NotJoined(MeshError):
    """There is no mesh to ask."""

    code = "not-joined"
    default_next_step = "Run %qmt_join (or qmt join) with an invite link first."


class NotHosting(MeshError):
    """There is no host running here."""

    code = "not-hosting"
    default_next_step = "Run %qmt_host (or qmt host) first."


class Refused(QmtError):
    """The host answered, and the answer was no."""

    code = "refused"


class AdmissionRefused(Refused):
    """The invite, or the identity that showed it, is not accepted by the host."""

    code = "admission-refused"
    default_next_step = "Ask the host for a fresh link."


class InviteUsedUp(AdmissionRefused):
    """All uses of the invite are taken by other guests."""

    code = "invite-used-up"
    default_next_step = "Ask the host for an invite with more uses."


class MembershipEnded(Refused):
    """The membership has expired, or is none of this host's."""

    code = "membership-ended"
    default_next_step = "Ask the host for a fresh link."


class Revoked(MembershipEnded):
    """The host has revoked the invite, or this guest's membership."""

    code = "revoked"


class RequestInvalid(Refused):
    """The request has a parameter or a shape that the host does not take."""

    code = "request-invalid"


class ModelUnknown(Refused):
    """No host in reach offers a model of that name."""

    code = "model-unknown"
    default_next_step = "%qmt_models (or qmt join --json) lists what is offered."


class PromptTooLong(Refused):
    """The prompt has more tokens than the model's context holds."""

    code = "prompt-too-long"
    default_next_step = "Shorten it, start over with --new, or ask the host for a larger context."


class Busy(Refused):
    """The host's queue is full."""

    code = "busy"
    default_next_step = "Try again in a moment."


class LimitReached(Refused):
    """A limit of the invite does not allow this request, at least not now."""

    code = "limit"
    default_next_step = "Ask the host for an invite with wider limits."


class RequestsUsedUp(LimitReached):
    """All requests that the invite allows have been made."""

    code = "requests-used-up"


class TokensUsedUp(LimitReached):
    """The invite's tokens are spent, or too few are left for the prompt."""

    code = "tokens-used-up"


class TokensReserved(LimitReached):
    """What is left of the tokens is held by requests that are running."""

    code = "tokens-reserved"
    default_next_step = "Try again when a running request has ended."


class RequestRateReached(LimitReached):
    """The invite's requests for this minute have been made."""

    code = "request-rate"
    default_next_step = ""


class TokenRateReached(LimitReached):
    """The invite's tokens for this minute are spent."""

    code = "token-rate"
    default_next_step = ""


class TooManyAtOnce(LimitReached):
    """As many requests run or wait as the invite allows side by side."""

    code = "too-many-at-once"
    default_next_step = "Try again when a running request has ended."


class ModelNotAllowed(LimitReached):
    """The invite does not include this model."""

    code = "model-not-allowed"
    default_next_step = "%qmt_models (or qmt join --json) lists what is offered."


class RecordsUnwritable(Refused):
    """The host cannot write its records, and lets nobody in uncounted."""

    code = "records-unwritable"
    default_next_step = "Try again later; the host has to free some disk space."


class Stopped(Refused):
    """The host stopped hosting while something was under way."""

    code = "stopped"
    default_next_step = "Try again when the host is back."


class ProviderError(QmtError):
    """What produces the tokens cannot, or could not."""

    code = "provider"


class EngineMissing(ProviderError):
    """The engine is not installed here."""

    code = "engine-missing"
    default_next_step = "Install it with: pip install 'qmt-jupyter[host]'"


class ModelFileMissing(ProviderError):
    """A model name leads to no file."""

    code = "model-missing"
    default_next_step = "Give a path to a .gguf file, hf:OWNER/NAME/FILE.gguf, or smollm2."


class ModelFileInvalid(ProviderError):
    """The file is there but is not a GGUF model, or not the one that was promised."""

    code = "model-invalid"


class ModelNotLoaded(ProviderError):
    """The engine refused a file that looks right."""

    code = "model-not-loaded"


class OutOfMemory(ProviderError):
    """The model or its context does not fit."""

    code = "out-of-memory"
    default_next_step = "Use a smaller model or context (--context), or fewer --slots."


class DownloadFailed(ProviderError):
    """A model could not be fetched; nothing half is left behind."""

    code = "download-failed"
    default_next_step = "Check the connection and run it again."


class GenerationFailed(ProviderError):
    """The engine gave up in the middle of an answer."""

    code = "generation-failed"


class UpstreamUnreachable(ProviderError):
    """The server behind the host does not answer, or fails."""

    code = "upstream-unreachable"
    default_next_step = "Check that the server runs, then try again."


class UpstreamRefused(ProviderError):
    """The server behind the host does not take the host's key or its requests."""

    code = "upstream-refused"
    default_next_step = "Check the key and the address on the host's side."
