"""What a chat's flags ask of its answer beside the text: JSON of a form, and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import stats
from .state import State
from .structured import UNCHECKED, Form

if TYPE_CHECKING:
    from ..api import Answer


class Taking:
    """Follows one answer. ``value`` is what it is worth: its text, or the value of its JSON."""

    def __init__(self, state: State, form: Form | None, wants_figures: bool) -> None:
        self._state = state
        self._form = form
        self._timeline = stats.Timeline() if wants_figures else None
        self._budget = stats.Budget(state.mesh) if wants_figures else None
        self.value: Any = None
        self.figures: dict[str, Any] | None = None
        self._own = False

    @property
    def notice(self) -> str:
        """What somebody should know before the answer comes; often nothing."""
        return UNCHECKED if self._form is not None and not self._form.is_checked else ""

    def begin(self) -> dict[str, Any]:
        """What is sent with the request, which is sent now."""
        if self._timeline is not None:
            self._timeline.begin()
        return {} if self._form is None else {"response_format": self._form.response_format}

    def follow(self, answer: Answer) -> None:
        """Look at the answer after each of its updates."""
        if self._timeline is not None:
            self._timeline.note(answer)

    def end(self, answer: Answer) -> None:
        """The answer has come whole.

        Raises :class:`~.structured.AnswerInvalid`, by which it is no part of the conversation.
        """
        if self._timeline is not None and self._budget is not None:
            host = self._state.host
            self._own = host is not None and answer.host == host.peer_id
            left = None if self._own else self._budget.left(answer)
            self.figures = stats.figures(self._timeline, answer, left)
        self.value = (
            answer.text
            if self._form is None
            else self._form.read(answer.text, answer.finish_reason)
        )

    def table(self) -> dict[str, str]:
        """The figures for any front end."""
        return stats.bundle(stats.rows(self.figures or {}, self._own))
