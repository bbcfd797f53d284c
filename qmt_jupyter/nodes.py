"""Starting a host or a guest: what both facades, blocking and awaitable, have in common.

Everything here runs in the runtime's loop.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import runtime
from .errors import OptionInvalid
from .guest.mesh import GuestMesh
from .host.aliases import Alias
from .host.granting import Terms
from .host.limits import UNLIMITED, Limits
from .host.service import HostService
from .identity import lifetime, link
from .mesh.locate import DEADLINE
from .mesh.relay import relay_option
from .providers import detect
from .providers.assemble import Wanted, open_all
from .providers.base import Options, Progress, Provider
from .providers.plugins import plugin_in
from .providers.select import ECHO, fetch, require_engine
from .settings import HUB, Settings

if TYPE_CHECKING:
    from .guest.hub.services import Service

DEFAULT_USES = 1
DEFAULT_TTL = "24h"
DEFAULT_RELAY = "none"
LONGEST_GUEST_NAME = 64
_LONGEST_DEADLINE = 3600.0


@dataclass(frozen=True)
class HostOptions:
    """What :func:`qmt_jupyter.host` takes; see there."""

    model: Wanted | None = None
    name: str | None = None
    uses: int = DEFAULT_USES
    ttl: str = DEFAULT_TTL
    slots: int = Options.slots
    context: int | None = None
    gpu_layers: int | None = None
    threads: int | None = None
    port: int = 0
    limits: Limits = UNLIMITED
    embeddings: bool = False
    aliases: tuple[Alias, ...] = ()
    relay: str = DEFAULT_RELAY


def default_name() -> str:
    """The mesh name when none is given: this machine's."""
    return platform.node()[:60] or "qmt"


def terms(name: str | None, uses: int, ttl: str, limits: Limits) -> Terms:
    """An invite's terms from what a person wrote."""
    return Terms(name or default_name(), uses, lifetime.parse(ttl), limits)


async def start_host(
    options: HostOptions, progress: Progress | None = None
) -> tuple[HostService, link.Link, Callable[[], None]]:
    """Load the provider, start the host and make its first invite.

    Returns them with a call that makes the runtime forget the host when it has been closed.
    """
    if not 1 <= options.slots <= 256:
        raise OptionInvalid(f"{options.slots} is not a number of slots; 1 to 256 are possible.")
    if not 0 <= options.port < 65536:
        raise OptionInvalid(f"{options.port} is not a port; 1 to 65535 are.")
    granted = terms(options.name, options.uses, options.ttl, options.limits)
    relays = relay_option(options.relay)
    settings = Settings.from_environment()
    providers: list[Provider] = []
    try:
        setup = Options(
            options.slots,
            options.context,
            options.gpu_layers,
            options.threads,
            options.embeddings,
        )
        await open_all(options.model or Wanted(), setup, settings, progress, providers)
        service = await HostService.start(
            providers, settings, port=options.port, named=options.aliases, relays=relays
        )
    except BaseException:
        for provider in providers:
            await provider.aclose()
        raise
    try:
        first = await service.invite(granted)
    except BaseException:
        await service.close()
        raise
    return service, first, runtime.at_shutdown(service.close)


async def detect_servers() -> list[dict[str, Any]]:
    """What runs here and could be shared, unless the settings say not to look."""
    if not Settings.from_environment().looks_for_servers:
        return []
    return [found.as_dict() for found in await detect.detect()]


async def join_mesh(
    url: str | Sequence[str], name: str | None = None, deadline: float = DEADLINE
) -> tuple[GuestMesh, Callable[[], None]]:
    """Join by one or more links, with a call that makes the runtime forget the mesh again.

    The word ``hub`` for a link means the services of the JupyterHub.
    """
    settings, called = Settings.from_environment(), guest_name(name)
    _require_deadline(deadline)
    if isinstance(url, str) and url != HUB:
        mesh = await GuestMesh.join(link.read(url), settings, name=called, deadline=deadline)
    else:
        urls = [url] if isinstance(url, str) else list(url)
        granted = [link.read(each) for each in urls if each != HUB]
        mesh = await GuestMesh.join_all(
            granted,
            settings,
            name=called,
            deadline=deadline,
            services=_services() if HUB in urls else (),
        )
    return mesh, runtime.at_shutdown(mesh.close)


async def join_another(
    mesh: GuestMesh, url: str, name: str | None = None, deadline: float = DEADLINE
) -> str:
    """Join one more host by an invite link, or those of the JupyterHub; returns a peer id."""
    _require_deadline(deadline)
    called = guest_name(name)
    if url == HUB:
        joined = await mesh.seats.take(_services(), called, deadline)
    else:
        joined = await mesh.add(link.read(url), name=called, deadline=deadline)
    return joined.host_id


def _services() -> list[Service]:
    """The services of this server's JupyterHub. Raises HubNotFound."""
    from .guest.hub.environment import service_urls
    from .guest.hub.services import Service

    return [Service(each) for each in service_urls()]


def _require_deadline(deadline: float) -> None:
    if not 0 < deadline <= _LONGEST_DEADLINE:
        raise OptionInvalid(
            f"{deadline:g} is not a time to look for a host.",
            next_step=f"Give --timeout between 1 and {_LONGEST_DEADLINE:g} seconds.",
        )


def guest_name(name: str | None) -> str:
    """The name a guest goes by, as the host will show it. Raises OptionInvalid."""
    cleaned = (name or "").strip()
    if len(cleaned) > LONGEST_GUEST_NAME or not cleaned.isprintable():
        raise OptionInvalid(
            f"A guest's name has at most {LONGEST_GUEST_NAME} printable characters.",
            next_step="Choose another one.",
        )
    return cleaned


async def fetch_model(model: str, progress: Progress | None = None) -> None:
    """Have a model's file on this machine, and the engine that it is for."""
    if model != ECHO and plugin_in(model) is None:
        require_engine()
        await fetch(model, Settings.from_environment(), progress)


def chat_body(
    prompt: str | Sequence[Mapping[str, Any]], system: str | None, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """An OpenAI request from a prompt or a list of messages."""
    if isinstance(prompt, str):
        conversation: list[Any] = [{"role": "user", "content": prompt}]
    else:
        conversation = [dict(message) for message in prompt]
    if system is not None:
        conversation.insert(0, {"role": "system", "content": system})
    return request_body(conversation, parameters)


def embedding_body(texts: str | Sequence[str], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """An OpenAI embeddings request; parameters that are None are left out."""
    given = {key: value for key, value in parameters.items() if value is not None}
    return {"input": texts if isinstance(texts, str) else list(texts), **given}


def request_body(messages: Sequence[Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """An OpenAI request; parameters that are None are left out."""
    given = {key: value for key, value in parameters.items() if value is not None}
    return {"messages": list(messages), **given}
