"""From what a person wanted shared to all the providers of a host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import OptionInvalid
from ..settings import Settings
from .base import Options, Progress, Provider
from .plugins import require_sound
from .secret import Secret, read_key
from .select import AUTO, DEFAULT_MODEL, load_provider, open_upstream

NO_KEY = "none"


@dataclass(frozen=True)
class UpstreamSource:
    """A server to share, and the key for it."""

    url: str
    key: Secret | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Wanted:
    """What is to be shared: models by name or as providers, and upstreams.

    ``patterns`` say which models of the upstreams; ``engine`` runs model files.
    """

    models: tuple[str | Provider, ...] = ()
    upstreams: tuple[UpstreamSource, ...] = ()
    patterns: tuple[str, ...] = ()
    engine: str = AUTO


def wanted(
    model: str | Provider | Sequence[str | Provider] | None,
    upstream: str | Sequence[str] | None,
    upstream_models: str | Sequence[str],
    upstream_key: str | Sequence[str | None] | None,
    engine: str,
) -> Wanted:
    """Understand what was asked for, and get the keys. Asks a person where a source says so.

    Keys belong to upstreams by their order. Raises :class:`~qmt_jupyter.errors.OptionInvalid` and
    :class:`~qmt_jupyter.errors.KeyUnavailable`.
    """
    models = (model,) if model is None or isinstance(model, (str, Provider)) else tuple(model)
    models = tuple(each for each in models if each is not None)
    urls = _several(upstream)
    patterns = _several(upstream_models)
    sources = _several(upstream_key)
    for what, given in (("model", models), ("upstream", urls)):
        for each in given:
            if sum(each is other or each == other for other in given) > 1:
                raise OptionInvalid(
                    f"The same {what} is given twice.", next_step=f"Leave out one --{what}."
                )
    if not urls and (patterns or sources):
        raise OptionInvalid("There is no upstream.", next_step="Give its address: --upstream URL.")
    if sources and len(sources) != len(urls):
        raise OptionInvalid(
            f"The numbers of upstreams ({len(urls)}) and of keys ({len(sources)}) do not match.",
            next_step="Give --upstream-key once for each --upstream, in the same order; "
            f"{NO_KEY} for one without a key.",
        )
    keys = [
        None if source in (None, NO_KEY) else read_key(source, _host(url))
        for url, source in zip(urls, sources, strict=True)
    ] if sources else [None] * len(urls)  # fmt: skip
    return Wanted(
        models,
        tuple(UpstreamSource(url, key) for url, key in zip(urls, keys, strict=True)),
        patterns,
        engine,
    )


def _several(given: object) -> tuple[str, ...]:
    """One or several of them; a bare string would count as its letters."""
    if given is None:
        return ()
    # From Python anything can come; what is no sequence of names fails where they are used.
    return (given,) if isinstance(given, str) else tuple(given)  # type: ignore[arg-type]


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


async def open_all(
    wanted: Wanted,
    options: Options,
    settings: Settings,
    progress: Progress | None,
    opened: list[Provider],
) -> None:
    """Open what is to be shared and put it into ``opened``, which the caller closes.

    In the order of :class:`Wanted`, but upstreams first: they say soonest that something is
    wrong. Raises like :func:`~.select.load_provider` and :func:`~.select.open_upstream`.
    """
    for upstream in wanted.upstreams:
        one = await open_upstream(upstream.url, wanted.patterns, options.slots, upstream.key)
        opened.append(one)  # one by one, so that they are closed where a later one fails
    models = wanted.models if wanted.models or opened else (DEFAULT_MODEL,)
    given = [each for each in models if isinstance(each, Provider)]
    for provider in given:
        await require_sound(provider, f"The provider {type(provider).__name__}")
    for model in models:
        if isinstance(model, Provider):
            opened.append(model)
        else:
            opened.append(await load_provider(model, options, settings, progress, wanted.engine))
