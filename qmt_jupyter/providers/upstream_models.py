"""Which models an upstream has, and which of them are shared."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from ..errors import OptionInvalid, QmtError, UpstreamUnreachable
from ..harmless import printable
from .base import Model
from .secret import Secret
from .upstream_events import error_text
from .upstream_refusals import refusal

_MOST_MODELS = 256


async def models_of(client: Any, url: str, key: Secret | None) -> list[Model]:
    """What the server at ``url`` lists. Raises UpstreamUnreachable or what its refusal means."""
    host = urlsplit(url).hostname or ""
    problem: QmtError | None = None
    found: list[Any] = []
    try:
        page = await client.models.list()
        found = list(page.data)
    except Exception as error:
        status = getattr(error, "status_code", None)
        if status is None:
            problem = UpstreamUnreachable(f"{host} could not be reached.")
        else:
            said = error_text(getattr(error, "body", None))
            said = printable(key.scrub(said) if key else said, 200)
            problem = refusal(host, status, f": {said.rstrip('.')}" if said else "")
    if problem is not None:
        raise problem
    models = []
    for each in found[:_MOST_MODELS]:
        name = getattr(each, "id", None)
        if isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable():
            context = getattr(each, "max_model_len", None) or getattr(each, "context_length", None)
            # Some say -1 or 0 for what they do not know.
            told = context if isinstance(context, int) and not isinstance(context, bool) else 0
            known = told if 0 < told < 2**31 else None
            # Nothing in the list says what a model is for; the upstream will.
            models.append(Model(name, known, embeds=True))
    return models


def shared(offered: list[Model], patterns: Sequence[str]) -> tuple[Model, ...]:
    """Those of the models that the patterns name. Raises OptionInvalid where none is meant."""
    listed = ", ".join(model.name for model in offered[:20]) or "none"
    if not patterns:
        if len(offered) == 1:
            return tuple(offered)
        raise OptionInvalid(
            f"The upstream has {len(offered)} models: {listed}.",
            next_step="Say which to share with --upstream-model NAME (* and ? stand for more).",
        )
    chosen = [m for m in offered if any(fnmatch.fnmatchcase(m.name, each) for each in patterns)]
    if not chosen:
        raise OptionInvalid(
            f"The upstream has no model like {', '.join(patterns)}; it has {listed}.",
            next_step="Correct --upstream-model.",
        )
    return tuple(chosen)
