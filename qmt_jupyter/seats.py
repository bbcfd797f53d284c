"""What a host does for the users of a service that shares it, such as a JupyterHub's.

A user's seats share one :class:`~qmt_jupyter.Allowance`, on however many servers they are. Mixed
into both faces of a host.
"""

from __future__ import annotations

from typing import Any

from . import runtime
from .facade import Allowance, HostFacts, Invite
from .host.seating import DEFAULT_LIFETIME, ENDED

__all__ = ["AwaitableSeats", "Seats"]


class Seats(HostFacts):
    """Seats, for those who wait for the answer."""

    def seat(
        self,
        user: str,
        guest: str,
        allowance: Allowance,
        *,
        name: str | None = None,
        lifetime: int = DEFAULT_LIFETIME,
    ) -> Invite:
        """Give ``user`` a seat: an invite for the identity with the peer id ``guest`` alone.

        It ends after ``lifetime`` seconds, up to 31 days. While it holds, and for an hour after,
        the same call renews it: the invite has the same id and a later end, and a connection goes
        on. ``allowance`` is from now on what all seats of the user may take together. ``name`` is
        the mesh's name. Raises :class:`~qmt_jupyter.errors.OptionInvalid`.
        """
        wanted = name or self.invite.name
        return Invite(
            runtime.call(self._service.seating.seat, user, guest, allowance, wanted, lifetime)
        )

    def allow(self, user: str, allowance: Allowance) -> None:
        """Set what all seats of ``user`` may take together, at once and after a restart too.

        Who becomes paused has its running answers ended with
        :class:`~qmt_jupyter.errors.Paused`; its connections stay. Raises
        :class:`~qmt_jupyter.errors.OptionInvalid`.
        """
        runtime.call(self._service.seating.allow, user, allowance)

    def end_seat(self, user: str, guest: str | None = None, *, sentence: str = ENDED) -> int:
        """End all seats of ``user``, or the one of the peer id ``guest``; returns how many.

        They are revoked for good: what runs ends at once with ``sentence``, connections close.
        """
        return runtime.call(self._service.seating.end, user, guest, sentence)

    def seats(self) -> list[dict[str, Any]]:
        """The users with seats, with tokens of this month, or paused, as plain values, by name.

        ``user``, ``allowance`` (what is set), ``paused``, ``seats`` (``invite_id``, ``guest``,
        ``expires_at``, ``connections``), ``requests``, ``prompt_tokens`` and ``completion_tokens``
        of all time, ``tokens_today`` and ``tokens_month`` here, the same ``elsewhere`` and ``left``
        by ``day`` and ``month`` (None: not limited), ``running``, ``waiting``,
        ``tokens_per_second``, ``last_seen`` (None: never). Times are in seconds since 1970.
        """
        return runtime.read(self._service.seats)

    def used_elsewhere(self, user: str, *, day: int, month: int) -> None:
        """Count tokens that ``user`` took on other hosts today and this month; not kept on disk.

        Each call takes the former one's place; it holds for that day and that month. Raises
        :class:`~qmt_jupyter.errors.OptionInvalid`.
        """
        runtime.read(lambda: self._service.seating.used_elsewhere(user, day, month))


class AwaitableSeats(HostFacts):
    """The awaitable twin of :class:`Seats`."""

    async def seat(
        self,
        user: str,
        guest: str,
        allowance: Allowance,
        *,
        name: str | None = None,
        lifetime: int = DEFAULT_LIFETIME,
    ) -> Invite:
        """Give ``user`` a seat, or renew it; like :meth:`qmt_jupyter.Host.seat`."""
        wanted = name or self.invite.name
        return Invite(
            await runtime.call_async(
                self._service.seating.seat, user, guest, allowance, wanted, lifetime
            )
        )

    async def allow(self, user: str, allowance: Allowance) -> None:
        """Set what a user may take; like :meth:`qmt_jupyter.Host.allow`."""
        await runtime.call_async(self._service.seating.allow, user, allowance)

    async def end_seat(self, user: str, guest: str | None = None, *, sentence: str = ENDED) -> int:
        """End a user's seats for good; like :meth:`qmt_jupyter.Host.end_seat`."""
        return await runtime.call_async(self._service.seating.end, user, guest, sentence)

    async def seats(self) -> list[dict[str, Any]]:
        """The users and what they used; like :meth:`qmt_jupyter.Host.seats`."""
        return await runtime.read_async(self._service.seats)

    async def used_elsewhere(self, user: str, *, day: int, month: int) -> None:
        """Count what was used on other hosts; like :meth:`qmt_jupyter.Host.used_elsewhere`."""
        await runtime.read_async(lambda: self._service.seating.used_elsewhere(user, day, month))
