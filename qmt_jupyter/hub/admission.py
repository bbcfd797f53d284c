"""``api/seat``: a seat for who may use the service; and ``health``."""

from __future__ import annotations

from typing import Any

from tornado import web

from .. import __version__
from ..errors import RequestInvalid
from .desk import RENEW_EVERY, Desk
from .requests import JsonHandler


def routes(desk: Desk) -> list[tuple[str, type[web.RequestHandler], dict[str, Any]]]:
    """What this part answers."""
    return [
        (r"api/seat", SeatHandler, {"desk": desk}),
        (r"health", HealthHandler, {"desk": desk}),
    ]


class SeatHandler(JsonHandler):
    """Gives and takes back seats, to who shows a server's own token."""

    async def post(self) -> None:
        """A seat for the guest identity that the body names, or the same one for longer."""
        person = await self.user()
        seated = await self.desk.seat(person, self._guest(), self.token())
        self.write_json(
            {
                "link": seated.link,
                "user": seated.user,
                "expires_at": seated.expires_at,
                "renew_s": RENEW_EVERY,
                "peer_id": self.desk.host.peer_id,
            }
        )

    async def delete(self) -> None:
        """Give the seat up."""
        person = await self.person()
        if not person.is_service:
            await self.desk.give_up(person, self._guest())
        self.set_status(204)

    def _guest(self) -> str:
        guest = self.read_json().get("guest")
        if not isinstance(guest, str):
            raise RequestInvalid("The body has no guest.", next_step='Send {"guest": "12D3Koo…"}.')
        return guest


class HealthHandler(JsonHandler):
    """Whether the service runs; anybody may ask."""

    def get(self) -> None:
        """Says which version, too."""
        self.write_json({"status": "ok", "version": __version__})
