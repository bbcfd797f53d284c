"""What the blocking and the awaitable facade have in common: facts, and how a request is made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from . import runtime
from .answers import Event
from .configuration import config
from .endpoints import HostAnswers, Serving
from .guest.mesh import GuestMesh
from .guest.returning import PATIENCE
from .guest.routing import Route, of_host
from .host.allowance import Allowance
from .host.limits import UNLIMITED, Limits
from .host.service import HostService
from .identity import link, qr

if TYPE_CHECKING:
    from .guest.openai.service import Answering

__all__ = ["Allowance", "HostFacts", "Invite", "Limits", "MeshFacts", "Named", "of_host"]


@dataclass(frozen=True)
class Named:
    """What a host is called, for :func:`of_host`."""

    host_id: str
    mesh_name: str


@dataclass(frozen=True)
class Known:
    """A host and its models, as they were told last; nobody is asked for it."""

    host: str
    mesh: str
    models: tuple[str, ...]


# The meshes of this process, where a host looks for a model that it does not have.
_joined: WeakSet[MeshFacts] = WeakSet()
# An endpoint looks from the runtime's thread while another one joins.
_joining = Lock()


class Invite:
    """An invite that this host made. Only :attr:`url` and the QR codes show the token."""

    def __init__(self, made: link.Link, limits: Limits = UNLIMITED) -> None:
        self._link = made
        self._limits = limits

    @property
    def url(self) -> str:
        """The link; whoever has it can use the invite."""
        return self._link.url

    @property
    def invite_id(self) -> str:
        """The invite's id; it says which invite is meant and grants nothing."""
        return self._link.invite.invite_id

    @property
    def name(self) -> str:
        """The mesh's name."""
        return self._link.invite.name

    @property
    def max_uses(self) -> int:
        """How many guests it admits; 0: any number."""
        return self._link.invite.max_uses

    @property
    def expires_at(self) -> int | None:
        """When it ends, in seconds since 1970; None: never."""
        return self._link.invite.expires_at or None

    @property
    def limits(self) -> Limits:
        """What its guests may take."""
        return self._limits

    def qr(self) -> str:
        """The QR code for a terminal, readable on dark and light ones."""
        return qr.terminal(self.url)

    def svg(self) -> str:
        """The QR code as a self-contained SVG."""
        return qr.svg(self.url)

    def __repr__(self) -> str:
        uses = "any number of guests" if not self.max_uses else f"{self.max_uses} guest(s)"
        return f"<Invite {self.invite_id[:8]} to {self.name!r} for {uses}>"


class HostFacts(Serving):
    """A host as its owner sees it, without asking the loop."""

    def __init__(self, service: HostService, first: Invite, forget: Callable[[], None]) -> None:
        self._service = service
        self._forget = forget
        self._invites = [first]
        self._endpoints = []
        self._answers = HostAnswers(service)

    def _answering(self) -> list[Answering]:
        if not config.auto_fallback:
            return [self._answers]
        with _joining:
            return [self._answers, *(each._mesh for each in _joined)]

    def _events(self, body: dict[str, Any], host: str | None) -> runtime.Pieces[Event]:
        if (mesh := self._elsewhere(body, host)) is not None:
            return mesh._events(body, None)

        async def replies() -> AsyncGenerator[Event, None]:
            yield Route(self.peer_id, self.invite.name)
            async with aclosing(self._service.answer(body)) as answer:
                async for reply in answer:
                    yield reply

        return runtime.Pieces(replies)

    async def _embed(self, body: dict[str, Any], host: str | None) -> dict[str, Any]:
        if (mesh := self._elsewhere(body, host)) is not None:
            return await mesh._embed(body, None)
        return await self._service.embed(body)

    def _elsewhere(self, body: dict[str, Any], host: str | None) -> MeshFacts | None:
        """The mesh of this process that has the model which was asked for, if it is not here.

        Raises :class:`~qmt_jupyter.errors.OptionInvalid` where ``host`` names another.
        """
        if host is not None:
            of_host([Named(self.peer_id, self.invite.name)], host)
            return None
        wanted = body.get("model")
        if wanted is None or wanted in self._service.models or not config.auto_fallback:
            return None
        with _joining:
            joined = tuple(_joined)
        return next((each for each in joined if each._offers(wanted)), None)

    def _known(self) -> list[Known]:
        # Like MeshFacts._known: from any thread, without the loop.
        return [Known(self.peer_id, self.invite.name, tuple(self.models))]

    def _ids(self) -> list[str]:
        """What can be revoked: invites and guests that are not yet; from any thread."""
        return list(self._service.revocable)

    @property
    def peer_id(self) -> str:
        """The host's peer id."""
        return self._service.peer_id

    @property
    def is_running(self) -> bool:
        """Whether it has not been closed."""
        return self._service.is_running

    @property
    def invite(self) -> Invite:
        """The newest invite."""
        return self._invites[-1]

    @property
    def invites(self) -> tuple[Invite, ...]:
        """The invites made by this object, oldest first."""
        return tuple(self._invites)

    @property
    def models(self) -> list[str]:
        """The names of the models offered."""
        return list(self._service.models)

    @property
    def notices(self) -> tuple[str, ...]:
        """What the person who hosts should know, e.g. about a GPU that is not used."""
        return tuple(notice for each in self._service.providers for notice in each.notices)

    def __repr__(self) -> str:
        return f"<Host {self.peer_id[-8:]}: {', '.join(self.models)}>"


class MeshFacts(Serving):
    """The hosts that this process has joined."""

    def __init__(self, mesh: GuestMesh, forget: Callable[[], None]) -> None:
        self._mesh = mesh
        self._forget = forget
        with _joining:
            _joined.add(self)
        self._endpoints = []

    def _answering(self) -> list[Answering]:
        return [self._mesh]

    def _events(self, body: dict[str, Any], host: str | None) -> runtime.Pieces[Event]:
        return runtime.Pieces(lambda: self._mesh.answer(body, host, patience=PATIENCE))

    async def _embed(self, body: dict[str, Any], host: str | None) -> dict[str, Any]:
        return await self._mesh.embed(body, host, patience=PATIENCE)

    def _known(self) -> list[Known]:
        # Read from another thread: what is offered is replaced whole, never changed.
        return [
            Known(each.host_id, each.mesh_name, tuple(offer.name for offer in each.models))
            for each in self._mesh.links
        ]

    def _offers(self, model: str) -> bool:
        # Read from another thread: what is offered is replaced whole, never changed.
        return any(offer.name == model for each in self._mesh.links for offer in each.models)

    def __repr__(self) -> str:
        hosts = ", ".join(f"{each.mesh_name} ({each.host_id[-8:]})" for each in self._mesh.links)
        return f"<Mesh {hosts or 'left'}>"
