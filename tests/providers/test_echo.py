from __future__ import annotations

import asyncio

import pytest

from qmt_jupyter.errors import ModelUnknown, RequestInvalid
from qmt_jupyter.providers.echo import Echo


def ask(content, **parameters):
    return {"messages": [{"role": "user", "content": content}], **parameters}


def said(chunks):
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )


async def whole(echo, request, model="echo"):
    return [chunk async for chunk in echo.chat(model, request)]


def test_it_says_what_was_said_last(run):
    echo = Echo()
    conversation = {
        "messages": [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "answer"},
            {"role": "user", "content": [{"type": "text", "text": " two  words\n"}]},
        ]
    }
    first, *chunks = run(whole(echo, conversation))
    assert first == {"choices": [], "prompt_tokens": 5}
    assert said(chunks) == " two  words\n"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
    }
    assert {chunk["model"] for chunk in chunks} == {"echo"}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_max_tokens_cuts_and_repeats(run):
    chunks = run(whole(Echo(), ask("a b c", max_tokens=2)))
    assert said(chunks) == "a b "
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    chunks = run(whole(Echo(repeat=True), ask("a b", max_completion_tokens=5)))
    assert said(chunks) == "a b a b a "
    assert chunks[-1]["usage"]["completion_tokens"] == 5


def test_it_counts_what_ran(run):
    echo = Echo(slots=7)
    assert echo.slots == 7
    assert [model.name for model in echo.models] == ["echo"]

    async def half() -> None:
        stream = echo.chat("echo", ask("a b c"))
        await anext(stream)
        assert echo.running == 1
        await stream.aclose()

    run(whole(echo, ask("x")))
    run(half())
    assert (echo.running, echo.completed, echo.cancelled) == (0, 1, 1)


def test_others_get_their_turn(run):
    async def race() -> bool:
        echo = Echo(repeat=True)
        slow = asyncio.create_task(whole(echo, ask("a", max_tokens=20_000)))
        await whole(echo, ask("quick"))
        return slow.done() or (await slow) == []

    assert not run(race())


def test_a_delay_is_kept_and_can_be_cancelled(run):
    async def cancel() -> Echo:
        echo = Echo(delay=60)
        task = asyncio.create_task(whole(echo, ask("a b")))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return echo

    assert run(cancel()).cancelled == 1


@pytest.mark.parametrize(
    "request_",
    [{}, {"messages": []}, {"messages": [{"role": "system", "content": "x"}]}]
    + [ask("a", max_tokens=n) for n in (-1, 1.5, "2", True)],
)
def test_what_makes_no_sense_is_refused(run, request_):
    with pytest.raises(RequestInvalid):
        run(whole(Echo(), request_))


def test_another_model_is_unknown(run):
    with pytest.raises(ModelUnknown):
        run(whole(Echo(), ask("a"), model="smollm2"))
