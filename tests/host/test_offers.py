"""When guests are told the models and their load: bounded, seldom, and only when it changed."""

from __future__ import annotations

from qmt_jupyter.host.limits import UNLIMITED, Limits
from qmt_jupyter.host.offers import TELL_EVERY, Offers, Telling
from qmt_jupyter.host.queue import FairQueue
from qmt_jupyter.providers.base import Model
from qmt_jupyter.wire.messages import MOST_BUSY, MOST_SLOTS, ModelOffer


class Source:
    """Two models, and a count of how often their load was looked at."""

    def __init__(self) -> None:
        self.loads = {"a": (4, 0), "b": (2, 1)}
        self.looked = 0

    def offered(self, limits):
        return tuple(Model(name, 100) for name in self.loads if limits.allows(name))

    def look(self):
        self.looked += 1
        return self.loads

    def offers(self):
        return Offers(self.offered, self.look)


def test_an_offer_says_how_many_slots_there_are_and_how_many_are_taken():
    offers = Source().offers()
    assert offers.to(UNLIMITED, 0.0) == [
        ModelOffer("a", 100, slots=4, busy=0),
        ModelOffer("b", 100, slots=2, busy=1),
    ]
    assert [each.name for each in offers.to(Limits(models=("b",)), 0.0)] == ["b"]


def test_however_many_guests_ask_the_list_is_made_twice_a_second():
    source = Source()
    offers = source.offers()
    for guest in range(1000):
        offers.to(UNLIMITED, 10.0 + guest / 2500)
    assert source.looked == 1
    source.loads["a"] = (4, 3)
    assert offers.to(UNLIMITED, 10.5)[0].busy == 3


def test_numbers_stay_within_what_may_be_told():
    source = Source()
    source.loads = {"a": (10**9, 10**9), "b": (0, 0)}
    first, second = source.offers().to(UNLIMITED, 0.0)
    assert (first.slots, first.busy, second.slots) == (MOST_SLOTS, MOST_BUSY, 1)


def told(busy, names="a"):
    return [ModelOffer(name, slots=4, busy=busy) for name in names]


def test_a_guest_is_told_what_changed_and_not_sooner_than_every_two_seconds():
    telling = Telling(told(0), 100.0)
    assert not telling.due(told(1), 100.0 + TELL_EVERY - 0.1)
    assert telling.due(told(1), 100.0 + TELL_EVERY)
    assert not telling.due(told(1), 200.0), "nothing has changed"
    assert telling.due(told(2), 200.0)
    assert not telling.due(told(3), 201.0)


def test_a_change_that_went_back_is_not_told():
    telling = Telling(told(0), 0.0)
    assert not telling.due(told(1), 1.0)
    assert not telling.due(told(0), 5.0)


def test_a_long_list_is_told_less_often_but_other_models_at_once():
    names = [str(n) for n in range(256)]
    telling = Telling(told(0, names), 0.0)
    assert not telling.due(told(1, names), 31.0)
    assert telling.due(told(0, names[1:]), 2.0)
    assert telling.due(told(1, names[1:]), 34.0)


def test_a_queue_counts_who_runs_and_who_waits():
    queue = FairQueue(2)
    tickets = [queue.enter("guest", 1, 1, 0.0) for _ in range(5)]
    assert (queue.busy, queue.waiting) == (5, 3)
    for number, ticket in enumerate(tickets, 1):
        queue.leave(ticket, 1.0)
        assert queue.busy == 5 - number
