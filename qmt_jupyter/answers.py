"""An answer while it arrives: the text so far, who gives it, and what it took."""

from __future__ import annotations

from typing import Any

from .guest.returning import Away
from .guest.routing import Passed, Route
from .harmless import printable
from .runtime import Pieces
from .wire.completions import Completion
from .wire.messages import Queued, Reply, Started

Event = Reply | Route | Away


class AnswerState:
    """What :class:`qmt_jupyter.Answer` and its awaitable twin have in common."""

    def __init__(self, events: Pieces[Event]) -> None:
        self._events = events
        self._completion = Completion()
        self._route: Route | None = None
        self._position: int | None = None
        self._wait: float | None = None
        self._patience: float | None = None

    def _take(self, event: Event) -> str:
        if isinstance(event, Route):
            # What the former host said of itself says nothing of this one.
            self._completion.started = None
            self._route, self._position, self._wait, self._patience = event, None, None, None
            return ""
        self._patience = event.seconds if isinstance(event, Away) else None
        if isinstance(event, Away):
            return ""
        if isinstance(event, Queued):
            self._position, self._wait = event.position, event.wait
        elif isinstance(event, Started):
            self._position = self._wait = None
        return self._completion.add(event)

    @property
    def text(self) -> str:
        """The answer so far."""
        return self._completion.text

    @property
    def host(self) -> str | None:
        """The peer id of the host that answers, or is asked now."""
        return None if self._route is None else self._route.host_id

    @property
    def mesh(self) -> str | None:
        """The mesh's name of the host that answers, or is asked now."""
        return None if self._route is None else printable(self._route.mesh, 60) or None

    @property
    def passed(self) -> tuple[Passed, ...]:
        """The hosts that were asked before and did not take it: ``host_id`` and error ``code``."""
        return () if self._route is None else self._route.passed

    @property
    def model(self) -> str | None:
        """The model that answers; None until it has begun."""
        started = self._completion.started
        return None if started is None else printable(started.model)

    @property
    def position(self) -> int | None:
        """How many requests are served before this one; None when it does not wait."""
        return self._position

    @property
    def wait(self) -> float | None:
        """In about how many seconds what serves it can begin; None where that is not known."""
        return self._wait

    @property
    def patience(self) -> float | None:
        """For how many seconds a host that is away is waited for; None where it is there."""
        return self._patience

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended: ``stop``, ``length``, ``tool_calls``…; None while it runs."""
        reason = self._completion.finish_reason
        return None if reason is None else printable(reason)

    @property
    def usage(self) -> dict[str, Any] | None:
        """OpenAI's usage object, once the answer has ended."""
        return self._completion.usage

    @property
    def timings(self) -> dict[str, Any] | None:
        """The engine's own timings, where it has any."""
        return self._completion.timings

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer is here."""
        return self.finish_reason is not None

    def stop(self) -> None:
        """End it now, here and on the host; what has arrived stays."""
        self._events.stop()

    def result(self) -> dict[str, Any]:
        """The answer so far as an OpenAI ``chat.completion`` object."""
        return self._completion.result()

    def __repr__(self) -> str:
        state = self.finish_reason or "running"
        return f"<Answer {state}, {len(self.text)} characters, model {self.model}>"
