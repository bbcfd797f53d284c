"""The HTML of a text that grows, made without rendering all of it each time.

A block of Markdown (a paragraph, a list, a code block) can no longer change once another one has
begun after it. So only the last block is rendered again and again, and the work for an answer
grows with its length, not with the square of it. What comes late to a block that is closed is a
reference's definition below its use; the last rendering, of the whole, knows it.
"""

from __future__ import annotations

from typing import Any

from ..harmless import plain
from .highlight import Colours
from .markdown import COLOURS, FILLED, LINKED, LONGEST_PARSED, html, parser, unparsed

# Past so many characters, and after a block longer than can be parsed, text is shown as it is.
LONGEST_RENDERED = 400_000


class Rendering:
    """Takes a text again and again, each time longer at its end."""

    def __init__(self) -> None:
        self._text = ""  # what was taken, made plain
        self._taken = 0
        self._closed: list[str] = []
        self._start = 0  # where what is not closed begins
        self._looked = 0  # up to where ends of blocks were looked for
        self._raw = False
        self._references: dict[str, Any] = {}  # of the closed blocks
        self._defined = False  # whether there are any at all
        self._spent: dict[str, int] = {}  # by the closed blocks, of what is bounded
        self._colours = Colours()

    def html(self, text: str) -> str:
        """The HTML of ``text``, which begins with what was given before."""
        return self._html(text, self._colours)

    def whole(self, text: str) -> str:
        """The HTML of the whole, for the last time."""
        markup = self._html(text, None)
        return html(text) if self._defined and len(text) <= LONGEST_PARSED else markup

    def _html(self, text: str, colours: Colours | None) -> str:
        self._text += plain(text[self._taken :])
        self._taken = len(text)
        while not self._raw and self._close():
            pass
        rest = self._text[self._start :]
        return "".join(self._closed) + (
            unparsed(rest) if self._raw else self._rendered(rest, colours)
        )

    def _close(self) -> bool:
        """Render the blocks that can no longer change; whether there may be more of them."""
        # A line that is not complete may yet belong to the block before it.
        lines = self._text.rfind("\n", 0, self._start + LONGEST_PARSED) + 1
        end = 0
        if lines > max(self._start, self._looked):
            self._looked = lines
            end = self._close_within(self._text[self._start : lines])
        self._start += end
        too_long = len(self._text) - self._start > LONGEST_PARSED
        self._raw = self._start > LONGEST_RENDERED or (too_long and not end)
        return too_long and not self._raw

    def _close_within(self, window: str) -> int:
        """Render what is before the last block of ``window``; returns where that one begins."""
        environment: dict[str, Any] = {"references": dict(self._references), **self._spent}
        tokens: list[Any] = []
        made = parser()
        made.block.parse(window, made, environment, tokens)
        last = max((each.map[0] for each in tokens if each.level == 0 and each.map), default=0)
        if last == 0:
            return 0
        end = 0
        for _ in range(last):
            end = window.index("\n", end) + 1
        # With what it defines itself, and before what may still be written.
        self._closed.append(self._rendered(window[:end], None, is_closed=True))
        self._references = {
            name: each
            for name, each in environment["references"].items()
            if name in self._references or each["map"][0] < last
        }
        self._colours.forget()
        return end

    def _rendered(self, text: str, colours: Colours | None, *, is_closed: bool = False) -> str:
        environment: dict[str, Any] = {"references": dict(self._references), **self._spent}
        if colours is not None:
            environment[COLOURS] = colours
        markup = str(parser().render(text, environment))
        if is_closed:
            self._spent = {key: environment.get(key, 0) for key in (LINKED, FILLED)}
        self._defined = self._defined or bool(environment["references"])
        return markup
