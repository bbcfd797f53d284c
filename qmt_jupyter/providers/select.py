"""From a model's name to a running provider."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

from ..errors import EngineMissing, OptionInvalid
from ..settings import Settings
from .base import Options, Progress, Provider
from .plugins import load_plugin, plugin_in

if TYPE_CHECKING:
    from .model_files import ModelFile
    from .secret import Secret

_STOP_PATIENCE = 4.0

DEFAULT_MODEL = "smollm2"
ECHO = "echo"

AUTO, XLLAMACPP, LLAMA_CPP_PYTHON = "auto", "xllamacpp", "llama-cpp-python"
ENGINES = (AUTO, XLLAMACPP, LLAMA_CPP_PYTHON)


async def load_provider(
    model: str,
    options: Options,
    settings: Settings,
    progress: Progress | None = None,
    engine: str = AUTO,
) -> Provider:
    """Find or fetch the model, and load it.

    ``model`` is a path, ``hf:OWNER/NAME/FILE.gguf``, the alias ``smollm2``, ``NAME:REST`` for the
    plugin ``NAME``, or ``echo``, which answers with the question. ``engine`` is one of
    :data:`ENGINES`. Cancelling ends a download and leaves nothing half. Raises a
    :class:`~qmt_jupyter.errors.ProviderError` or :class:`~qmt_jupyter.errors.OptionInvalid`.
    """
    if model == ECHO:
        from .echo import Echo

        return Echo(slots=options.slots)
    if (plugin := plugin_in(model)) is not None:
        return await load_plugin(*plugin, options)
    # Before a large download, not after it.
    chosen = require_engine(engine)
    file = await fetch(model, settings, progress)
    if chosen == LLAMA_CPP_PYTHON:
        from .llamacpp_python import LlamaCppPython

        return await LlamaCppPython.load(
            file,
            context=options.context,
            gpu_layers=options.gpu_layers,
            threads=options.threads,
            embeddings=options.embeddings,
        )
    from .llamacpp import LlamaCpp

    return await LlamaCpp.load(
        file,
        progress=progress,
        slots=options.slots,
        context=options.context,
        gpu_layers=options.gpu_layers,
        threads=options.threads,
        embeddings=options.embeddings,
    )


def require_engine(engine: str = AUTO) -> str:
    """The local engine to use: the one asked for, else xllamacpp, else llama-cpp-python.

    Raises :class:`~qmt_jupyter.errors.EngineMissing` where it is not here or does not load.
    """
    if engine not in ENGINES:
        raise OptionInvalid(
            f"{engine!r} is no engine.", next_step=f"The engines are {', '.join(ENGINES)}."
        )
    if engine == LLAMA_CPP_PYTHON:
        from . import llamacpp_python

        llamacpp_python.require_engine()
        return LLAMA_CPP_PYTHON
    from . import llamacpp

    try:
        llamacpp.require_engine()
    except EngineMissing as missing:
        # One that is here but broken is said; only one that is not here makes way.
        if engine == XLLAMACPP or _is_here("xllamacpp") or not _is_here("llama_cpp"):
            raise
        del missing
        return require_engine(LLAMA_CPP_PYTHON)
    return XLLAMACPP


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # hidden on purpose
        return False


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
