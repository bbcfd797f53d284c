"""From a model's name to a running provider."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from ..settings import Settings
from .base import Provider

if TYPE_CHECKING:
    from .model_files import ModelFile
    from .secret import Secret

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in total, from a worker thread."""

_STOP_PATIENCE = 4.0

DEFAULT_MODEL = "smollm2"
ECHO = "echo"


@dataclass(frozen=True)
class Engine:
    """How the local engine is set up; None leaves the choice to the engine.

    ``slots`` requests run side by side, each with ``context`` tokens; ``gpu_layers`` of the
    model are put on the GPU; ``threads`` compute on the CPU; ``embeddings`` are made by a model
    that chats, too.
    """

    slots: int = 4
    context: int | None = None
    gpu_layers: int | None = None
    threads: int | None = None
    embeddings: bool = False


async def load_provider(
    model: str, engine: Engine, settings: Settings, progress: Progress | None = None
) -> Provider:
    """Find or fetch the model, and load it.

    ``model`` is a path, ``hf:OWNER/NAME/FILE.gguf``, the alias ``smollm2``, or ``echo``, which
    answers with the question. Cancelling ends a download and leaves nothing half. Raises a
    :class:`~qmt_jupyter.errors.ProviderError`.
    """
    if model == ECHO:
        from .echo import Echo

        return Echo(slots=engine.slots)
    from .llamacpp import LlamaCpp, require_engine

    # Before a large download, not after it.
    require_engine()
    return await LlamaCpp.load(
        await fetch(model, settings, progress),
        slots=engine.slots,
        context=engine.context,
        gpu_layers=engine.gpu_layers,
        threads=engine.threads,
        embeddings=engine.embeddings,
    )


async def open_upstream(
    url: str, patterns: Sequence[str], slots: int, key: Secret | None
) -> Provider:
    """Share models of an OpenAI-compatible server; see :meth:`~.upstream.Upstream.open`."""
    from .upstream import Upstream

    return await Upstream.open(url, patterns=patterns, slots=slots, key=key)


async def fetch(model: str, settings: Settings, progress: Progress | None = None) -> ModelFile:
    """The model's file on this machine, downloaded if it is not here yet. Raises and cancels
    like :func:`load_provider`.
    """
    from .model_files import locate_model

    cancelled, ended = threading.Event(), threading.Event()

    def work() -> ModelFile:
        try:
            return locate_model(model, settings.models_dir, progress, cancelled)
        finally:
            ended.set()

    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except BaseException:
        # The worker sees it within a tenth of a second; what it has half is then cleared away.
        cancelled.set()
        with anyio.move_on_after(_STOP_PATIENCE, shield=True):
            while not ended.is_set():
                await anyio.sleep(0.02)
        raise
