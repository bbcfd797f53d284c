"""What this machine, or an option, keeps from working."""

from __future__ import annotations

from .base import QmtError


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
