"""One request on its way: what it is refused for, what it is counted as, and how it ends."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from qmt_jupyter.errors import (
    Busy,
    GenerationFailed,
    ModelNotAllowed,
    ModelUnknown,
    OptionInvalid,
    RecordsUnwritable,
    RequestInvalid,
    TokensUsedUp,
)
from qmt_jupyter.host import aliases
from qmt_jupyter.host.dispatch import Dispatcher
from qmt_jupyter.host.guesses import guessed_tokens
from qmt_jupyter.host.limits import Limits
from qmt_jupyter.host.membership import Register
from qmt_jupyter.host.records import Changes
from qmt_jupyter.host.rows import InviteRecord, Membership
from qmt_jupyter.host.usage import UsageBook
from qmt_jupyter.providers.base import Embedding, Model, Provider
from qmt_jupyter.wire import messages

pytestmark = pytest.mark.anyio

USER = [{"role": "user", "content": "hi"}]


class Scripted(Provider):
    """Yields the chunks it was given, and remembers what it was asked."""

    def __init__(self, *chunks, models=("m",), slots=1):
        self.chunks = chunks
        self.named = models
        self.side_by_side = slots
        self.asked = []

    @property
    def models(self):
        return tuple(Model(name) for name in self.named)

    @property
    def slots(self):
        return self.side_by_side

    async def chat(self, model, request):
        self.asked.append((model, dict(request)))
        for chunk in self.chunks:
            yield chunk


class Vectors(Scripted):
    """Yields the embeddings it was given."""

    @property
    def models(self):
        return (Model("chat"), Model("both", embeds=True), Model("vectors", None, False, True))

    async def embed(self, model, request):
        self.asked.append((model, dict(request)))
        for each in self.chunks:
            yield each


def piece(text, finish=None):
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def spent(prompt, completion):
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


class Books:
    """A dispatcher with one invite and one guest; every row that it keeps is remembered."""

    def __init__(self, provider, error=None, **limits):
        self.rows = []
        self.register = Register()
        made = InviteRecord(str(uuid.uuid4()), "x", time.time(), 0, 0, Limits(**limits))
        self.register.add_invite(made)
        self.invite_id = made.invite_id
        self.member = self.guest("guest")

        def write(rows):
            self.rows += rows
            kept = asyncio.get_running_loop().create_future()
            if error is None:
                kept.set_result(None)
            else:
                kept.set_exception(error)
            return kept

        self.book = UsageBook(1, write, self.rows.extend)
        self.dispatcher = Dispatcher([provider], self.register, self.book)

    def guest(self, name):
        membership = Membership(str(uuid.uuid4()), self.invite_id, name, "", time.time())
        return self.register.add_member(membership)

    def answer(self, member=None, **parameters):
        return self.dispatcher.answer(member or self.member, {"messages": USER, **parameters})

    def embed(self, *texts, **parameters):
        return self.dispatcher.embed(self.member, {"input": list(texts), **parameters})

    async def vectors(self, *texts, **parameters):
        return [reply async for reply in self.embed(*texts, **parameters)]

    async def replies(self, **parameters):
        return [reply async for reply in self.answer(**parameters)]

    @property
    def counted(self):
        return self.member.usage.as_dict()


async def test_the_engines_count_replaces_the_running_one():
    books = Books(Scripted(piece("a"), piece("b", "stop"), spent(7, 5)))
    assert [type(reply) for reply in await books.replies()] == [
        messages.Started,
        messages.Delta,
        messages.Delta,
        messages.Usage,
        messages.Done,
    ]
    assert (books.counted["prompt_tokens"], books.counted["completion_tokens"]) == (7, 5)
    assert (books.counted["running"], books.counted["ended"]) == (0, {"completed": 1})
    begun, ended = books.rows
    assert (begun.request_id, begun.how, begun.completion_tokens) == (1, None, 0)
    assert (ended.request_id, ended.how, ended.estimated) == (1, "completed", False)
    assert ended.first_token_s >= ended.queued_s >= 0


async def test_an_answer_that_just_stops_is_a_failure_and_its_pieces_count():
    books = Books(Scripted({"choices": [], "prompt_tokens": 9}, piece("a"), piece("b")))
    with pytest.raises(GenerationFailed):
        await books.replies()
    assert (books.counted["prompt_tokens"], books.counted["completion_tokens"]) == (9, 2)
    assert books.counted["ended"] == {"failed": 1}


async def test_a_providers_unexpected_error_counts_as_a_failure():
    class Broken(Scripted):
        async def chat(self, model, request):
            yield piece("a")
            raise ZeroDivisionError

    books = Books(Broken())
    with pytest.raises(ZeroDivisionError):
        await books.replies()
    assert books.counted["ended"] == {"failed": 1}


@pytest.mark.parametrize(
    ("revoke", "stopping", "how"),
    [(False, False, "cancelled"), (True, False, "revoked"), (False, True, "stopped")],
)
async def test_an_answer_that_is_broken_off_is_recorded_with_the_reason(revoke, stopping, how):
    books = Books(Scripted(*[piece("a")] * 100))
    answer = books.answer()
    for _ in range(4):
        await anext(answer)
    if revoke:
        books.register.apply(Changes(revoked={books.invite_id: time.time()}))
    books.dispatcher.stopping = stopping
    await answer.aclose()
    assert books.counted["ended"] == {how: 1}
    assert (books.rows[-1].how, books.rows[-1].completion_tokens) == (how, 3)


async def test_leaving_the_queue_frees_the_place():
    books = Books(Scripted(piece("a"), piece("b", "stop")))
    first, second = books.answer(), books.answer(books.guest("b"))
    assert isinstance(await anext(first), messages.Started)
    assert isinstance(await anext(second), messages.Queued)
    await second.aclose()
    assert books.dispatcher.waiting == 0
    await first.aclose()
    third = books.answer(books.guest("c"))
    assert isinstance(await anext(third), messages.Started)
    await third.aclose()


async def test_running_requests_are_written_down_as_they_go():
    books = Books(Scripted(*[piece("a")] * 10))
    answer = books.answer()
    for _ in range(5):
        await anext(answer)
    books.book.flush()
    books.book.flush()
    assert [(row.how, row.completion_tokens) for row in books.rows] == [(None, 0), (None, 4)]
    await answer.aclose()


async def test_nobody_is_served_who_cannot_be_written_down():
    provider = Scripted(piece("a", "stop"))
    books = Books(provider, error=RecordsUnwritable("The disk is full."))
    with pytest.raises(RecordsUnwritable):
        await books.replies()
    assert provider.asked == []
    assert books.dispatcher.waiting == 0


async def test_the_engine_is_told_how_long_the_answer_may_be():
    provider = Scripted(piece("a", "length"), spent(3, 1))
    for limits, asked, told in [
        ({}, {}, None),
        ({}, {"max_tokens": 50}, 50),
        ({"answer_tokens": 20}, {}, 20),
        ({"answer_tokens": 20}, {"max_completion_tokens": 50, "max_tokens": 70}, 20),
        ({"answer_tokens": 20}, {"max_tokens": 5}, 5),
        ({"tokens": 100}, {"max_tokens": 5}, 5),
    ]:
        replies = await Books(provider, **limits).replies(**asked)
        request = provider.asked[-1][1]
        assert request.get("max_tokens") == told
        assert "max_completion_tokens" not in request or told is None
        assert replies[-1].finish_reason == "length"


@pytest.mark.parametrize(
    ("limits", "reason"), [({"tokens": 60}, "budget"), ({"tokens_per_minute": 60}, "rate")]
)
async def test_an_answer_that_reaches_the_limit_ends_and_says_which(limits, reason):
    class Obedient(Scripted):
        async def chat(self, model, request):
            limit = request["max_tokens"]
            yield {"choices": [], "prompt_tokens": 30}
            for _ in range(limit):
                yield piece("a")
            yield piece("", "length")
            yield spent(30, limit)

    class Endless(Scripted):
        async def chat(self, model, request):
            yield {"choices": [], "prompt_tokens": 30}
            while True:
                yield piece("a")

    for provider in (Obedient(), Endless()):
        books = Books(provider, **limits)
        replies = await books.replies()
        finished = [r for r in replies if isinstance(r, messages.Delta)][-1].choices[0]
        assert replies[-1] == messages.Done(finish_reason=reason)
        assert finished["finish_reason"] == reason
        assert any(isinstance(reply, messages.Usage) for reply in replies)
        assert 30 < books.counted["prompt_tokens"] + books.counted["completion_tokens"] <= 60


async def test_a_prompt_longer_than_what_is_left_ends_before_a_word():
    books = Books(Scripted({"choices": [], "prompt_tokens": 500}, piece("a", "stop")), tokens=100)
    with pytest.raises(TokensUsedUp, match="500 tokens"):
        await books.replies()
    assert books.counted["completion_tokens"] == 0


async def test_an_invite_shows_and_answers_with_its_own_models_only():
    provider = Scripted(piece("a", "stop"), models=("big", "small", "tiny"))
    books = Books(provider, models=("small", "tiny"))
    await books.replies()
    await books.replies(model="tiny")
    assert [model for model, _ in provider.asked] == ["small", "tiny"]
    for name in ("big", "none such"):
        with pytest.raises(ModelNotAllowed, match="small, tiny"):
            await books.replies(model=name)
    with pytest.raises(ModelUnknown, match="big, small, tiny"):
        await Books(provider).replies(model="none such")
    assert books.counted["requests"] == 2


def test_a_prompts_length_is_guessed_too_long_rather_than_too_short():
    english = "Tell me a long story about a lighthouse keeper and the sea. " * 20
    assert guessed_tokens({"messages": [{"role": "user", "content": english}]}) >= 13 * 20
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}}
    parts = [{"type": "text", "text": "hi"}, image]
    assert 1000 < guessed_tokens({"messages": [{"role": "user", "content": parts}]}) < 2000
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 3000}}]
    assert guessed_tokens({"messages": USER, "tools": tools}) > 1000
    assert guessed_tokens({"messages": [{"role": "user", "content": "\ud800"}]}) > 0


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 2**63, "completion_tokens": 2**64},
        {"prompt_tokens": -5, "completion_tokens": -1},
        {"prompt_tokens": 1.5, "completion_tokens": "7"},
        {"prompt_tokens": True, "completion_tokens": None},
    ],
)
async def test_a_count_that_cannot_be_is_not_believed(usage):
    odd = {"choices": [], "usage": usage}
    books = Books(Scripted({"choices": [], "prompt_tokens": 4}, piece("a", "stop"), odd), tokens=99)
    await books.replies()
    assert (books.counted["prompt_tokens"], books.counted["completion_tokens"]) == (4, 1)
    assert books.member.account.left(0.0)["tokens"] == 94
    assert books.rows[-1].estimated


async def test_a_piece_of_several_tokens_counts_as_many():
    first, second = {**piece("a"), "tokens": 3}, {**piece("b"), "tokens": 8}
    books = Books(Scripted(first, second, *[piece("c")] * 5))
    answer = books.answer()
    for _ in range(3):
        await anext(answer)
    await answer.aclose()
    assert books.counted["completion_tokens"] == 8


async def test_what_fails_before_it_begins_costs_nothing():
    class Refusing(Scripted):
        async def chat(self, model, request):
            raise GenerationFailed("The prompt is too long.")
            yield

    books = Books(Refusing(), tokens=1000)
    with pytest.raises(GenerationFailed):
        await books.replies()
    assert (books.counted["prompt_tokens"], books.counted["ended"]) == (0, {"failed": 1})
    assert books.member.account.left(0.0)["tokens"] == 1000


async def test_a_request_that_finds_the_queue_full_is_not_one_of_the_invites(monkeypatch):
    books = Books(Scripted(piece("a", "stop")), requests=3, requests_per_minute=3)
    (lane,) = books.dispatcher._lanes._lanes
    monkeypatch.setattr(lane.queue, "_room", 0)
    running = books.answer()
    await anext(running)
    for _ in range(5):
        with pytest.raises(Busy, match="free in about") as raised:
            await books.replies()
        assert raised.value.retry_after
    await running.aclose()
    assert books.counted["requests"] == 1
    await books.replies()
    await books.replies()
    assert books.member.account.left(0.0)["requests"] == 0
    assert books.member.account.running == 0


async def test_who_could_not_be_written_down_has_lost_nothing():
    books = Books(Scripted(), error=RecordsUnwritable("The disk is full."), requests=1)
    for _ in range(3):
        with pytest.raises(RecordsUnwritable):
            await books.replies()
    assert books.counted["requests"] == 0
    assert books.member.account.left(0.0)["requests"] == 1


# Embeddings


async def test_embeddings_are_vectors_and_count_as_prompt_tokens():
    books = Books(Vectors(Embedding(0, [1.0], 3), Embedding(1, [0.5], 8)))
    replies = await books.vectors("one text", "another")
    assert [type(reply) for reply in replies] == [
        messages.Started,
        messages.Vector,
        messages.Vector,
        messages.Usage,
        messages.Done,
    ]
    assert replies[3].usage == {"prompt_tokens": 8, "total_tokens": 8}
    assert (books.counted["prompt_tokens"], books.counted["completion_tokens"]) == (8, 0)
    assert (books.rows[-1].how, books.rows[-1].estimated) == ("completed", False)


async def test_embeddings_that_nobody_counts_are_counted_by_a_guess():
    books = Books(Vectors({"choices": [], "wait": 2.0}, Embedding(0, [1.0])))
    replies = await books.vectors("x" * 300)
    assert replies[0] == messages.Queued(position=0, wait=2.0)
    assert replies[3].usage["estimated"] is True
    assert books.counted["prompt_tokens"] >= 100


async def test_a_wait_in_the_middle_is_no_queue_any_more():
    books = Books(
        Vectors(Embedding(0, [1.0], 1), {"choices": [], "wait": 2.0}, Embedding(1, [1.0], 2))
    )
    kinds = [type(reply) for reply in await books.vectors("a", "b")]
    assert messages.Queued not in kinds


async def test_the_text_in_work_counts_when_the_guest_goes():
    books = Books(Vectors({"choices": []}, Embedding(0, [1.0], 3), Embedding(1, [1.0], 900)))
    replies = books.embed("a", "x" * 3000)
    async for reply in replies:
        if isinstance(reply, messages.Vector):
            break
    await replies.aclose()
    assert books.counted["prompt_tokens"] >= 1000
    assert books.rows[-1].how == "cancelled"


async def test_embeddings_keep_to_the_budget():
    books = Books(Vectors(Embedding(0, [1.0], 40)), tokens=60)
    await books.vectors("x" * 120)
    with pytest.raises(TokensUsedUp):
        await books.vectors("x" * 120)
    assert books.counted["prompt_tokens"] == 40
    dear = Books(Vectors(Embedding(0, [1.0], 5000), Embedding(1, [1.0], 6000)), tokens=60)
    with pytest.raises(TokensUsedUp):
        await dear.vectors("a", "b")


async def test_a_model_is_asked_for_what_it_is_for():
    books = Books(Vectors(Embedding(0, [1.0], 1)))
    assert (await books.vectors("a"))[0].model == "both"
    with pytest.raises(ModelUnknown, match="makes embeddings; it offers both, vectors"):
        await books.vectors("a", model="chat")
    with pytest.raises(ModelUnknown, match="it offers chat, both"):
        await books.replies(model="vectors")
    with pytest.raises(ModelUnknown, match="no model that makes embeddings"):
        await Books(Scripted()).vectors("a")


@pytest.mark.parametrize(
    "given",
    [
        [Embedding(1, [1.0])],
        [Embedding(0, [1.0]), Embedding(0, [1.0])],
        [],
        [Embedding(0, [])],
        [Embedding(0, [float("nan")])],
        [Embedding(0, ["a"])],
    ],
)
async def test_a_provider_that_gives_other_vectors_than_asked_for_has_failed(given):
    books = Books(Vectors(*given))
    with pytest.raises(GenerationFailed):
        await books.vectors("a")
    assert books.counted["running"] == 0


async def test_a_provider_without_embeddings_says_so():
    class Claims(Scripted):
        @property
        def models(self):
            return (Model("m", embeds=True),)

    with pytest.raises(RequestInvalid, match="makes no embeddings"):
        await Books(Claims()).vectors("a")


# What a review found uncounted


@pytest.mark.parametrize("name", ["name", "tool_call_id", "refusal", "reasoning_content"])
def test_every_text_of_a_message_is_guessed(name):
    message = {"role": "assistant", "content": "", name: "x" * 3000}
    assert guessed_tokens({"messages": [message]}) >= 1000


class Sends(Vectors):
    """Says that a request was sent on, and answers nothing for as long as it is left."""

    async def _sent(self):
        for each in self.chunks:
            yield each
        await asyncio.Event().wait()

    async def chat(self, model, request):
        async for each in self._sent():
            yield each

    async def embed(self, model, request):
        async for each in self._sent():
            yield each


SENT, WAIT = {"choices": [], "sent": True}, {"choices": [], "wait": 5.0}


@pytest.mark.parametrize(
    ("chunks", "counts"), [([SENT], True), ([SENT, WAIT], False), ([WAIT], False)]
)
@pytest.mark.parametrize("kind", ["answer", "embed"])
async def test_who_leaves_before_the_first_word_has_caused_what_was_sent_on(chunks, counts, kind):
    books = Books(Sends(*chunks))
    body = (
        {"messages": [{"role": "user", "content": "x" * 3000}]}
        if kind == "answer"
        else {"input": "x" * 3000}
    )
    replies = getattr(books.dispatcher, kind)(books.member, body)
    reading = asyncio.ensure_future(anext_of(replies, len(chunks)))
    await asyncio.sleep(0.05)
    reading.cancel()
    await asyncio.wait([reading])
    await replies.aclose()
    assert (books.counted["prompt_tokens"] >= 1000) == counts
    assert books.counted["running"] == 0


async def anext_of(replies, number):
    async for _ in replies:
        pass


@pytest.mark.parametrize("usage", [spent(0, 0), spent(5, 0), spent(0, 2)])
async def test_counts_of_zero_are_no_counts(usage):
    books = Books(Scripted(piece("a"), piece("b", "stop"), usage))
    replies = await books.replies()
    assert replies[-2].usage["estimated"] is True
    assert books.counted["prompt_tokens"] > 0
    assert books.counted["completion_tokens"] == 2


async def test_a_long_piece_is_more_than_one_token():
    books = Books(Scripted(piece("x" * 8000), piece("y", "stop")))
    await books.replies()
    assert books.counted["completion_tokens"] >= 2000


async def test_an_uncounted_batch_is_guessed_after_a_counted_one():
    books = Books(Vectors(Embedding(0, [1.0], 3), Embedding(1, [1.0])))
    replies = await books.vectors("a", "x" * 3000)
    assert replies[-2].usage["estimated"] is True
    assert books.counted["prompt_tokens"] >= 1003


async def test_an_alias_keeps_the_models_own_name_to_itself():
    class Names(Scripted):
        async def chat(self, model, request):
            raise RequestInvalid(f"The upstream cannot take this: no logprobs with {model}.")
            yield {}

    books = Books(Names())
    books.dispatcher = Dispatcher([Names()], books.register, books.book, aliases.parse("public"))
    with pytest.raises(RequestInvalid, match="logprobs with public"):
        await books.replies()


@pytest.mark.parametrize("names", [["n" * 195] * 2, [f"model-{n}" for n in range(1000)]])
def test_models_that_no_guest_could_be_told_of_are_refused_before_anybody_joins(names):
    providers = [Scripted(models=(name,)) for name in names]
    with pytest.raises(OptionInvalid):
        Dispatcher(providers, Register(), None)
