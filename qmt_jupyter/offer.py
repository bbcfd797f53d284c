"""What was found running here, and the lines that would share it. Sharing is for people to do."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from .harmless import printable

_MOST_LINES = 8  # a server, one line for each model
_MOST_LISTED = 20
_ALL = '"*"'

# Needs no quoting in any shell, nor in a magic's line. What is not like that gets no line.
_SIMPLE = re.compile(r"[A-Za-z0-9/._][A-Za-z0-9/._:@+-]*")
_NOT_IN_ALIAS = re.compile(r"[^A-Za-z0-9._-]+")


def offer(found: Sequence[dict[str, Any]], command: str, renamed: bool = False) -> dict[str, Any]:
    """The servers, each with its ``lines``, and the line for the ``default`` model.

    ``command`` is what was run, ready to have flags added; ``renamed``: with ``--as`` among them.
    """
    servers = [{**server, "lines": _lines(server, command, renamed)} for server in found]
    return {"servers": servers, "default": f"{command} --model smollm2"}


def offer_text(offered: dict[str, Any]) -> str:
    """The same in words."""
    parts = []
    for server in offered["servers"]:
        if server["needs_key"]:
            said = "which lists its models to who has its key"
        else:
            names = [printable(name, 80) for name in server["models"]]
            more = len(names) - _MOST_LISTED
            said = (
                f"with {', '.join(names[:_MOST_LISTED])}{f' and {more} more' if more > 0 else ''}"
            )
        parts.append(f"{server['product']} runs here at {server['url']}, {said}:")
        parts += [f"    {line}" for line in server["lines"]]
    if importlib.util.find_spec("openai") is None:
        parts.append("Sharing a server needs: pip install 'qmt-jupyter[upstream]'")
    parts.append("Or, with a model of this package's own:")
    parts.append(f"    {offered['default']}")
    parts.append("Nothing is shared yet: one of these lines does it.")
    return "\n".join(parts)


def _lines(server: dict[str, Any], command: str, renamed: bool) -> list[str]:
    base = f"{command} --upstream {server['url']}"
    if server["needs_key"]:
        return [f"{base} --upstream-key prompt --upstream-model NAME"]
    models = server["models"]
    if len(models) == 1:
        # The only one need not be named.
        named = f" --upstream-model {models[0]}" if _SIMPLE.fullmatch(models[0]) else ""
        return [base + named + _renaming(models[0], renamed)]
    simple = [name for name in models if _SIMPLE.fullmatch(name)][:_MOST_LINES]
    lines = [f"{base} --upstream-model {name}{_renaming(name, renamed)}" for name in simple]
    # With --as NAME there can be one model only.
    return [*lines, f"{base} --upstream-model {'NAME' if renamed else _ALL}"]


def _renaming(model: str, renamed: bool) -> str:
    """For one that is called by its file: guests need not know the host's folders."""
    short = None if renamed else _file_name(model)
    return f" --as {short}" if short else ""


def _file_name(model: str) -> str | None:
    """A name for a model that is called by the path of its file; None for any other."""
    if not (model.startswith("/") or re.match(r"[A-Za-z]:[\\/]", model)):
        return None
    last = PureWindowsPath(model).name if ":" in model[:2] else PurePosixPath(model).name
    return _NOT_IN_ALIAS.sub("-", last.removesuffix(".gguf")).strip("-")[:60] or None
