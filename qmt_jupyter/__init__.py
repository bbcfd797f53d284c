"""Share a GPU from one notebook, use it from another: one signed link, no API key, no server.

>>> import qmt_jupyter as qmt
>>> host = qmt.host(model="smollm2", uses=5, ttl="7d")     # here is the GPU
>>> mesh = qmt.join(host.invite.url)                       # elsewhere, by the link alone
>>> for piece in mesh.chat("Why is the sky blue?"):
...     print(piece, end="")

In a notebook: ``%load_ext qmt_jupyter``, then ``%qmt_host``, ``%qmt_join`` and ``%%chat``.
Importing this module loads nothing heavy; the parts come when they are first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Allowance": "facade",
    "Answer": "api",
    "Host": "api",
    "Invite": "facade",
    "Limits": "facade",
    "Mesh": "api",
    "QmtError": "errors",
    "config": "configuration",
    "detect": "api",
    "host": "api",
    "join": "api",
}
_MODULES = ("aio", "errors")

__all__ = [  # noqa: RUF022  (the order is the reader's: what to call, then what comes back)
    "host",
    "join",
    "detect",
    "Host",
    "Mesh",
    "Invite",
    "Limits",
    "Allowance",
    "Answer",
    "QmtError",
    "aio",
    "config",
    "errors",
    "load_ipython_extension",
    "unload_ipython_extension",
]

if TYPE_CHECKING:
    from . import aio, errors
    from .api import Answer, Host, Mesh, detect, host, join
    from .configuration import config
    from .errors import QmtError
    from .facade import Allowance, Invite, Limits


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Package(ModuleType):
    """Keeps ``qmt_jupyter.host`` the function that users call.

    Importing anything from the folder of that name would otherwise bind the folder over it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext qmt_jupyter``: register the magics. Safe to call again."""
    from .notebook import extension

    extension.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext qmt_jupyter``: take the magics away. Hosts and meshes go on."""
    from .notebook import extension

    extension.unload(shell)
