"""Which of this machine's addresses a peer could use, the likeliest first.

Bridges that containers and virtual machines hang on are left out: their addresses are the same
on every machine and lead nowhere from outside. So are addresses that hold on one link only.
"""

from __future__ import annotations

import ipaddress
import os
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
    "vnet",
    "vethernet",
    "cni",
    "flannel",
    "cali",
    "cilium",
    "kube",
    "nerdctl",
    "podman",
    "lxcbr",
    "lxdbr",
    "incusbr",
    "bridge1",
    "dummy",
    "hyper-v virtual",
    "virtualbox host-only",
    "vmware virtual",
)
_LONGEST = 16  # of each version, so that nothing that is made of them grows without bound
_SHARED_V4 = ipaddress.ip_network("100.64.0.0/10")
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
        where no address of a family is allowed it is loopback's.
        """
        if not self.restricted:
            return ("0.0.0.0", "::")  # noqa: S104
        v4 = self.v4[0] if len(self.v4) == 1 else "0.0.0.0" if self.v4 else "127.0.0.1"  # noqa: S104
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
            if not name.lower().startswith(_VIRTUAL) and not address.is_loopback
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
    try:
        adapters = ifaddr.get_adapters()
    except OSError as error:
        # Out of files or memory for a moment.
        raise InterfaceUnknown(
            f"This machine's addresses cannot be read ({error.strerror or error}).", next_step=""
        ) from None
    for adapter in adapters:
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            try:
                address = ipaddress.ip_address(text.partition("%")[0])
            except ValueError:
                continue
            if address.is_link_local and (address.version == 6 or address in _LINK_LOCAL_V4):
                continue
            # Windows has numbers for names, and says what an adapter is beside them.
            name = str(adapter.nice_name) if os.name == "nt" else str(adapter.name)
            found.append((name, address))
    return found


def _sorted(addresses: list[_Address], *, restricted: bool) -> Reach:
    unique = sorted(dict.fromkeys(addresses), key=_unlikely)
    return Reach(
        v4=tuple(str(each) for each in unique if each.version == 4)[:_LONGEST],
        v6=tuple(str(each) for each in unique if each.version == 6)[:_LONGEST],
        restricted=restricted,
    )


def _unlikely(address: _Address) -> int:
    """A rank: less for what more guests could use. Among equals the system's order stays."""
    if address.is_loopback:
        return 3
    if isinstance(address, ipaddress.IPv4Address):
        return 2 if address in _SHARED_V4 else 1 if address.is_global else 0
    return 0 if address.is_global else 1


def sockets(reach: Reach, port_v4: int | None, port_v6: int | None, most: int) -> tuple[str, ...]:
    """At most ``most`` of the addresses with their ports, as ``IP:PORT``, the likeliest first.

    IPv4 comes first, but never takes every place.
    """
    v4 = [f"{address}:{port_v4}" for address in reach.v4] if port_v4 else []
    v6 = [f"[{address}]:{port_v6}" for address in reach.v6] if port_v6 else []
    kept = v4[: max(most - len(v6), (most + 1) // 2)]
    return tuple(kept + v6[: most - len(kept)])


def is_outside(socket: str, reach: Reach) -> bool:
    """Whether ``IP:PORT`` is an address of the internet that no interface here has."""
    address = ipaddress.ip_address(socket.rpartition(":")[0].strip("[]"))
    return address.is_global and str(address) not in (*reach.v4, *reach.v6)
