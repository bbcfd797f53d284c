"""Loading and unloading. Both may be called any number of times; the nodes live elsewhere."""

from __future__ import annotations

from typing import Any

from . import completion, magics, preferences
from .parsers import PARSERS


def load(shell: Any) -> None:
    """Register the magics in ``shell``."""
    registered = magics.QmtMagics(shell)
    shell.register_magics(registered)
    preferences.tie(registered, shell)
    completion.install(shell)


def unload(shell: Any) -> None:
    """Take the magics away. Hosts and meshes go on; ``%qmt_leave`` and ``--stop`` end them."""
    for name in PARSERS:
        kind = "cell" if name.startswith("%%") else "line"
        shell.magics_manager.magics[kind].pop(name.lstrip("%"), None)
    shell.magics_manager.registry.pop(magics.QmtMagics.__name__, None)
    preferences.untie(shell)
    completion.remove(shell)
