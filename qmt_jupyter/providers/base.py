"""What every provider promises to the host.

A provider lists its models, says how many requests it runs side by side, and turns one
chat-completion request into a stream of OpenAI chunks, or some texts into embeddings. The host
has checked the request's parameters before it gets here; a provider adds nothing of the guest's to
its own configuration.

Somebody else's provider is a subclass of :class:`Provider`, given to ``qmt_jupyter.host(model=…)``
as an object, or brought by a package under an entry point of the group ``qmt_jupyter.providers``
(a :data:`Factory`): ``--model NAME:REST`` then calls the one called ``NAME``.
``docs/providers.md`` writes one from beginning to end.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ..errors import RequestInvalid

Chunk = dict[str, Any]
"""One ``chat.completion.chunk`` in OpenAI's shape. The last one of a stream has ``usage``."""

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in total, from a worker thread."""

looks_every: ContextVar[float] = ContextVar("looks_every", default=0.02)
"""For how many seconds whoever reads an answer looks away from it, after its first pieces.

A provider may keep pieces back until the next multiple of it by the loop's clock: those of
several answers then go on together.
"""


@dataclass(frozen=True)
class Model:
    """A model as guests see it: its public name and its context in tokens (None: unknown).

    ``chats`` and ``embeds`` say which of :meth:`Provider.chat` and :meth:`Provider.embed` it is
    for; both where that is not known.
    """

    name: str
    context: int | None = None
    chats: bool = True
    embeds: bool = False


@dataclass(frozen=True)
class Embedding:
    """The vector of text number ``index``.

    ``prompt_tokens`` is what the texts so far had in all, this one included; None where that is
    known at the end or never.
    """

    index: int
    vector: Sequence[float]
    prompt_tokens: int | None = None


@dataclass(frozen=True)
class Options:
    """How whoever hosts wants a provider set up; None leaves the choice to the provider.

    ``slots`` requests run side by side, each with ``context`` tokens; ``gpu_layers`` of the
    model are put on the GPU; ``threads`` compute on the CPU; ``embeddings`` are made by a model
    that chats, too. A provider takes what applies to it.
    """

    slots: int = 4
    context: int | None = None
    gpu_layers: int | None = None
    threads: int | None = None
    embeddings: bool = False


class Provider(abc.ABC):
    """Produces tokens. Lives in the runtime's event loop; all calls come from there.

    So nothing here may block for more than some milliseconds: what does belongs into a thread
    (``asyncio.to_thread``). ``models``, ``slots`` and :meth:`chat` are all that a provider needs.
    ``models`` and ``slots`` are looked at often and must be quick; ``slots`` does not change.
    """

    @property
    @abc.abstractmethod
    def models(self) -> tuple[Model, ...]:
        """The models offered now."""

    @property
    @abc.abstractmethod
    def slots(self) -> int:
        """How many requests run side by side; the host never sends more at once."""

    @property
    def label(self) -> str:
        """A short name that goes before a model's where two providers have one of the same name."""
        return type(self).__name__.lower()

    @property
    def device(self) -> str:
        """One phrase on what the provider computes with, e.g. ``"CPU, 2 threads"``."""
        return ""

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences that the person who hosts should read, e.g. on an unused GPU."""
        return ()

    @abc.abstractmethod
    def chat(self, model: str, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """Run one chat completion and yield its chunks as they come.

        ``request`` is an OpenAI chat-completion body without ``model`` and ``stream``. A provider
        that knows the prompt's length before the answer begins says so in a chunk of its own,
        ``{"choices": [], "prompt_tokens": N}``; one that has to wait before it can begin says for
        how many seconds in ``{"choices": [], "wait": S}``, and one whose work costs from the
        moment it is sent on says that in ``{"choices": [], "sent": True}``. A chunk may say in
        ``tokens`` how many tokens the answer has by then. None of these goes further than the
        host. The stream ends with a chunk whose ``finish_reason`` is set, then one with ``usage``
        and no choices (without one, the host counts by itself and says so). Closing the generator,
        or cancelling the task that awaits it, stops the engine: what was begun is ended in
        ``finally`` or by ``async with``.

        ``model`` is one of the provider's own names, whatever guests call it. What is raised
        reaches the guest in one sentence; an error of any other kind than the following is
        logged here and told to the guest as a plain failure, without its text.

        Raises :class:`~qmt_jupyter.errors.RequestInvalid`,
        :class:`~qmt_jupyter.errors.PromptTooLong` or a
        :class:`~qmt_jupyter.errors.ProviderError`.
        """

    async def embed(
        self,
        model: str,
        request: Mapping[str, Any],  # noqa: ARG002  (for those who make some)
    ) -> AsyncGenerator[Embedding | Chunk, None]:
        """Turn each text of ``request["input"]`` (a list of them) into a vector.

        Only for models that say ``embeds``. ``request`` may have ``dimensions``; who cannot shorten
        vectors refuses it. ``{"choices": []}`` says that the work begins; one that has to wait says
        so as in :meth:`chat`. Closing the generator stops the engine at the next text. Raises like
        :meth:`chat`.
        """
        raise RequestInvalid(f"The model {model[:80]!r} makes no embeddings.")
        yield Embedding(0, ())  # what makes this a generator

    async def aclose(self) -> None:  # noqa: B027  (an engine without resources has none to free)
        """Free the engine. Running streams end first; safe to call twice."""


Factory = Callable[[str, Options], "Provider | Awaitable[Provider]"]
"""What an entry point of the group ``qmt_jupyter.providers`` leads to.

Called in the runtime's event loop with what stands after ``NAME:``, and with the options; gives a
provider, or is a coroutine function that does. A :class:`~qmt_jupyter.errors.QmtError` that it
raises is shown as it is, any other error with its text.
"""
