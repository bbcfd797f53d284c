"""llama.cpp in this process, through xllamacpp: several requests share each step of the engine.

The engine's server class also listens on a loopback port. A random key that is kept nowhere
closes it; the calls in process need none.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from ..errors import (
    EngineMissing,
    GenerationFailed,
    ModelNotLoaded,
    ModelUnknown,
    RequestInvalid,
    Stopped,
)
from ..harmless import printable
from .base import Chunk, Embedding, Model, Progress, Provider
from .chat_request import engine_request, raised_by_engine, refused_by_engine
from .devices import device_phrase, idle_gpu_notice, is_gpu, usable_cpus
from .embedding_request import EngineCall, embed_each, embedding_body
from .generation import Generation
from .memory import available_memory, require_memory
from .model_files import ModelFile
from .read_ahead import read_ahead
from .sizing import (
    DEFAULT_CONTEXT,
    EMBEDDING_CONTEXT,
    check_sizes,
    cpu_step,
    fitted_context,
)

# How long a stream that was closed waits for the engine's thread. A step takes well under a
# second, but for a large model on a slow CPU.
_STOP_PATIENCE = 10.0
_CLOSE_PATIENCE = 30.0

_PROMPT_CACHE_MIB = 512


@dataclass(frozen=True)
class _Plan:
    """A model that can be loaded: the engine's parameters and what will be true then."""

    engine: Any
    params: Any
    architecture: str
    model: Model
    device: str
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Loaded:
    """What loading leaves: the engine and the facts about it."""

    server: Any
    model: Model
    device: str
    notices: tuple[str, ...]


class LlamaCpp(Provider):
    """One GGUF model in this process. Made by :meth:`load`."""

    def __init__(self, loaded: Loaded, slots: int) -> None:
        self._server: Any = loaded.server
        self._model = loaded.model
        self._device = loaded.device
        self._notices = loaded.notices
        self._slots = slots
        self._free = asyncio.Semaphore(slots)
        self._running: set[Generation] = set()

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"{kind}({self._model.name!r}, slots={self._slots}, device={self._device!r})"

    @classmethod
    async def load(
        cls,
        file: ModelFile,
        *,
        slots: int = 4,
        context: int | None = None,
        gpu_layers: int | None = None,
        threads: int | None = None,
        embeddings: bool = False,
        progress: Progress | None = None,
    ) -> LlamaCpp:
        """Load a model, in a thread.

        ``progress`` is called while the file is read, where that takes a while. After that the
        engine holds up this process's other threads, as long as it takes in memory.

        ``slots`` requests run side by side, each with ``context`` tokens for prompt and answer
        (None: 4096, or what the model was trained for where that is less). ``gpu_layers`` go to
        the GPU (None: as many as fit). ``threads`` compute on the CPU (None: one per core).
        With ``embeddings`` a model that chats makes embeddings too, of texts of up to ``context``
        tokens (None: 2048); one that was made for them does so anyway.

        Raises :class:`~qmt_jupyter.errors.OptionInvalid`,
        :class:`~qmt_jupyter.errors.ModelFileMissing`,
        :class:`~qmt_jupyter.errors.ModelFileInvalid`,
        :class:`~qmt_jupyter.errors.EngineMissing`, :class:`~qmt_jupyter.errors.OutOfMemory` or
        :class:`~qmt_jupyter.errors.ModelNotLoaded`.
        """
        check_sizes(slots=slots, context=context, gpu_layers=gpu_layers, threads=threads)
        plan = await asyncio.to_thread(_plan, file, slots, context, gpu_layers, threads, embeddings)
        await read_ahead(file.parts, progress)
        return cls(await asyncio.to_thread(_load, plan), slots)

    @property
    def models(self) -> tuple[Model, ...]:
        return (self._model,)

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def device(self) -> str:
        return self._device

    @property
    def notices(self) -> tuple[str, ...]:
        return self._notices

    async def chat(self, model: str, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        self._require(model)
        if not self._model.chats:
            raise RequestInvalid(f"{self._model.name} makes embeddings; it does not chat.")
        body = engine_request(request, context=self._model.context or DEFAULT_CONTEXT)
        async with aclosing(self._run(_chat, body)) as chunks:
            async for chunk in chunks:
                yield self._public(chunk)

    async def embed(
        self, model: str, request: Mapping[str, Any]
    ) -> AsyncGenerator[Embedding | Chunk, None]:
        self._require(model)
        if not self._model.embeds:
            raise RequestInvalid(
                f"{self._model.name} makes no embeddings.",
                next_step="Its host would have to share it with --embeddings.",
            )
        if request.get("dimensions") is not None:
            raise RequestInvalid(
                f"The vectors of {self._model.name} have one length only.",
                next_step="Leave out dimensions.",
            )
        tokens = 0
        body = embedding_body(request["input"])
        async with aclosing(self._run(embed_each, body)) as chunks:
            async for chunk in chunks:
                if "vector" not in chunk:
                    yield {"choices": []}
                    continue
                tokens += chunk["prompt_tokens"]
                yield Embedding(chunk["index"], chunk["vector"], tokens)

    def _require(self, model: str) -> None:
        if model != self._model.name:
            raise ModelUnknown(f"There is no model {printable(model, 80)!r} here.")

    async def _run(self, ask: EngineCall, body: bytes) -> AsyncGenerator[Chunk, None]:
        """Have the engine do one thing, in a slot."""
        await self._free.acquire()
        server = self._server
        if server is None:
            self._free.release()
            raise Stopped("The host has stopped this model.")

        def on_end() -> None:
            # The slot is free when the engine's thread has returned, however the stream ended.
            self._running.discard(generation)
            self._free.release()

        generation = Generation(partial(ask, server), body, asyncio.get_running_loop(), on_end)
        del server
        self._running.add(generation)
        generation.start()
        began = False
        try:
            while ready := await generation.pieces():
                began = True
                for chunk in ready:
                    yield chunk
            if generation.complete:
                return
            if self._server is None:
                raise Stopped("The host stopped this model.")
            if generation.refusal is not None:
                raise refused_by_engine(generation.refusal)
            if generation.exception is not None:
                raise raised_by_engine(generation.exception, began=began) from None
            raise GenerationFailed("The engine ended the answer before its end.")
        finally:
            generation.stop()
            with anyio.move_on_after(_STOP_PATIENCE, shield=True):
                await generation.ended()

    def _public(self, chunk: Chunk) -> Chunk:
        chunk["model"] = self._model.name
        chunk.pop("system_fingerprint", None)
        # How much of a prompt was known already tells a guest what others have asked.
        if usage := chunk.get("usage"):
            usage.pop("prompt_tokens_details", None)
        timings = chunk.get("timings")
        if timings and not chunk.get("usage"):
            del chunk["timings"]
            chunk["tokens"] = timings.get("predicted_n")
        elif timings:
            kept = ("prompt_ms", "predicted_n", "predicted_ms", "predicted_per_second")
            chunk["timings"] = {name: timings[name] for name in kept if name in timings}
        return chunk

    async def aclose(self) -> None:
        if self._server is None:
            return
        last_reference = [self._server]
        self._server = None
        for generation in tuple(self._running):
            generation.stop()
        with anyio.move_on_after(_CLOSE_PATIENCE, shield=True):
            while self._running:
                await next(iter(self._running)).ended()
            # Dropping it joins the engine's own threads. Where a generation is still stuck, its
            # thread holds another reference and the engine goes with it.
            await asyncio.to_thread(last_reference.clear)


def _chat(server: Any, body: bytes, on_piece: Callable[[bytes], bool]) -> None:
    server.handle_chat_completions(body, on_piece)


def _plan(
    file: ModelFile,
    slots: int,
    context: int | None,
    gpu_layers: int | None,
    threads: int | None,
    embeddings: bool,
) -> _Plan:
    head = file.head()
    embeds = embeddings or head.is_embedding
    engine = require_engine()
    devices = engine.get_device_info()
    usual = EMBEDDING_CONTEXT if embeds else DEFAULT_CONTEXT
    per_slot, notices = fitted_context(file.public_name, head, context, usual)
    gpus = [device for device in devices if is_gpu(device)] if gpu_layers != 0 else []
    available = available_memory()
    if available is not None:
        available += sum(int(gpu.get("memory_free", 0)) for gpu in gpus)
    require_memory(file.public_name, head, slots=slots, context=per_slot, available=available)

    params = engine.CommonParams()
    params.model.path = str(file.path)
    params.n_ctx = per_slot * slots
    params.n_parallel = slots
    params.n_gpu_layers = -1 if gpu_layers is None else gpu_layers
    params.cpuparams.n_threads = threads or usable_cpus() or -1
    if embeds:
        params.embedding = True
        params.n_batch = params.n_ubatch = per_slot
        if not head.is_embedding:
            params.pooling_type = engine.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    elif not gpus:
        step = cpu_step(head, params.cpuparams.n_threads)
        params.n_batch = params.n_ubatch = step
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.verbosity = -1  # prompts are logged above this
    params.api_keys = [secrets.token_urlsafe(32)]
    params.ui = params.endpoint_slots = params.endpoint_props = False
    params.endpoint_metrics = True  # for _await_first_turn; the key closes it like all others
    params.n_threads_http = 1
    used = max(1, params.cpuparams.n_threads)
    phrase = device_phrase(devices, threads=used, gpu_layers=params.n_gpu_layers)
    if (notice := idle_gpu_notice(devices)) is not None:
        notices.append(notice)
    model = Model(file.public_name, per_slot, chats=not head.is_embedding, embeds=embeds)
    architecture = printable(head.architecture or "unknown", 40)
    return _Plan(engine, params, architecture, model, phrase, tuple(notices))


def _load(plan: _Plan) -> Loaded:
    try:
        server = plan.engine.Server(plan.params)
    except (RuntimeError, ValueError):
        raise ModelNotLoaded(
            f"The engine could not load {plan.model.name}: the file may be incomplete, its "
            f"architecture ({plan.architecture}) newer than the engine, or the memory short.",
            next_step="Get the file again, update xllamacpp, or try a smaller --context.",
        ) from None
    _await_first_turn(server)
    return Loaded(server, plan.model, plan.device, plan.notices)


def _await_first_turn(server: Any) -> None:
    """Wait until the engine's own thread takes orders.

    An order to end that comes before that is undone by the thread's beginning, and whoever lets go
    of the engine waits for it for ever. The engine's counters are what that thread alone tells.
    """
    server.handle_metrics()


def require_engine() -> Any:
    """The engine's module. Raises :class:`~qmt_jupyter.errors.EngineMissing`."""
    try:
        import xllamacpp
    except ModuleNotFoundError:
        raise EngineMissing("The engine xllamacpp is not installed here.") from None
    except ImportError as error:
        raise EngineMissing(
            f"The engine xllamacpp is installed but does not load ({printable(str(error), 120)}).",
            next_step="A GPU build needs the GPU's driver; pip install --force-reinstall "
            "xllamacpp brings back the CPU build.",
        ) from None
    return xllamacpp
