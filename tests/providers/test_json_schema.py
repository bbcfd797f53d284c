from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_jupyter.errors import RequestInvalid
from qmt_jupyter.providers.json_schema import check_schema

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 100},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a\n", "b"]}, "minItems": 0, "maxItems": 5},
        # Properties may be called what keywords are called.
        "pattern": {"type": "string"},
        "minItems": {"type": "boolean"},
        "more": {"anyOf": [{"$ref": "#/$defs/more"}, {"type": "null"}]},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"more": {"type": "number", "exclusiveMinimum": -1.5, "maximum": 1}},
}


def nested(levels: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def test_what_people_write_passes():
    check_schema("response_format", {"type": "json_schema", "json_schema": {"schema": PERSON}})
    check_schema("response_format", None)
    check_schema("tools", [{"type": "function", "function": {"name": "f", "parameters": PERSON}}])
    check_schema("tools", nested(20))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"minItems": 5, "maxItems": 2}, "minItems is greater than maxItems"),
        ({"minLength": 5, "maxLength": 2}, "minLength is greater"),
        ({"minimum": 5, "maximum": 2}, "minimum is greater"),
        ({"exclusiveMinimum": 5, "maximum": 2}, "exclusiveMinimum is greater"),
        ({"minItems": -1}, "between 0 and 1000"),
        ({"maxLength": 10**9}, "between 0 and 1000"),
        ({"maximum": 10**30}, "too large"),
        ({"minimum": float("nan")}, "too large"),
        ({"type": "string", "pattern": "^*$"}, "regular expressions"),
        ({"properties": {"\x1b[31m": {}}}, "control characters"),
        ({"enum": ["\x9b"]}, "control characters"),
        ({"properties": {f"p{n}": {} for n in range(200)}}, "64 properties"),
        ({"enum": list(range(501))}, "list of more than 500"),
        ({"anyOf": [{"enum": list(range(400))}] * 6}, "more than 2000 parts"),
        (nested(40), "levels deep"),
        ({5: {}}, "not text"),
    ],
)
def test_what_the_engine_chokes_on_is_refused(schema, said):
    wrapped = {"json_schema": {"schema": {"items": schema}}}
    with pytest.raises(RequestInvalid, match=said):
        check_schema("response_format", wrapped)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["minItems", "maxItems", "pattern", "x"]), inner)
    ),
)


@given(JSON)
def test_any_json_is_taken_or_refused(value):
    try:
        check_schema("tools", value)
    except RequestInvalid as error:
        assert str(error).startswith("tools")
