"""What the service was told: by flags, and by the environment that a JupyterHub sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECHECK_EVERY = 20.0


@dataclass(frozen=True)
class Options:
    """One service's own place and its Hub's.

    ``name`` is the service's on the Hub, ``prefix`` where the Hub's proxy sends it from
    (``/services/qmt/``), ``address`` and ``port`` where it listens for that proxy. ``hub_url`` is
    the Hub's path on the proxy (``/hub/``). ``recheck``: at most so many seconds until a right
    that is gone on the Hub is gone here. ``peers``: base URLs of other services of this Hub.
    ``hosting``: arguments of :func:`qmt_jupyter.aio.host`.
    """

    name: str
    prefix: str
    api_url: str
    api_token: str = field(repr=False)
    address: str = "127.0.0.1"
    port: int = 10200
    client_id: str = ""
    hub_url: str = "/hub/"
    hub_host: str = ""
    config: Path | None = None
    recheck: float = RECHECK_EVERY
    peers: tuple[str, ...] = ()
    hosting: dict[str, Any] = field(default_factory=dict)
