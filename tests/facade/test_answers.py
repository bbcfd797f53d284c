"""What an answer says of itself while there is no text yet."""

from __future__ import annotations

from qmt_jupyter.answers import AnswerState
from qmt_jupyter.guest.returning import Away
from qmt_jupyter.guest.routing import Passed, Route
from qmt_jupyter.wire.messages import Queued


def test_what_the_former_host_said_is_not_said_of_the_next():
    answer = AnswerState(None)
    for event in (Route("first"), Queued(position=3, wait=9.0), Away("first", 5.0)):
        answer._take(event)
    assert (answer.host, answer.patience, answer.position) == ("first", 5.0, 3)
    answer._take(Route("second", passed=(Passed("first", "host-gone"),)))
    assert (answer.host, answer.patience, answer.position, answer.wait) == (
        "second", None, None, None,
    )  # fmt: skip
