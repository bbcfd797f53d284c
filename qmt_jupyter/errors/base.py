"""What all errors are made of."""

from __future__ import annotations

from typing import ClassVar


class QmtError(Exception):
    """Base of all errors raised on purpose.

    ``sentence`` says what happened, ``next_step`` what to do about it (may be empty), and
    ``retry_after`` in how many seconds another try makes sense (None: not by waiting).
    """

    code: ClassVar[str] = "error"
    default_next_step: ClassVar[str] = ""

    def __init__(
        self,
        sentence: str,
        *,
        next_step: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.next_step = self.default_next_step if next_step is None else next_step
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.sentence} {self.next_step}".strip()

    def _render_traceback_(self) -> list[str]:
        """IPython asks for this: a cell shows the sentence, not forty frames."""
        return [f"{type(self).__name__}: {self}"]
