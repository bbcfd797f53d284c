"""JSON answers: what may be given as a schema, and which answers keep to it."""

from __future__ import annotations

import html
import json
import re
import sys

import pytest

from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.host.allowlist import checked
from qmt_jupyter.notebook.structured import AnswerInvalid, JsonGrowing, form

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


def person_form():
    return form("person", {"person": PERSON})


def test_a_schema_is_a_variable_a_file_or_json(tmp_path):
    path = tmp_path / "Per son.json"
    path.write_text(json.dumps(PERSON), encoding="utf-8")
    for given in ("person", str(path), json.dumps(PERSON)):
        made = form(given, {"person": PERSON})
        asked = made.response_format
        assert asked["json_schema"]["schema"] == PERSON
        message = {"role": "user", "content": "x"}
        assert checked({"messages": [message], "response_format": asked}), "a host takes it"
    assert form(str(path), {}).name == "Per_son"


@pytest.mark.parametrize(
    "given",
    [
        "", "nope", "text", "number", "nowhere.json", "{", "{'type': 'object'}", '{"a": NaN}',
        '{"type": "no-such-type"}', '{"$ref": "http://192.0.2.1/x"}', "sets",
        '{"items": [{"$ref": "other.json"}]}',
    ],
)  # fmt: skip
def test_what_is_no_schema_is_an_error(given):
    with pytest.raises(OptionInvalid):
        form(given, {"text": "{}", "number": 3, "sets": {"enum": {1}}})


@pytest.mark.parametrize("depth", [100, 300, 1_000, 100_000])
def test_a_deep_schema_is_one_sentence_or_is_taken(depth):
    schema = {}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    try:
        assert form("s", {"s": schema}).read("{}", "stop") == {}
    except OptionInvalid as error:
        assert "--json" in str(error)


def test_a_draft_that_has_no_name_is_no_schema():
    with pytest.raises(OptionInvalid):
        form("s", {"s": {"$schema": ["x"], "type": "object"}})


def test_a_reference_that_leads_nowhere_leaves_the_answers_text():
    made = form("s", {"s": {"properties": {"a": {"$ref": "#/nowhere"}}}})
    assert made.read('{"b": 1}', "stop") == {"b": 1}
    with pytest.raises(AnswerInvalid, match="the schema itself cannot be followed") as caught:
        made.read('{"a": 1}', "stop")
    assert caught.value.text == '{"a": 1}'


def test_a_reference_within_the_schema_is_followed():
    schema = {"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}, "type": "array"}
    made = form("s", {"s": schema})
    assert made.read("[1, 2]", "stop") == [1, 2]
    with pytest.raises(AnswerInvalid, match="not of type 'integer'"):
        made.read('["x"]', "stop")


def test_an_answer_that_keeps_to_the_schema_becomes_its_value():
    value = {"name": "Ada", "age": 36}
    assert person_form().read(json.dumps(value), "stop") == value
    assert person_form().read(f"```json\n{json.dumps(value)}\n```\n", "stop") == value


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ('{"name": "Ada", "ag', "length", "cut off before its JSON ended"),
        ('{"name": "Ada", "ag', "budget", "cut off before its JSON ended"),
        ('{"name": "Ada", "ag', "day", "cut off before its JSON ended"),
        ("", "stop", "no JSON"),
        ("Sure! Here is the JSON:", "stop", "no JSON"),
        ('{"name": "Ada", "age": NaN}', "stop", "no JSON"),
        ('{"name": "Ada"}', "stop", "does not keep to the schema: .*'age' is a required"),
        ('{"name": "Ada", "age": "36"}', "stop", "age: '36' is not of type 'integer'"),
        ("[" * 100_000, "stop", "no JSON"),
        ('{"name": "stopped', None, "cut off before its JSON ended"),
    ],
)
def test_any_other_answer_is_an_error_that_holds_its_text(text, reason, said):
    with pytest.raises(AnswerInvalid, match=said) as caught:
        person_form().read(text, reason)
    assert caught.value.text == text
    assert caught.value.next_step


@pytest.mark.parametrize("text", ["```" + "\n" * 50_000 + "x", "```json\n" + " \n" * 50_000])
def test_an_answer_of_empty_lines_holds_nothing_up(text):
    """A regular expression took the third power of their number, and held every thread."""
    with pytest.raises(AnswerInvalid):
        person_form().read(text, "stop")


def test_what_a_model_puts_into_an_error_is_bounded_and_printable():
    with pytest.raises(AnswerInvalid) as caught:
        person_form().read(json.dumps({"name": "\x1b[2J" * 500, "age": "\x1b"}), "stop")
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_without_jsonschema_the_answer_is_still_json_and_that_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    made = person_form()
    assert not made.is_checked
    assert made.read('{"other": 1}', "stop") == {"other": 1}
    with pytest.raises(AnswerInvalid):
        made.read("no", "stop")


def test_a_pydantic_model_checks_the_answer_and_makes_an_instance():
    pydantic = pytest.importorskip("pydantic")

    class Person(pydantic.BaseModel):
        name: str
        age: int

    for given in (Person, Person(name="x", age=1)):
        made = form("p", {"p": given})
        assert made.name == "Person"
        assert made.read('{"name": "Ada", "age": 36}', "stop") == Person(name="Ada", age=36)
        with pytest.raises(AnswerInvalid, match=r"age: Field required"):
            made.read('{"name": "Ada"}', "stop")
        with pytest.raises(AnswerInvalid, match="cut off"):
            made.read('{"name": "Ada"', "length")


def test_json_is_shown_as_one_block_and_indented_when_it_is_whole(monkeypatch):
    drawn = []

    class Handle:
        def update(self, data, **_):
            drawn.append(data)

    def display(data, **_):
        drawn.append(data)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    growing = JsonGrowing()
    whole = '{"a": "```", "b": [1, 2]}'
    for end in range(1, len(whole) + 1):
        growing._wait = 0
        growing.show(whole[:end], "")
    texts = [re.sub("<[^>]*>", "", data["text/html"].partition("</style>")[2]) for data in drawn]
    shown = [html.unescape(text).partition("\n")[0] for text in texts]
    assert shown == [whole[:end] for end in range(1, len(whole) + 1)]
    assert all(data["text/html"].count("<pre") == 1 for data in drawn)

    growing.finish(whole, "", {})
    assert drawn[-1]["text/html"].count("<pre") == 1
    assert drawn[-1]["text/markdown"].splitlines() == [
        "````", "{", '  "a": "```",', '  "b": [', "    1,", "    2", "  ]", "}", "````",
    ]  # fmt: skip
    growing.finish('{"a": ', "", {})
    assert '{"a": ' in drawn[-1]["text/markdown"], "what is no JSON is shown as it is"
