"""Where a guest looks for its hosts: what it remembers of them, and what all links share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import ConfigurationError
from ..identity.link import Link
from ..mesh import addresses
from ..mesh.endpoint import Connection, Endpoint
from ..mesh.locate import DEADLINE, Source, locate
from ..settings import Settings
from ..wire import messages
from .places import Places

MoreSources = Callable[[Link], Sequence[Source]]


def _none(_link: Link) -> Sequence[Source]:
    return ()


class Finder:
    """Finds the host of a link, from the network as it is at that moment.

    ``more`` gives the sources beside the link, the places remembered and the local network.
    """

    def __init__(self, settings: Settings, more: MoreSources = _none) -> None:
        self._interfaces = settings.interfaces
        self._places = Places(settings.guest_dir)
        self._more = more

    def reach(self) -> addresses.Reach:
        """This machine's addresses now. Raises a
        :class:`~qmt_jupyter.errors.ConfigurationError`."""
        return addresses.reach(self._interfaces)

    def here(self) -> addresses.Reach | None:
        """The same for comparing; None while this machine has not what the user named."""
        try:
            return self.reach()
        except ConfigurationError:
            return None

    async def find(self, link: Link, deadline: float = DEADLINE) -> tuple[Endpoint, Connection]:
        """An endpoint, which is the caller's to close, and its connection to the link's host.

        Raises :class:`~qmt_jupyter.errors.HostNotFound`,
        :class:`~qmt_jupyter.errors.VersionMismatch` or a
        :class:`~qmt_jupyter.errors.ConfigurationError`.
        """
        return await locate(
            link.invite.host_key,
            link.hints,
            self.reach(),
            messages.ALPN,
            known=self._places.of(link.invite.peer_id),
            others=self._more(link),
            deadline=deadline,
        )

    def found(self, link: Link, place: str) -> None:
        """Remember that the link's host was reached directly at ``place`` (``IP:PORT``)."""
        self._places.note(link.invite.peer_id, place)
