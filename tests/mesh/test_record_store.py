"""What a node keeps for others: valid records, the newest of each host, within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_jupyter.identity import keys, whereabouts
from qmt_jupyter.mesh.pace import Pace
from qmt_jupyter.mesh.record_store import RecordStore, StoreRefused

NOW = 1_800_000_000.0
HOSTS = [keys.Identity(bytes([n]) * 32) for n in range(1, 60)]


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(clock):
    return RecordStore(limit=20, limit_of_one=8, clock=clock, steady=clock)


def record(host=HOSTS[0], sequence=1, now=NOW, **changes):
    return whereabouts.create(host, sequence=sequence, now=now, **changes)


def put(store, made, sender="192.0.2.1"):
    return store.put(made.key, made.data, sender)


def test_a_valid_record_is_kept_under_its_host_key(store):
    made = record(addresses=("192.0.2.9:4000",))
    put(store, made)
    assert store.get(made.key) == made
    assert store.get(record(HOSTS[1]).key) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:-64] + bytes(64),
        lambda data: data + bytes(5000),
        lambda data: bytes(len(data)),
    ],
    ids=["nothing", "cut", "longer", "unsigned", "huge", "zeros"],
)
def test_what_is_no_record_is_refused(store, spoil):
    made = record()
    with pytest.raises(StoreRefused):
        store.put(made.key, spoil(made.data), "192.0.2.1")
    assert len(store) == 0


def test_a_record_under_another_key_is_refused(store):
    with pytest.raises(StoreRefused, match="key"):
        store.put(record(HOSTS[1]).key, record(HOSTS[0]).data, "192.0.2.1")


def test_a_stale_record_and_one_of_the_future_are_refused(store):
    for when in (NOW - 1801, NOW + 301):
        with pytest.raises(StoreRefused):
            put(store, record(now=when))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=15))
def test_the_newest_wins_in_whatever_order_they_come(sequences):
    clock = Clock()
    store = RecordStore(clock=clock, steady=clock)
    for sequence in sequences:
        made = record(sequence=sequence, addresses=(f"192.0.2.1:{4000 + sequence}",))
        try:
            put(store, made)
        except StoreRefused:
            assert sequence < store.get(made.key).sequence
        clock.now += 1
    assert store.get(record().key).sequence == max(sequences)


def test_two_records_of_one_sequence_do_not_take_turns(store):
    first = record(addresses=("192.0.2.1:1",))
    put(store, first)
    with pytest.raises(StoreRefused, match="newer"):
        put(store, record(addresses=("192.0.2.2:2",)))
    assert store.get(first.key) == first


def test_a_record_ends(store, clock):
    made = record()
    put(store, made)
    clock.now += 1801
    assert store.get(made.key) is None
    assert len(store) == 0


def test_after_its_end_an_older_sequence_is_taken_again(store, clock):
    """A host that lost its clock or its files is not shut out for ever."""
    put(store, record(sequence=100))
    clock.now += 2000
    made = record(sequence=5, now=clock.now)
    put(store, made)
    assert store.get(made.key) == made


def test_one_sender_has_a_bounded_share(store):
    for host in HOSTS[:8]:
        put(store, record(host))
    with pytest.raises(StoreRefused, match="share"):
        put(store, record(HOSTS[8]))
    put(store, record(HOSTS[8]), sender="192.0.2.2")
    assert len(store) == 9


def test_what_has_ended_frees_its_place(store, clock):
    for host in HOSTS[:8]:
        put(store, record(host))
    clock.now += 1801
    put(store, record(HOSTS[8], now=clock.now))
    assert len(store) == 1


def test_one_sender_stores_at_a_bounded_rate(clock):
    store = RecordStore(clock=clock, steady=clock)
    taken = 0
    for sequence in range(100):
        try:
            put(store, record(sequence=sequence))
            taken += 1
        except StoreRefused as refusal:
            assert "at once" in str(refusal)
    assert taken == 20
    clock.now += 10
    put(store, record(sequence=1000))


def test_a_full_store_takes_from_who_has_most(store):
    mine = [record(host) for host in HOSTS[:3]]
    for made in mine:
        put(store, made, "192.0.2.1")
    for at, host in enumerate(HOSTS[10:27]):
        put(store, record(host), f"198.51.100.{at % 3}")
    assert len(store) == 20
    put(store, record(HOSTS[40]), "203.0.113.1")
    assert len(store) == 20
    assert [store.get(made.key) for made in mine] == mine


def test_a_full_store_of_single_records_takes_no_more(store):
    for at, host in enumerate(HOSTS[:20]):
        put(store, record(host), f"192.0.2.{at}")
    with pytest.raises(StoreRefused, match="room"):
        put(store, record(HOSTS[30]), "198.51.100.1")
    assert len(store) == 20


def test_the_host_of_this_process_is_kept_past_all_bounds(store):
    for at, host in enumerate(HOSTS[:20]):
        put(store, record(host), f"192.0.2.{at}")
    own = record(HOSTS[30])
    store.keep_own(own)
    assert store.get(own.key) == own
    store.forget(own.key)
    assert store.get(own.key) is None


def test_a_pace_allows_a_burst_and_then_its_rate():
    pace = Pace(rate=2.0, burst=5.0)
    assert [pace.allows("a", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert pace.allows("b", 0.0)
    assert [pace.allows("a", 1.0) for _ in range(3)] == [True, True, False]
    # A clock that goes back gives nothing away.
    assert not pace.allows("a", 0.5)


def test_a_pace_remembers_a_bounded_number_of_senders():
    pace = Pace(rate=1.0, burst=1.0, senders=10)
    for number in range(1000):
        pace.allows(str(number), 0.0)
    assert len(pace) == 10
