"""Links: ``qmt://mesh/join/TOKEN``, with optional hints that only save time.

Hints stand in the URL query: ``a=IP:PORT`` (repeated), ``r=RELAY_URL`` and ``d=IP:PORT``
(repeated; nodes of the DHT). They are not signed and never trusted: a wrong or unreadable hint is
dropped, and whoever answers must hold the key that the token names.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from ..errors import InviteMalformed
from . import invite

PREFIX = "qmt://mesh/join/"
MAX_LINK = 4096
_SHORTEST_TOKEN = 40
MAX_ADDRESSES = 8
MAX_NODES = 4
_LONGEST_RELAY = 200
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+/?")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")


@dataclass(frozen=True)
class Hints:
    """Where the host was when the link was made: ``IP:PORT`` texts and a relay's URL.

    ``nodes`` are nodes of the DHT, ``IP:PORT``, that may know where it is now.
    """

    addresses: tuple[str, ...] = ()
    relay: str | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Link:
    """A verified invite and the hints that came with it. Its repr does not show the token."""

    invite: invite.Invite
    hints: Hints

    @property
    def url(self) -> str:
        """The whole link; whoever has it can use the invite."""
        return write(self.invite, self.hints)


def write(granted: invite.Invite, hints: Hints | None = None) -> str:
    """The link of an invite, with hints if there are any."""
    pairs = [("a", address) for address in (hints.addresses if hints else ())]
    if hints and hints.relay:
        pairs.append(("r", hints.relay))
    pairs += [("d", node) for node in (hints.nodes if hints else ())]
    # ":" and brackets are legal in a query; left readable they also make a smaller QR code.
    query = f"?{urlencode(pairs, safe=':[]/')}" if pairs else ""
    return f"{PREFIX}{granted.token_text()}{query}"


def read(text: str) -> Link:
    """Read a link, or a bare token, and verify the signature; no packet leaves the machine.

    Raises :class:`~qmt_jupyter.errors.InviteMalformed` or
    :class:`~qmt_jupyter.errors.InviteSignatureInvalid`. Expiry is the caller's to check.
    """
    cleaned = text.strip() if isinstance(text, str) else ""
    if not cleaned:
        raise InviteMalformed("There is no link.")
    if len(cleaned) > MAX_LINK:
        raise InviteMalformed("This is too long for an invite link.")
    if "://" not in cleaned:
        if len(cleaned) < _SHORTEST_TOKEN:
            raise InviteMalformed(f"This is not an invite link; one begins with {PREFIX}.")
        return Link(invite.from_text(cleaned), Hints())
    if not cleaned.startswith(PREFIX):
        raise InviteMalformed(f"An invite link begins with {PREFIX}.")
    rest = cleaned[len(PREFIX) :]
    token, _, query = rest.partition("?")
    return Link(invite.from_text(token), _read_hints(query))


def _read_hints(query: str) -> Hints:
    addresses: list[str] = []
    nodes: list[str] = []
    relay: str | None = None
    try:
        pairs = parse_qsl(query, max_num_fields=32)
    except ValueError:
        return Hints()
    for key, value in pairs:
        if key in ("a", "d"):
            read, most = (addresses, MAX_ADDRESSES) if key == "a" else (nodes, MAX_NODES)
            address = socket_address(value)
            if address is not None and address not in read and len(read) < most:
                read.append(address)
        elif key == "r" and relay is None:
            relay = relay_url(value)
    return Hints(tuple(addresses), relay, tuple(nodes))


def socket_address(text: str) -> str | None:
    """``IP:PORT`` in canonical form if it is a usable unicast address, else None."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        return None
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    # IPv6 counts its loopback address among the reserved ones.
    if (
        address.is_multicast
        or address.is_unspecified
        or (address.is_reserved and not address.is_loopback)
    ):
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return None if address.scope_id else f"[{address}]:{int(port)}"
    return f"{address}:{int(port)}"


def relay_url(text: str) -> str | None:
    """A relay's URL in canonical form, ``https://HOST[:PORT]/``, else None.

    Strict, because a guest contacts what stands there: an origin over HTTP or HTTPS and nothing
    else, so no user, path, query or fragment, and at most 200 characters.
    """
    if len(text) > _LONGEST_RELAY or not _ORIGIN.fullmatch(text):
        return None
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or port == 0 or not _is_host(host):
        return None
    shown = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{shown}" + (f":{port}/" if port not in (None, default) else "/")


def _is_host(text: str) -> bool:
    """Whether it is an IP address or a name that the domain name system could hold."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # Whatever ends in a number is read as an IPv4 address by some, so it has to be one.
        last = text.rstrip(".").rpartition(".")[2]
        return bool(_NAME.fullmatch(text)) and not last.isdigit() and not last.startswith("0x")
    return True
