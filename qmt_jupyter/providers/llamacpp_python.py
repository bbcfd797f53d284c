"""llama.cpp in this process, through llama-cpp-python: for those who built it for their GPU.

It computes one answer at a time, so it has one slot and the host's fair queue does the rest.

The library's model is dressed up as the engine that :mod:`.llamacpp` drives (see
:mod:`.llamacpp_python_engine`), so that streaming, cancelling and closing are the same code.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from ..errors import EngineMissing, ModelNotLoaded
from ..harmless import printable
from .base import Model, Progress
from .devices import device_phrase, usable_cpus
from .llamacpp import LlamaCpp, Loaded
from .llamacpp_python_engine import Engine
from .memory import available_memory, require_memory
from .model_files import ModelFile
from .sizing import (
    DEFAULT_CONTEXT,
    EMBEDDING_CONTEXT,
    check_sizes,
    cpu_step,
    fitted_context,
)

_GPU_STEP = 512
_FEW = 4  # cores of a small or a virtual machine


class LlamaCppPython(LlamaCpp):
    """One GGUF model in this process, one request at a time. Made by :meth:`load`."""

    @classmethod
    async def load(
        cls,
        file: ModelFile,
        *,
        slots: int = 1,
        context: int | None = None,
        gpu_layers: int | None = None,
        threads: int | None = None,
        embeddings: bool = False,
        progress: Progress | None = None,  # noqa: ARG003 -- as for the other engine
    ) -> LlamaCppPython:
        """Load a model, in a thread; arguments and errors as for :meth:`.llamacpp.LlamaCpp.load`.

        However many ``slots`` are asked for, there is one. ``progress`` is not called: nothing is
        read ahead, because this engine lets the other threads go on.
        """
        check_sizes(slots=slots, context=context, gpu_layers=gpu_layers, threads=threads)
        loaded = await asyncio.to_thread(_load, file, context, gpu_layers, threads, embeddings)
        return cls(loaded, slots=1)

    @property
    def label(self) -> str:
        return "llama-cpp-python"


def require_engine() -> Any:
    """The engine's module. Raises :class:`~qmt_jupyter.errors.EngineMissing`."""
    try:
        import llama_cpp
    except ModuleNotFoundError as error:
        if error.name not in (None, "llama_cpp"):
            raise EngineMissing(
                f"The engine llama-cpp-python does not load: {error.name} is missing.",
                next_step="Install it again: pip install --force-reinstall llama-cpp-python",
            ) from None
        raise EngineMissing(
            "The engine llama-cpp-python is not installed here.",
            next_step="Install it with: pip install 'qmt-jupyter[llama-cpp-python]' (from source "
            "it compiles for some ten minutes).",
        ) from None
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # What its shared library lacks comes up as any of these.
        raise EngineMissing(
            f"The engine llama-cpp-python is installed but does not load "
            f"({printable(str(error), 120)}).",
            next_step="A GPU build needs the GPU's driver; build it again, or use --engine "
            "xllamacpp.",
        ) from None
    return llama_cpp


def _load(
    file: ModelFile,
    context: int | None,
    gpu_layers: int | None,
    threads: int | None,
    embeddings: bool,
) -> Loaded:
    head = file.head()
    embeds = embeddings or head.is_embedding
    library = require_engine()
    usual = EMBEDDING_CONTEXT if embeds else DEFAULT_CONTEXT
    size, notices = fitted_context(file.public_name, head, context, usual)
    on_gpu = bool(library.llama_supports_gpu_offload()) and gpu_layers != 0
    # Where there is a GPU, how much of it is free is for the engine to find out.
    available = None if on_gpu else available_memory()
    require_memory(file.public_name, head, slots=1, context=size, available=available)
    threads = threads or usable_cpus() or _cores()
    step = _GPU_STEP if on_gpu else cpu_step(head, threads)
    batch = size if embeds else step
    pooled = embeds and not head.is_embedding
    try:
        llama = library.Llama(
            model_path=str(file.path),
            n_gpu_layers=-1 if gpu_layers is None else gpu_layers,
            n_ctx=size,
            n_batch=batch,
            n_ubatch=batch,
            n_threads=threads,
            n_threads_batch=threads,
            embedding=embeds,
            **({"pooling_type": library.LLAMA_POOLING_TYPE_MEAN} if pooled else {}),
            verbose=False,
        )
    except (ValueError, RuntimeError, OSError, AssertionError):
        raise ModelNotLoaded(
            f"The engine could not load {file.public_name}: the file may be incomplete, its "
            f"architecture ({printable(head.architecture or 'unknown', 40)}) newer than the "
            "engine, or the memory short.",
            next_step="Get the file again, update llama-cpp-python, or try a smaller --context.",
        ) from None
    if on_gpu:
        layers = "all layers" if gpu_layers is None else f"{gpu_layers} layers"
        phrase = f"GPU, {layers} (llama-cpp-python)"
    else:
        phrase = device_phrase((), threads=int(llama.n_threads), gpu_layers=0)
    notices.append("llama-cpp-python computes one answer at a time; others wait in turn.")
    # The engine complains at each prompt where it both chats and embeds, and what it says of a
    # schema that it cannot take holds a guest's words.
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)
    model = Model(file.public_name, size, chats=not head.is_embedding, embeds=embeds)
    return Loaded(Engine(library, llama, step), model, phrase, tuple(notices))


def _cores() -> int:
    """How many threads to compute with: two to a core of a large machine gain nothing."""
    present = os.cpu_count() or 1
    return present if present <= _FEW else present // 2
