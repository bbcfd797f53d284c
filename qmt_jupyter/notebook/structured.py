"""JSON answers: the schema that is asked for, and whether the answer keeps to it.

A schema is a dict, whatever has ``model_json_schema`` (pydantic's models, which then check the
answer themselves), a ``.json`` file, or JSON in the line. A dict's and a file's are checked by the
package ``jsonschema``, which comes with Jupyter, where it is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OptionInvalid, QmtError
from ..harmless import printable
from ..settings import user_path
from .display import Growing

_LARGEST_FILE = 1_000_000
_OPEN = "````````json\n"
_AGAIN = "Run the cell again, or ask a larger model."
_CUT = ("length", "budget", "rate", "day", "month")
UNCHECKED = (
    "The answer is checked to be JSON, but not against the schema: "
    "for that, install the package jsonschema."
)


class AnswerInvalid(QmtError):
    """An answer is not the JSON that was asked for; ``text`` is what it is."""

    code = "answer-invalid"

    def __init__(self, sentence: str, *, text: str, next_step: str) -> None:
        super().__init__(sentence, next_step=next_step)
        self.text = text


@dataclass(frozen=True)
class Form:
    """The shape of an answer.

    ``check`` turns a parsed answer and its JSON text into what is saved, or raises ValueError;
    ``is_checked`` says whether it looks at the schema.
    """

    name: str
    schema: Mapping[str, Any]
    check: Callable[[Any, str], Any]
    is_checked: bool = True

    @property
    def response_format(self) -> dict[str, Any]:
        """What OpenAI's API calls it."""
        return {
            "type": "json_schema",
            "json_schema": {"name": self.name, "schema": dict(self.schema)},
        }

    def read(self, text: str, finish_reason: str | None) -> Any:
        """The answer's value; no ``finish_reason`` says that it was stopped.

        Raises :class:`AnswerInvalid`.
        """
        inner = _inner(text)
        try:
            value = _parsed(inner)
        except ValueError:
            if finish_reason is None or finish_reason in _CUT:
                raise AnswerInvalid(
                    "The answer was cut off before its JSON ended.",
                    text=text,
                    next_step="Allow a longer answer, or ask for less.",
                ) from None
            raise AnswerInvalid("The answer is no JSON.", text=text, next_step=_AGAIN) from None
        try:
            return self.check(value, inner)
        except ValueError as error:
            said = printable(_first_problem(error), 200)
            raise AnswerInvalid(
                f"The answer does not keep to the schema: {said}.", text=text, next_step=_AGAIN
            ) from None


def _inner(text: str) -> str:
    """The JSON of an answer; some servers put it into a code block."""
    opening, _, rest = text.strip().partition("\n")
    inner, _, closing = rest.rpartition("\n")
    is_fenced = opening.strip().lower() in ("```", "```json") and closing.strip() == "```"
    return inner if is_fenced else text


def _parsed(text: str) -> Any:
    """Strict JSON. Raises ValueError."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _first_problem(error: ValueError) -> str:
    """The first sentence of what is wrong; pydantic lists it as data."""
    try:
        # Of pydantic's errors, which are ValueErrors; what others lack is caught below.
        first = error.errors(include_url=False, include_input=False)[0]  # type: ignore[attr-defined]
        place = ".".join(str(step) for step in first["loc"])
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    except (AttributeError, IndexError, KeyError, TypeError):
        return str(error)


# What was given as a schema ----------------------------------------------------------------------


def form(given: str, names: Mapping[str, Any]) -> Form:
    """The form that ``--json`` names.

    Raises :class:`~qmt_jupyter.errors.OptionInvalid` where it is none.
    """
    text = given.strip()
    if text.startswith("{"):
        return _of_schema("answer", _read(text, "What is given to --json"))
    if text in names:
        return _of_value(text, names[text])
    path = user_path(text)
    if path.suffix.lower() == ".json":
        return _of_schema(_name(path.stem), _read(_file_text(path), str(path)))
    raise OptionInvalid(
        f"--json: there is no variable {printable(text, 60)!r}.",
        next_step="Give a variable with a JSON schema or a pydantic model, a .json file, or the "
        "schema itself in single quotes.",
    )


def _of_value(name: str, value: Any) -> Form:
    if hasattr(value, "model_json_schema"):
        model: Any = value if isinstance(value, type) else type(value)
        try:
            schema = model.model_json_schema()
        except Exception as error:
            raise OptionInvalid(
                f"--json: {name} has no JSON schema ({type(error).__name__}).",
                next_step="Use fields that JSON can hold.",
            ) from None
        _require_schema(schema, name)
        return Form(_name(model.__name__), schema, lambda _, text: model.model_validate_json(text))
    if isinstance(value, dict):
        return _of_schema(_name(name), value)
    raise OptionInvalid(
        f"--json: {name} is no JSON schema but a {printable(type(value).__name__, 40)}.",
        next_step="A schema is a dict, or a pydantic model.",
    )


def _read(text: str, source: str) -> Any:
    try:
        return _parsed(text)
    except ValueError as error:
        raise OptionInvalid(
            f"--json: {printable(source, 120)} is no JSON ({printable(str(error), 100)}).",
            next_step="Put a schema in the line into single quotes.",
        ) from None


def _file_text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise OptionInvalid(f"--json: {path} is too large for a schema.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise OptionInvalid(f"--json: {path} cannot be read ({reason}).") from None


def _of_schema(name: str, schema: Any) -> Form:
    plain = _require_schema(schema, name)
    try:
        from jsonschema import exceptions, validators
    except ImportError:
        return Form(name, plain, lambda value, _: value, is_checked=False)
    # Without a word of its own in the schema the newest draft it knows is meant.
    try:
        kind = validators.validator_for(plain, default=validators.validator_for({}))
        kind.check_schema(plain)
    except (TypeError, RecursionError):  # what is no name of a draft; a depth near Python's limit
        raise OptionInvalid(f"--json: {name} is no JSON schema that can be followed.") from None
    except exceptions.SchemaError as error:
        raise OptionInvalid(
            f"--json: {name} is no JSON schema: {printable(error.message, 160)}."
        ) from None

    def check(value: Any, _: str) -> Any:
        try:
            wrong = exceptions.best_match(kind(plain).iter_errors(value))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        except Exception as error:
            # A reference that leads nowhere, which is followed only where an answer needs it. The
            # answer came all the same, and its text is to be kept.
            said = f"{type(error).__name__}: {error}".lstrip("_")
            raise ValueError(f"the schema itself cannot be followed ({said})") from None
        if wrong is not None:
            raise ValueError(f"{wrong.json_path}: {wrong.message}")
        return value

    return Form(name, plain, check)


def _require_schema(schema: Any, name: str) -> dict[str, Any]:
    """A copy of a schema that is plain JSON and refers to nothing outside of itself."""
    if not isinstance(schema, dict):
        raise OptionInvalid(f"--json: {name} is no JSON schema, which is an object.")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise OptionInvalid(f"--json: {name} holds what is no JSON.") from None
    try:
        outside = _outside(plain)
    except RecursionError:
        raise OptionInvalid(f"--json: {name} is nested too deeply.") from None
    if outside is not None:
        raise OptionInvalid(
            f"--json: {name} refers to {printable(outside, 80)!r}, which is outside of it.",
            next_step="Put what it refers to into its $defs.",
        )
    return plain


def _outside(schema: Any) -> str | None:
    """A reference that leads out of the schema; nothing is fetched for one."""
    if isinstance(schema, list):
        return next(filter(None, map(_outside, schema)), None)
    if not isinstance(schema, dict):
        return None
    for key, value in schema.items():
        if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
            if not value.startswith("#"):
                return value
        elif (found := _outside(value)) is not None:
            return found
    return None


def _name(text: str) -> str:
    """What OpenAI takes as a schema's name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:64] or "answer"


# How it is shown ---------------------------------------------------------------------------------


class JsonGrowing(Growing):
    """A growing output whose text is shown as one block of JSON, indented at the end."""

    def show(self, text: str, footer: str) -> None:
        """Draw what is new: a block that is not closed yet, since only its end may change."""
        super().show(f"{_OPEN}{text}" if text else "", footer)

    def finish(self, text: str, footer: str, metadata: dict[str, Any]) -> None:
        """Draw for the last time, indented where it is JSON."""
        self._rendering = None  # it knows another text
        super().finish(_block(_indented(text)), footer, metadata)


def _indented(text: str) -> str:
    try:
        return json.dumps(_parsed(_inner(text)), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _block(text: str) -> str:
    if not text:
        return ""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}json\n{text}\n{fence}"
