"""What every source file looks like: short, named for what it does, finished."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 400  # lines; beyond, a module usually answers two questions
EMPTY_NAMES = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
TEXT = {".py", ".js", ".css", ".md", ".toml"}


def too_long(name: str, source: str) -> Iterator[str]:
    lines = source.count("\n")
    if lines > LONGEST:
        yield f"{name} has {lines} lines"


def named_for_nothing(name: str, source: str) -> Iterator[str]:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(source))
    defined = [node.name for node in nodes if isinstance(node, kinds)]
    for each in [*name.removesuffix(".py").split("/"), *defined]:
        words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", each)}
        if words & EMPTY_NAMES:
            yield f"{name}: {each} does not say what it is"


def unfinished(name: str, source: str) -> Iterator[str]:
    for number, line in enumerate(source.splitlines(), 1):
        if UNFINISHED.search(line):
            yield f"{name}:{number}: {line.strip()}"


def sources(*folders: str, kinds: set[str]) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in kinds and path.is_file():
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_a_module_answers_one_question():
    modules = list(sources("qmt_jupyter", "benchmarks", kinds={".py"}))
    assert modules
    assert [complaint for module in modules for complaint in too_long(*module)] == []


def test_names_say_what_things_are():
    modules = sources("qmt_jupyter", "benchmarks", "tests", kinds={".py"})
    assert [complaint for module in modules for complaint in named_for_nothing(*module)] == []


def test_nothing_is_left_for_later():
    files = sources("qmt_jupyter", "benchmarks", "tests", "docs", kinds=TEXT)
    assert [complaint for file in files for complaint in unfinished(*file)] == []


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (too_long, "wire/frames.py", "\n" * (LONGEST + 1)),
        (named_for_nothing, "mesh/utils.py", ""),
        (named_for_nothing, "mesh/lan.py", "class ConnectionManager: pass"),
        (named_for_nothing, "mesh/lan.py", "def parse_helper(): pass"),
        (unfinished, "mesh/lan.py", "x = 1  # TO" + "DO: the rest"),
    ],
)
def test_a_rule_catches_what_it_forbids(rule, name, source):
    assert list(rule(name, source)) != []
