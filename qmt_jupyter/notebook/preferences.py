"""``%config QmtMagics`` and :data:`qmt_jupyter.config` are one."""

from __future__ import annotations

from typing import Any

from ..configuration import config

_OPTIONS = ("auto_fallback",)


def tie(magics: Any, shell: Any) -> None:
    """Let ``%config`` list and set the options of ``magics``; its configuration file counts too."""
    untie(shell)
    shell.configurables.append(magics)
    given = magics.config.get(type(magics).__name__, {})
    for name in _OPTIONS:
        if name in given:
            setattr(config, name, getattr(magics, name))

    def show() -> None:
        for name in _OPTIONS:
            setattr(magics, name, getattr(config, name))

    show()
    config.on_change(show)
    magics.observe(lambda change: setattr(config, change["name"], change["new"]), list(_OPTIONS))


def untie(shell: Any) -> None:
    """Take the magics' options away from ``%config``."""
    config.on_change(None)
    # By name: a reloaded class is another one.
    shell.configurables[:] = [
        each for each in shell.configurables if type(each).__name__ != "QmtMagics"
    ]
