"""The conversation of ``%%chat``: shown, written to a file, kept in a variable, forgotten."""

from __future__ import annotations

import copy
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OptionInvalid
from ..harmless import plain, printable
from ..words import count
from . import markdown

Message = dict[str, Any]
Facts = dict[str, Any]

# A longer conversation is shown from here on; whole it goes into a file.
_MOST_SHOWN = 100_000
_LONGEST_MARKUP = 600_000
_EMPTY = "There is no conversation yet; %%chat begins one."
_ROLES = {"system": "System", "user": "You", "assistant": "Model"}


@dataclass(frozen=True)
class Entry:
    """One message, and of an answer ``facts``: model, host, finish reason, usage."""

    message: Message
    facts: Facts | None = None

    @property
    def text(self) -> str:
        """What was said."""
        content = self.message.get("content")
        return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)

    @property
    def heading(self) -> str:
        """Who said it."""
        role = str(self.message.get("role"))
        if self.facts is None or not self.facts.get("model"):
            return _ROLES.get(role, printable(role, 20))
        host = self.facts.get("host")
        where = f" on {printable(host, 20)}" if host else ""
        return f"{printable(self.facts['model'], 80)}{where}"


def entries(
    conversation: Sequence[Message],
    answered: Sequence[tuple[Message, Facts]],
    last: int | None = None,
) -> list[Entry]:
    """The messages, with what is known of the answers; of the ``last`` questions alone if given.

    The system message always comes with them. Raises
    :class:`~qmt_jupyter.errors.OptionInvalid`.
    """
    if last is not None and last < 1:
        raise OptionInvalid("--last needs a number from 1 on.")
    facts = {id(message): said for message, said in answered}
    found = [Entry(message, facts.get(id(message))) for message in conversation]
    questions = [n for n, each in enumerate(found) if each.message.get("role") == "user"]
    if last is None or last >= len(questions):
        return found
    begin = questions[-last]
    return [
        each
        for number, each in enumerate(found)
        if number >= begin or each.message.get("role") == "system"
    ]


def messages(shown: Sequence[Entry]) -> list[Message]:
    """A copy of the OpenAI messages, to send again or to change."""
    return [copy.deepcopy(each.message) for each in shown]


# Showing -----------------------------------------------------------------------------------------


def bundle(shown: Sequence[Entry]) -> dict[str, str]:
    """The conversation for any front end; no message can break out of its place."""
    if not shown:
        return {"text/plain": _EMPTY, "text/html": f"<p>{html.escape(_EMPTY)}</p>"}
    fitting, left = list(shown), 0
    while len(fitting) > 1 and sum(len(each.text) for each in fitting) > _MOST_SHOWN:
        fitting.pop(0)
        left += 1
    before = [f"{count(left, 'earlier message')} not shown here: --export writes all."] * bool(left)
    text = "\n\n".join([*before, *(_as_text(each) for each in fitting)])
    markup = "".join([*(f"<p>{html.escape(each)}</p>" for each in before), *map(_as_html, fitting)])
    if len(markup) > _LONGEST_MARKUP:
        markup = markdown.unparsed(text)
    return {
        "text/plain": text,
        "text/markdown": "\n\n".join(
            [*before, *(_as_markdown(each, _cut(each.text)) for each in fitting)]
        ),
        "text/html": markdown.framed(markup, ""),
    }


def _cut(text: str) -> str:
    """A message as far as it is shown."""
    if len(text) <= _MOST_SHOWN:
        return text
    return f"{text[:_MOST_SHOWN]}\n\n… cut here: --export writes all."


def _as_text(entry: Entry) -> str:
    return f"{entry.heading}:\n{plain(_cut(entry.text))}"


def _as_markdown(entry: Entry, text: str) -> str:
    # A heading ends whatever the message before has left open.
    return f"#### {markdown.literal(entry.heading)}\n\n{markdown.markdown(text)}"


def _as_html(entry: Entry) -> str:
    return (
        '<section style="margin:0 0 .8em"><p style="font-weight:600;margin:0">'
        f"{html.escape(entry.heading)}</p>{markdown.html(_cut(entry.text))}</section>"
    )


# Keeping -----------------------------------------------------------------------------------------


def as_json(shown: Sequence[Entry]) -> str:
    """``{"messages": […], "answers": […]}``: the messages are OpenAI's and can be sent again.

    ``answers`` hold, for the message at ``index``, ``model``, ``host`` (the end of its peer id),
    ``finish_reason`` and ``usage``.
    """
    answers = [
        {"index": number, **each.facts}
        for number, each in enumerate(shown)
        if each.facts is not None
    ]
    said = {"messages": messages(shown), "answers": answers}
    return json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def export(shown: Sequence[Entry], path: Path, *, replace: bool) -> None:
    """Write the conversation to ``path``, Markdown or JSON by its suffix.

    A file that is there stays unless ``replace``. Markdown is written as safely as it is shown:
    it holds no HTML and loads no images. Raises :class:`~qmt_jupyter.errors.OptionInvalid`.
    """
    if not shown:
        raise OptionInvalid("There is no conversation to write.", next_step="%%chat begins one.")
    kind = path.suffix.lower()
    if kind not in (".md", ".json"):
        raise OptionInvalid(
            f"{path.name} ends in neither .md nor .json.", next_step="Choose one of them."
        )
    text = as_json(shown) if kind == ".json" else as_file(shown)
    try:
        with path.open("wb" if replace else "xb") as file:
            # Half of a pair of surrogates is no UTF-8, but JSON has this way to write it.
            file.write(text.encode(errors="backslashreplace"))
    except FileExistsError:
        raise OptionInvalid(
            f"{path} is there already.", next_step="--force replaces it; or give another name."
        ) from None
    except OSError as error:
        raise OptionInvalid(
            f"{path} cannot be written ({error.strerror or type(error).__name__}).",
            next_step="Give a file in a folder that is there and yours.",
        ) from None


def as_file(shown: Sequence[Entry]) -> str:
    """The whole conversation as a Markdown file."""
    return "\n\n".join(_as_markdown(each, each.text) for each in shown) + "\n"


def cleared_line(number: int) -> str:
    """What became of the conversation."""
    gone = "is" if number == 1 else "are"
    return f"The conversation is empty; {count(number, 'message')} {gone} gone."
