"""A variable as text for a model: readable, bounded, and without what is obviously secret.

Nothing here evaluates anything; but a variable's own ``repr`` runs, as it does below a cell.
"""

from __future__ import annotations

import inspect
import os
import re
from dataclasses import dataclass
from typing import Any

from ..errors import OptionInvalid
from ..harmless import printable

LONGEST = 20_000
"""So many characters of one variable or cell are sent."""

# What hides a secret must see all of it, also where the text is cut within it.
_LONGEST_SECRET = 8_192
_ROWS = 10
_MOST_ITEMS = 1_000
_MASK = "[hidden]"
# A token by itself: version 3, then the constant head of a peer id, all in base64.
_INVITE = r"A[w-z0-9_-][\w-]{21}AJAgBEi[A-D][\w-]{100,}"
_SECRETS = (
    ("invite link", re.compile(r"(?<=qmt://mesh/join/)[\w-]+(?:\?[^\s'\"<>`]*)?", re.IGNORECASE)),
    ("invite link", re.compile(rf"(?<![\w-]){_INVITE}")),
    (
        "key",
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
            r"|(?<![\w-])(?:sk-[\w-]{20,}|hf_\w{30,}|gh[pousr]_\w{36,}|github_pat_\w{50,}"
            r"|qmt-[\w-]{40,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|xox[abprs]-[\w-]{10,})",
            re.DOTALL,
        ),
    ),
)
# Of our own classes these two say nothing that a host must not know.
_HARMLESS_OWN = ("Answer", "Limits")


@dataclass(frozen=True)
class Sendable:
    """What is sent of one thing.

    ``label`` is what it is called, ``kind`` what it is, ``whole`` how many characters it had
    before it was cut (None: it was not), and ``hidden`` what was taken out, e.g. ``("key",)``.
    """

    label: str
    text: str
    kind: str = ""
    whole: int | None = None
    hidden: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        """``df (DataFrame, 812 characters)``; with what was cut off or hidden."""
        said = [self.kind] if self.kind else []
        if self.whole is None:
            said.append(f"{len(self.text)} character{'' if len(self.text) == 1 else 's'}")
        else:
            said.append(f"only the first {len(self.text)} of {self.whole} characters")
        count = len(self.hidden)
        if count:
            things = " and ".join(dict.fromkeys(self.hidden))
            said.append(f"{things} hidden" if count == 1 else f"{count} times {things} hidden")
        return f"{self.label} ({', '.join(said)})"


def require_sendable(label: str, value: Any) -> None:
    """Raise :class:`~qmt_jupyter.errors.OptionInvalid` for an object that is there to be secret."""
    own = type(value).__module__.split(".")[0] == __name__.split(".")[0]
    if own and type(value).__name__ not in _HARMLESS_OWN:
        raise OptionInvalid(
            f"{label} holds what gives access to a mesh ({type(value).__name__}); it is not sent.",
            next_step="Send what you need of it as text of your own.",
        )
    if isinstance(value, type(os.environ)):
        raise OptionInvalid(
            f"{label} is this machine's environment, where keys are; it is not sent.",
            next_step="Put the one entry that you need into a variable.",
        )


def sendable(label: str, value: Any) -> Sendable:
    """A variable as a model can read it.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` for what is there to be secret, and for
    what fails to say what it is.
    """
    require_sendable(label, value)
    try:
        text, kind = _described(value)
    except Exception as error:
        raise OptionInvalid(
            f"{label} cannot be shown as text: its own code failed with {type(error).__name__}.",
            next_step="Turn it into a text first.",
        ) from None
    return bounded(label, text, kind)


def bounded(label: str, text: str, kind: str = "") -> Sendable:
    """A text without secrets, and cut where it is too long."""
    seen, hidden = _hide(text[: LONGEST + _LONGEST_SECRET])
    is_cut = len(text) > LONGEST + _LONGEST_SECRET or len(seen) > LONGEST
    return Sendable(label, seen[:LONGEST], kind, len(text) if is_cut else None, tuple(hidden))


def _hide(text: str) -> tuple[str, list[str]]:
    hidden: list[str] = []
    for what, pattern in _SECRETS:
        text, times = pattern.subn(_MASK, text)
        hidden += [what] * times
    return text, hidden


def _described(value: Any) -> tuple[str, str]:
    """The text, and what kind of thing it is."""
    kind = printable(type(value).__name__, 40)
    if isinstance(value, str):
        return value, ""
    if isinstance(value, (bytes, bytearray)):
        return repr(bytes(value[:LONGEST])), f"{kind} of {len(value)} bytes"
    if inspect.isroutine(value) or inspect.isclass(value):
        return _source(value), kind
    # A group or a lazy frame has a head, too, but rows only once somebody asks for them.
    is_frame = hasattr(type(value), "head") and hasattr(type(value), "shape")
    if is_frame and type(value).__module__.split(".")[0] in ("pandas", "polars"):
        return _frame(value), f"{kind}, {_shape(value)}"
    from IPython.lib.pretty import pretty

    return str(pretty(value, max_seq_length=_MOST_ITEMS)), kind


def _source(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        return repr(value)


def _shape(value: Any) -> str:
    rows, *columns = value.shape
    width = f" and {columns[0]} columns" if columns else ""
    return f"{rows} rows{width}"


def _frame(value: Any) -> str:
    """A data frame's or a column's shape, types and first rows, without importing its library."""
    types: Any = getattr(value, "dtypes", None)
    if hasattr(types, "to_string"):
        types = types.to_string()
    elif types is not None and hasattr(value, "columns"):
        pairs = zip(value.columns, types, strict=True)
        types = "\n".join(f"{name}: {each}" for name, each in pairs)
    head = value.head(_ROWS)
    rows = head.to_string() if hasattr(head, "to_string") else str(head)
    return f"{_shape(value)}\n\ntypes:\n{types}\n\nfirst rows:\n{rows}"
