"""The options of a magic's line, and what ``%magic?`` shows of them."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

from .. import flags
from ..errors import QmtError
from ..harmless import shareable
from .arguments import joined, words
from .display import is_terminal


def options(parser: flags.Parser, line: str) -> argparse.Namespace | None:
    """The flags of a line, or None when help was asked for and printed."""
    given = joined(words(parser.prog, line), "--context")
    if "--help" in given or "-h" in given:
        print(parser.format_help())
        return None
    parsed: argparse.Namespace = parser.parse_args(given)
    return parsed


def documented(parser: flags.Parser) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``%magic?`` shows the docstring: the flags themselves are the best one.

    Errors leave a magic without what they came from: IPython shows every frame as soon as an
    exception group stands anywhere behind an error, suppressed or not.
    """

    def document(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def magic(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except QmtError as error:
                error.__context__ = None
                if not is_terminal(arguments[0].shell):
                    _shorten(error)
                raise error from None
            except KeyboardInterrupt:
                from .chat import Interrupted

                said = f"{parser.prog} was interrupted before it was done."
            # Raised here, it has no context at all.
            raise Interrupted(said)

        magic.__doc__ = parser.format_help()
        return magic

    return document


def _shorten(error: QmtError) -> None:
    """Cut addresses and peer ids from what a notebook saves; ``report`` keeps them."""
    error.sentence, error.next_step = shareable(error.sentence), shareable(error.next_step)
    error.args = (error.sentence,)
