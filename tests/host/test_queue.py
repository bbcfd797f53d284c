"""The fair queue, without I/O: in turn, by tokens, bounded, and nobody starves."""

from __future__ import annotations

import random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from qmt_jupyter.errors import Busy
from qmt_jupyter.host.queue import FairQueue


def enter(queue, guest="a", cost=10, size=1, now=0.0, weight=1):
    return queue.enter(guest, cost, size, now, weight)


def test_as_many_run_as_there_are_slots():
    queue = FairQueue(2)
    tickets = [enter(queue) for _ in range(5)]
    assert [ticket.has_slot for ticket in tickets] == [True, True, False, False, False]
    assert [ticket.position for ticket in tickets[2:]] == [0, 1, 2]
    queue.leave(tickets[0], 1.0)
    assert tickets[2].has_slot
    assert [ticket.position for ticket in tickets[3:]] == [0, 1]


def test_a_guest_with_one_request_goes_before_the_others_hundred():
    queue = FairQueue(1)
    running = enter(queue, "flooder")
    flood = [enter(queue, "flooder") for _ in range(100)]
    one = enter(queue, "honest")
    assert one.position <= 1
    queue.leave(running, 1.0)
    queue.leave(next(t for t in (one, flood[0]) if t.has_slot), 2.0)
    assert one.has_slot


def test_turns_go_by_tokens_not_by_requests():
    queue = FairQueue(1)
    blocker = enter(queue, "blocker")
    short = [enter(queue, "short", cost=10) for _ in range(60)]
    long = [enter(queue, "long", cost=100) for _ in range(6)]
    queue.leave(blocker, 0.0)
    for step in range(33):
        ticket = next(t for t in short + long if t.has_slot)
        queue.leave(ticket, float(step), ticket.cost)
        (short if ticket in short else long).remove(ticket)
    assert 27 <= 60 - len(short) <= 31
    assert 2 <= 6 - len(long) <= 4


def test_what_a_request_really_took_is_what_counts():
    queue = FairQueue(1)
    blocker = enter(queue, "blocker")
    lines = {name: [enter(queue, name, cost=10) for _ in range(40)] for name in ("liar", "honest")}
    queue.leave(blocker, 0.0)
    served = {"liar": 0, "honest": 0}
    for step in range(44):
        name, ticket = next((n, t) for n, line in lines.items() for t in line if t.has_slot)
        lines[name].remove(ticket)
        tokens = 100 if name == "liar" else 10
        served[name] += tokens
        queue.leave(ticket, float(step), tokens)
    assert served["liar"] <= served["honest"] + 200


def test_a_guest_that_was_alone_is_not_held_back_for_it():
    queue = FairQueue(1)
    for step in range(100):
        queue.leave(enter(queue, "early", cost=1000), float(step), 1000)
    running = enter(queue, "late")
    early = enter(queue, "early")
    late = [enter(queue, "late") for _ in range(3)]
    queue.leave(running, 0.0, 10)
    assert early.has_slot
    queue.leave(early, 0.0, 10)
    assert late[0].has_slot


def test_going_away_and_coming_back_does_not_pay_a_debt_or_save_up():
    queue = FairQueue(1)
    blocker = enter(queue, "blocker")
    others = [enter(queue, "steady", cost=10) for _ in range(50)]
    big = enter(queue, "big", cost=10)
    queue.leave(blocker, 0.0)
    served = 0
    while not big.has_slot:
        queue.leave(next(t for t in others if t.has_slot), 0.0, 10)
        others = [t for t in others if not t.has_slot or t.position]
        served += 1
    queue.leave(big, 0.0, 200)
    again = enter(queue, "big", cost=10)
    before = 0
    while not again.has_slot:
        ticket = next(t for t in others if t.has_slot)
        others.remove(ticket)
        queue.leave(ticket, 0.0, 10)
        before += 1
    assert before >= 15


def test_a_full_queue_is_busy_with_a_time():
    queue = FairQueue(1, room=2)
    for _ in range(3):
        enter(queue)
    with pytest.raises(Busy, match="2 requests wait") as raised:
        enter(queue)
    assert raised.value.retry_after >= 1
    assert queue.waiting == 2


def test_a_flooder_cannot_keep_others_out_of_a_full_queue():
    queue = FairQueue(1, room=10)
    flood = [enter(queue, "flooder") for _ in range(11)]
    honest = [enter(queue, "honest") for _ in range(5)]
    assert [ticket.pushed_out for ticket in flood] == [False] * 6 + [True] * 5
    assert queue.waiting == 10
    with pytest.raises(Busy):
        enter(queue, "honest")
    for ticket in (*flood, *honest):
        queue.leave(ticket, 0.0)
    assert queue.waiting == 0


def test_requests_that_wait_take_no_more_than_their_share_of_memory():
    queue = FairQueue(1, room_bytes=100)
    enter(queue)
    big = [enter(queue, "big", size=30) for _ in range(3)]
    with pytest.raises(Busy):
        enter(queue, "big", size=30)
    small = enter(queue, "small", size=20)
    assert [ticket.pushed_out for ticket in big] == [False, False, True]
    assert not small.pushed_out
    with pytest.raises(Busy):
        enter(queue, "small", size=1000)


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 200)), max_size=120))
@settings(max_examples=300)
def test_whatever_happens_slots_and_places_add_up(slots, moves):
    queue, inside = FairQueue(slots, room=20), []
    for now, (move, cost) in enumerate(moves):
        if move < 6 or not inside:
            try:
                inside.append(enter(queue, f"guest {cost % 5}", cost, now=float(now)))
            except Busy:
                assert queue.waiting == 20
        else:
            queue.leave(inside.pop(move % len(inside)), float(now), cost)
        there = [ticket for ticket in inside if not ticket.pushed_out]
        running = [ticket for ticket in there if ticket.has_slot]
        waiting = [ticket for ticket in there if not ticket.has_slot]
        assert len(running) == min(slots, len(there))
        assert sorted(ticket.position for ticket in waiting) == list(range(len(waiting)))
        assert queue.waiting == len(waiting)
    for ticket in inside:
        queue.leave(ticket, 1e6)
    assert queue.waiting == 0
    assert enter(queue).has_slot


@given(st.integers(1, 4), st.integers(2, 8), st.integers(0, 2**32))
@settings(max_examples=30)
def test_nobody_starves_and_everybody_gets_the_same_tokens(slots, guests, seed):
    """All always have something waiting; one of them has a hundred times as much."""
    queue, chance = FairQueue(slots, room=10_000), random.Random(seed)
    typical = {f"guest {n}": chance.choice([5, 20, 80]) for n in range(guests)}
    served = dict.fromkeys(typical, 0)
    inside, now = [], 0.0

    def ask(name):
        inside.append(enter(queue, name, 30, now=now))

    for name in typical:
        for _ in range(100 if name == "guest 0" else slots + 1):
            ask(name)
    total = 2000 * guests
    while sum(served.values()) < total:
        now += 1
        ticket = chance.choice([ticket for ticket in inside if ticket.has_slot])
        inside.remove(ticket)
        tokens = max(1, int(typical[ticket.guest] * chance.uniform(0.5, 1.5)))
        served[ticket.guest] += tokens
        queue.leave(ticket, now, tokens)
        ask(ticket.guest)
    squares = sum(tokens**2 for tokens in served.values())
    assert sum(served.values()) ** 2 / (guests * squares) >= 0.95, served


def test_positions_of_a_long_queue_stay_true_when_it_drains():
    queue, chance = FairQueue(1, room=1000), random.Random(3)
    tickets = [
        enter(queue, f"guest {chance.randrange(9)}", chance.randrange(1, 99)) for _ in range(300)
    ]
    now = 0.0
    while len(tickets) > 1:
        now += 0.01
        running = next(ticket for ticket in tickets if ticket.has_slot)
        tickets.remove(running)
        queue.leave(running, now, running.cost)
        waiting = [ticket for ticket in tickets if not ticket.has_slot]
        if len(waiting) <= 64:
            assert sorted(ticket.position for ticket in waiting) == list(range(len(waiting)))
            if waiting:
                first = next(ticket for ticket in waiting if ticket.position == 0)
                expected = first
                holder = next(ticket for ticket in tickets if ticket.has_slot)
                queue.leave(holder, now, holder.cost)
                tickets.remove(holder)
                assert expected.has_slot


def test_a_guess_that_was_far_too_high_is_no_credit_once_the_queue_was_empty():
    queue = FairQueue(1)
    first = enter(queue, "x")
    big = enter(queue, "evil", cost=1_000_000)
    queue.leave(first, 0.0, 10)
    assert big.has_slot
    lines = {name: [enter(queue, name) for _ in range(20)] for name in ("evil", "honest")}
    queue.leave(big, 1.0, 1)
    served = []
    for step in range(20):
        name, ticket = next((n, t) for n, line in lines.items() for t in line if t.has_slot)
        served.append(name)
        lines[name].remove(ticket)
        queue.leave(ticket, float(step), 10)
    assert 9 <= served.count("honest") <= 11


def test_nobody_is_pushed_out_for_a_newcomer_that_is_refused_all_the_same():
    queue = FairQueue(1, room=3, room_bytes=100)
    enter(queue)
    many = [enter(queue, "many", size=1) for _ in range(3)]
    with pytest.raises(Busy):
        enter(queue, "huge", size=100)
    assert not any(ticket.pushed_out for ticket in many)
    assert queue.waiting == 3


# Weights --------------------------------------------------------------------------------------


def test_of_those_who_wait_equally_near_the_heavier_goes_first_and_then_waits_for_the_others():
    queue = FairQueue(1)
    running = enter(queue, "blocker")
    students = [enter(queue, f"student {n}") for n in range(5)]
    staff = [enter(queue, "staff", weight=4) for _ in range(2)]
    assert [ticket.position for ticket in staff] == [0, 6]
    queue.leave(running, 1.0)
    assert staff[0].has_slot
    queue.leave(staff[0], 2.0, 10)
    assert students[0].has_slot


@given(
    st.integers(1, 4),
    st.lists(st.sampled_from([1, 2, 4, 10, 100]), min_size=2, max_size=6),
    st.integers(0, 2**32),
)
@settings(max_examples=25, phases=[Phase.generate])
def test_who_contends_gets_tokens_by_weight(slots, weights, seed):
    chance = random.Random(seed)
    queue = FairQueue(slots)
    longest, taken, now = 50, dict.fromkeys(range(len(weights)), 0), 0.0

    def ask(guest):
        return queue.enter(guest, chance.randint(1, longest), 1, now, weights[guest])

    # Everybody always has more waiting than slots could take.
    tickets = [ask(guest) for guest in taken for _ in range(slots + 1)]
    for step in range(1500):
        now = float(step)
        ticket = chance.choice([each for each in tickets if each.has_slot])
        tickets.remove(ticket)
        tokens = chance.randint(1, ticket.cost)
        taken[ticket.guest] += tokens
        queue.leave(ticket, now, tokens)
        tickets.append(ask(ticket.guest))
    shares = [taken[guest] / weight for guest, weight in enumerate(weights)]
    # What runs is charged by its guess: a slot's worth of requests, by each one's weight.
    assert max(shares) - min(shares) <= 2 * (slots + 2) * longest


@given(st.integers(1, 3), st.integers(1, 8), st.integers(0, 2**32))
@settings(max_examples=25, phases=[Phase.generate])
def test_nobody_starves_however_heavy_the_others_are(slots, heavy, seed):
    chance = random.Random(seed)
    queue = FairQueue(slots)
    tickets = [queue.enter(f"heavy {n}", 10, 1, 0.0, 100) for n in range(heavy) for _ in range(4)]
    light = queue.enter("light", 10, 1, 0.0, 1)
    served = 0
    while not light.has_slot:
        ticket = chance.choice([each for each in tickets if each.has_slot])
        tickets.remove(ticket)
        served += 1
        queue.leave(ticket, float(served), 10)
        tickets.append(queue.enter(ticket.guest, 10, 1, float(served), 100))
        # Each of the others gets no more than its weight's worth of such requests before.
        assert served <= heavy * 101 + slots
    assert light.has_slot


def test_positions_are_told_in_the_order_of_serving_with_weights_too():
    queue = FairQueue(1)
    running = enter(queue, "blocker")
    waiting = [
        enter(queue, name, cost=cost, weight=weight)
        for name, cost, weight in (("a", 30, 1), ("b", 10, 3), ("c", 20, 2))
        for _ in range(6)
    ]
    told = sorted(waiting, key=lambda ticket: ticket.position)
    assert [ticket.position for ticket in told] == list(range(len(waiting)))
    for ticket in told:
        queue.leave(running, 1.0, running.cost)
        assert ticket.has_slot
        running = ticket
