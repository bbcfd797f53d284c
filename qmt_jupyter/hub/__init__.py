"""One GPU for a whole JupyterHub: a service of the Hub that is a host of the mesh.

In ``jupyterhub_config.py``:

>>> from qmt_jupyter.hub import configure
>>> configure(c, model="smollm2")

``python -m qmt_jupyter.hub`` is the service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["configure"]

if TYPE_CHECKING:
    from .configuring import configure


def __getattr__(name: str) -> Any:
    # The Hub's own process needs this one function, and the service none of it.
    if name == "configure":
        from .configuring import configure

        return configure
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
