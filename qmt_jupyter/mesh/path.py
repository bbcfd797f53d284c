"""How packets travel to a peer, and what carries them where UDP cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Path:
    """The way now: ``direct``, ``relayed`` or by ``tunnel``; the round trip in milliseconds."""

    way: str
    address: str
    rtt_ms: float

    @property
    def direct(self) -> bool:
        """Whether they go straight to the peer's address."""
        return self.way == "direct"


class Carrier(Protocol):
    """Takes datagrams at an address of this machine to the host, and brings back what it answers.

    It belongs to one endpoint, and is closed with it. Nobody else is to learn of the address.
    """

    @property
    def at(self) -> str:
        """Its address on this machine, as ``IP:PORT``."""

    def serve(self, ports: tuple[int | None, int | None]) -> None:
        """Take datagrams from these ports of this machine (IPv4, IPv6) alone, from now on."""

    def keep(self) -> None:
        """It won: whoever opened it leaves it to the endpoint."""

    async def close(self) -> None:
        """Close it; safe to call twice."""
