"""What every provider promises to the host.

A provider lists its models, says how many requests it runs side by side, and turns one
chat-completion request into a stream of OpenAI chunks, or some texts into embeddings. The host
has checked the request's parameters before it gets here; a provider adds nothing of the guest's to
its own configuration.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RequestInvalid

Chunk = dict[str, Any]
"""One ``chat.completion.chunk`` in OpenAI's shape. The last one of a stream has ``usage``."""


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


class Provider(abc.ABC):
    """Produces tokens. Lives in the runtime's event loop; all calls come from there."""

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
        how many seconds in ``{"choices": [], "wait": S}``. A chunk may say in ``tokens`` how many
        tokens the answer has by then. None of these goes further than the host. The
        stream ends with a chunk whose ``finish_reason`` is set, then one with ``usage`` and no
        choices. Closing the generator, or cancelling the task that awaits it, stops the engine.

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
