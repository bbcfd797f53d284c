"""Loading and unloading. Both may be called any number of times; the nodes live elsewhere."""

from __future__ import annotations

from typing import Any

from . import magics, preferences

_LINE = (
    "qmt_host", "qmt_invite", "qmt_revoke", "qmt_usage",
    "qmt_join", "qmt_models", "qmt_status", "qmt_serve", "qmt_leave", "chat",
)  # fmt: skip
_CELL = ("chat",)


def load(shell: Any) -> None:
    """Register the magics in ``shell``."""
    registered = magics.QmtMagics(shell)
    shell.register_magics(registered)
    preferences.tie(registered, shell)


def unload(shell: Any) -> None:
    """Take the magics away. Hosts and meshes go on; ``%qmt_leave`` and ``--stop`` end them."""
    for kind, names in (("line", _LINE), ("cell", _CELL)):
        registered = shell.magics_manager.magics[kind]
        for name in names:
            registered.pop(name, None)
    shell.magics_manager.registry.pop(magics.QmtMagics.__name__, None)
    preferences.untie(shell)
