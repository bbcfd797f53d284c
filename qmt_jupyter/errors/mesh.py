"""What can go wrong on the way to a host."""

from __future__ import annotations

from .base import QmtError


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


class HubNotFound(MeshError):
    """This JupyterHub has no service that shares a model, or it does not answer."""

    code = "hub-not-found"
    default_next_step = "Ask whoever runs the JupyterHub, or join with an invite link."
