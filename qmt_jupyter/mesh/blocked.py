"""Whether this machine lets UDP out at all. Where it does not, only a relay can help.

Two things can be known at once: that the machine's own firewall refuses to send, and that this is
a Binder server, whose network drops UDP. A firewall further away drops without a word, and cannot
be told from a host that is off.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable

from .addresses import Reach

_REFUSED = {errno.EPERM, errno.EACCES}
_BINDER = ("BINDER_LAUNCH_HOST", "BINDER_REPO_URL")
_HUB = ("JUPYTERHUB_API_TOKEN", "JUPYTERHUB_SERVICE_PREFIX")
_MULTICAST_DNS = "224.0.0.251:5353"


def udp_is_blocked(places: Iterable[str], reach: Reach) -> str | None:
    """Why no UDP leaves this machine, for use in a sentence; None where it may well.

    An empty datagram is sent to each of ``places`` (``IP:PORT``), or where there is none to the
    group that multicast DNS asks; this is what a connection would do too.
    """
    if reach.loopback_only:
        return None
    if any(name in os.environ for name in _BINDER):
        return "Binder lets no UDP out"
    tried = {_leaves(place, reach) for place in tuple(places) or (_MULTICAST_DNS,)}
    refused = False in tried and True not in tried
    return "this machine's firewall refuses to send it" if refused else None


def on_a_hub() -> bool:
    """Whether a JupyterHub runs this process; its network may drop UDP."""
    return any(name in os.environ for name in _HUB)


def _leaves(place: str, reach: Reach) -> bool | None:
    """Whether a datagram gets out; None where there is no way to the place at all."""
    host, _, port = place.rpartition(":")
    address = ipaddress.ip_address(host.strip("[]"))
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    own = reach.v4 if address.version == 4 else reach.v6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.setblocking(False)
            if reach.restricted and own:
                probe.bind((own[0], 0))
            probe.sendto(b"", (str(address), int(port)))
    except OSError as error:
        return False if error.errno in _REFUSED else None
    return True
