"""What a guest believes of a host's load: its word, corrected by what the guest knows itself."""

from __future__ import annotations

import math

import msgspec
import pytest

from qmt_jupyter.guest.load import LONGEST_PAUSE, HostLoad
from qmt_jupyter.wire import frames, messages
from qmt_jupyter.wire.messages import ModelOffer


@pytest.fixture
def load():
    made = HostLoad()
    made.told([ModelOffer("m", slots=4, busy=2)])
    return made


def test_a_hosts_word_is_taken_and_nothing_is_made_up(load):
    assert (load.slots("m"), load.busy("m"), load.load("m")) == (4, 2, 0.5)
    assert (load.slots("other"), load.busy("other"), load.load("other")) == (None, None, None)
    load.told([ModelOffer("m")])
    assert load.load("m") is None


def test_own_requests_count_from_the_moment_they_are_asked(load):
    with load.asking("m"), load.asking("m"):
        assert load.load("m") == 1.0
    assert load.load("m") == 0.5


def test_own_requests_that_the_host_has_told_of_count_once(load):
    with load.asking("m"):
        load.told([ModelOffer("m", slots=4, busy=3)])
        assert load.busy("m") == 3
        with load.asking("m"):
            assert load.busy("m") == 4
    assert load.busy("m") == 2, "what has ended since is taken off"


def test_a_host_that_claims_to_be_idle_has_at_least_what_it_was_asked(load):
    with load.asking("m"), load.asking("m"), load.asking("m"):
        load.told([ModelOffer("m", slots=2, busy=0)])
        assert load.load("m") == 1.5
    assert load.load("m") == 0.0


def test_a_host_that_tells_nothing_counts_what_it_was_asked():
    silent = HostLoad()
    with silent.asking("m"):
        assert silent.load("m") == 1.0
    assert silent.load("m") is None


def test_requests_that_fail_are_forgotten(load):
    with pytest.raises(ValueError, match="x"), load.asking("m"):
        raise ValueError("x")
    assert load.busy("m") == 2


def test_pauses_double_up_to_a_minute_and_end_with_an_answer(load):
    assert not load.is_paused(100.0)
    now, lengths = 100.0, []
    for _ in range(9):
        load.failed(now)
        length = next(s for s in range(1, 100) if not load.is_paused(now + s))
        lengths.append(length)
        now += length
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    load.failed(now)
    load.answered()
    assert not load.is_paused(now)
    load.failed(now)
    assert not load.is_paused(now + 1)


def test_many_refusals_at_once_are_one(load):
    for _ in range(50):
        load.failed(100.0)
    assert not load.is_paused(101.0)


@pytest.mark.parametrize("asked", [math.nan, math.inf, -math.inf, -5.0, 1e300])
def test_a_host_cannot_bend_its_pause(load, asked):
    load.failed(100.0, asked)
    assert load.is_paused(100.5)
    assert not load.is_paused(100.0 + LONGEST_PAUSE)


@pytest.mark.parametrize(
    "offer",
    [
        {"name": "m", "slots": 0, "busy": 0},
        {"name": "m", "slots": -1},
        {"name": "m", "busy": -1},
        {"name": "m", "slots": 2**16 + 1},
        {"name": "m", "busy": 2**20 + 1},
        {"name": "m", "busy": 2**63},
        {"name": "m", "busy": math.nan},
        {"name": "m", "slots": 1.5},
        {"name": "m", "slots": "4"},
    ],
)
def test_numbers_that_cannot_be_are_refused_when_read(offer):
    said = msgspec.msgpack.encode({"t": "models", "models": [offer]})
    with pytest.raises(frames.FrameError):
        messages.decode_to_guest(said)


def test_thousands_of_models_are_refused_when_read():
    said = msgspec.msgpack.encode({"t": "models", "models": [{"name": str(n)} for n in range(257)]})
    with pytest.raises(frames.FrameError):
        messages.decode_to_guest(said)
