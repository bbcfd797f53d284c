"""Which of this machine's addresses a peer could use.

Bridges that containers and virtual machines hang on are left out: their addresses are the same
on every machine and lead nowhere from outside.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import ifaddr

from ..errors import InterfaceUnknown

_VIRTUAL = (
    "docker",
    "br-",
    "veth",
    "virbr",
    "vmnet",
    "vboxnet",
    "cni",
    "flannel",
    "cali",
    "podman",
)
_LINK_LOCAL_V4 = ipaddress.ip_network("169.254.0.0/16")


@dataclass(frozen=True)
class Reach:
    """The addresses to be reachable at, and whether they are loopback only.

    ``v4`` and ``v6`` are texts without ports. ``restricted`` says that the user named the
    interfaces, so nothing else may be bound or announced.
    """

    v4: tuple[str, ...]
    v6: tuple[str, ...]
    restricted: bool

    @property
    def loopback_only(self) -> bool:
        """Whether only this machine itself can come in."""
        return all(ipaddress.ip_address(each).is_loopback for each in (*self.v4, *self.v6))

    @property
    def binds(self) -> tuple[str, ...]:
        """One IPv4 and one IPv6 address to bind: the one allowed, or all of them.

        Both are named always, because the transport binds all addresses of a family that is not;
        where no IPv6 address is allowed it is loopback's.
        """
        if not self.restricted:
            return ("0.0.0.0", "::")  # noqa: S104
        v4 = self.v4[0] if len(self.v4) == 1 else "0.0.0.0"  # noqa: S104
        v6 = self.v6[0] if len(self.v6) == 1 else "::" if self.v6 else "::1"
        return (v4, v6)


def reach(interfaces: tuple[str, ...]) -> Reach:
    """Resolve interface names and addresses (settings); an empty tuple means all usable ones.

    Raises :class:`~qmt_jupyter.errors.InterfaceUnknown` for a name that this machine lacks.
    """
    found = _addresses()
    if not interfaces:
        usable = [
            address
            for name, address in found
            if not name.startswith(_VIRTUAL) and not address.is_loopback
        ]
        # A machine without any network can still talk to itself.
        usable = usable or [address for _, address in found if address.is_loopback]
        return _sorted(usable, restricted=False)
    chosen = []
    for wanted in interfaces:
        matching = [a for name, a in found if wanted in (name, str(a))]
        if not matching:
            matching = _as_loopback(wanted)
        if not matching:
            raise InterfaceUnknown(
                f"There is no network interface or address {wanted!r} here.",
                next_step="Correct QMT_INTERFACES; for this machine alone it is 127.0.0.1.",
            )
        chosen += matching
    return _sorted(chosen, restricted=True)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _as_loopback(text: str) -> list[_Address]:
    """127.0.0.2 and the like work without being configured on any interface."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return []
    return [address] if address.is_loopback and address.version == 4 else []


def _addresses() -> list[tuple[str, _Address]]:
    found: list[tuple[str, _Address]] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            try:
                address = ipaddress.ip_address(text.partition("%")[0])
            except ValueError:
                continue
            if address.is_link_local and (address.version == 6 or address in _LINK_LOCAL_V4):
                continue
            found.append((str(adapter.name), address))
    return found


def _sorted(addresses: list[_Address], *, restricted: bool) -> Reach:
    unique = list(dict.fromkeys(addresses))
    return Reach(
        v4=tuple(str(each) for each in unique if each.version == 4),
        v6=tuple(str(each) for each in unique if each.version == 6),
        restricted=restricted,
    )
