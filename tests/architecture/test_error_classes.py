"""Every error class can be told from the others, is explained, and is met by a test."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from qmt_jupyter import errors
from qmt_jupyter.errors import QmtError

TESTS = Path(__file__).resolve().parents[1]


def all_classes() -> list[type[QmtError]]:
    found = [value for value in vars(errors).values() if inspect.isclass(value)]
    return [cls for cls in found if issubclass(cls, QmtError)]


def families() -> list[type[QmtError]]:
    """The roots that group the others; what is raised is below them."""
    return [QmtError, *QmtError.__subclasses__()]


def names_used(sources: Iterable[str]) -> set[str]:
    """Names that the code of the sources mentions; comments and strings do not count."""
    used: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, ast.Attribute):
                used.add(node.attr)
    return used


@pytest.mark.parametrize("cls", all_classes(), ids=lambda cls: cls.__name__)
def test_an_error_class_explains_itself(cls):
    assert "code" in vars(cls), "a class of its own has a code of its own"
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cls.code)
    assert vars(cls).get("__doc__"), "the docstring says when it is raised"
    assert re.search(rf"\b{cls.__name__}\b", errors.__doc__ or ""), "the tree at the top lacks it"


def test_no_two_error_classes_share_a_code():
    codes = [cls.code for cls in all_classes()]
    assert len(codes) > 30
    assert sorted(codes) == sorted(set(codes))


def test_every_error_class_is_met_by_a_test():
    sources = (
        path.read_text(encoding="utf-8")
        for path in TESTS.rglob("*.py")
        if path.parent != Path(__file__).parent
    )
    used = names_used(sources)
    missing = [cls.__name__ for cls in all_classes() if cls.__name__ not in used]
    assert sorted(set(missing) - {cls.__name__ for cls in families()}) == []


def test_a_name_in_a_comment_or_a_string_does_not_count_as_met():
    assert names_used(["# Busy\nx = 'Busy'"]) == {"x"}
    assert names_used(["raises(errors.Busy)"]) == {"raises", "errors", "Busy"}
