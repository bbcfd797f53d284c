"""What lives as long as the kernel: the host, the mesh, the conversation.

``%reload_ext`` reloads the top module only, so this survives it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..configuration import config
from ..errors import ModelUnknown, NotHosting, NotJoined

if TYPE_CHECKING:
    from ..api import Host, Mesh
    from ..endpoints import Endpoint
    from .panels.guest import GuestPanel
    from .panels.host import HostPanel


@dataclass
class State:
    """One kernel's nodes and its conversation (OpenAI messages)."""

    started: Host | None = None
    mesh: Mesh | None = None
    host_line: str = ""
    host_panel: HostPanel | None = None
    conversation: list[dict[str, Any]] = field(default_factory=list)
    # Who gave the answers of the conversation: the message itself, and what is known of it.
    answered: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    endpoint: Endpoint | None = None
    endpoint_terms: tuple[int, tuple[str, ...]] = (0, ())
    environment: dict[str, str | None] | None = None  # what the endpoint's variables were before
    guest_panel: GuestPanel | None = None

    def converse(self, messages: list[dict[str, Any]], facts: dict[str, Any]) -> None:
        """Take over a conversation whose last message is an answer with these facts."""
        self.answered.append((messages[-1], facts))
        kept = {id(each) for each in messages}
        self.answered[:] = [each for each in self.answered if id(each[0]) in kept]
        self.conversation[:] = messages

    def forget(self) -> int:
        """Clear the conversation; returns how many messages it had."""
        count = len(self.conversation)
        self.conversation.clear()
        self.answered.clear()
        return count

    @property
    def host(self) -> Host | None:
        """The running host; one that Python code has closed does not count."""
        return self.started if self.started is not None and self.started.is_running else None

    def hosting(self) -> Host:
        """The running host. Raises :class:`~qmt_jupyter.errors.NotHosting`."""
        if self.host is None:
            raise NotHosting("This kernel does not host.")
        return self.host

    def leave(self, host: str | None = None) -> int:
        """Leave one host, or all, and return how many were left. May come from any thread.

        Raises :class:`~qmt_jupyter.errors.NotJoined` or
        :class:`~qmt_jupyter.errors.OptionInvalid`.
        """
        mesh = self.mesh
        if mesh is None:
            if host is not None:
                raise NotJoined("No mesh is joined.")
            return 0
        before = len(mesh.status())
        mesh.leave(host)
        left = len(mesh.status())
        if not left:
            mesh.leave()
            if self.mesh is mesh:
                self.mesh = None
        return before - left

    def asked(self) -> list[Host | Mesh]:
        """Who can be asked now: the host of this kernel, then the mesh that was joined."""
        here: list[Host | Mesh] = [] if self.host is None else [self.host]
        if self.mesh is None or (here and not config.auto_fallback):
            return here
        return [*here, self.mesh]

    def who_answers(self, model: str | None, host: str | None = None) -> Host | Mesh:
        """The host of this kernel where it has the model, else the mesh with the hosts joined.

        The own host is never replaced by another when it cannot answer: that one would read the
        prompt. ``host`` names the one to ask. Raises :class:`~qmt_jupyter.errors.NotJoined`,
        :class:`~qmt_jupyter.errors.ModelUnknown` or :class:`~qmt_jupyter.errors.OptionInvalid`.
        """
        if host is not None:
            return self._named(host)
        if self.host is not None and model in (None, *self.host.models):
            return self.host
        if self.host is not None and not config.auto_fallback:
            raise ModelUnknown(
                f"This kernel hosts no model {model!r}, and is not to look for it elsewhere.",
                next_step="%config QmtMagics.auto_fallback = True lets it ask the mesh.",
            )
        if self.mesh is None:
            if self.host is not None:
                offered = ", ".join(self.host.models)
                raise ModelUnknown(
                    f"There is no model {model!r} here; this kernel hosts {offered}."
                )
            raise NotJoined("There is nobody to ask: no mesh is joined and no model hosted here.")
        names = [each["name"] for each in self.mesh.models]
        if model is None or model in names:
            return self.mesh
        if any(name.endswith(f"/{model}") for name in names):
            return self.mesh  # which knows whether the bare name will do
        raise ModelUnknown(f"No host that was joined offers a model {model!r}.")

    def _named(self, host: str) -> Host | Mesh:
        from ..facade import Named, of_host

        own = self.host
        joined = [] if self.mesh is None else self.mesh.status()
        known = {each["host"]: Named(each["host"], each["mesh"]) for each in joined}
        if own is not None:
            known[own.peer_id] = Named(own.peer_id, own.invite.name)
        meant = of_host(list(known.values()), host).host_id
        if own is not None and meant == own.peer_id:
            return own
        if self.mesh is None:
            raise NotJoined("No mesh is joined.")
        return self.mesh


STATE = State()
