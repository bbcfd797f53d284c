"""Troubleshooting has every error that a user can meet, in the words that the program says."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from qmt_jupyter import errors
from qmt_jupyter.errors import QmtError
from tests.docs.pages import ROOT, text

PACKAGE = ROOT / "qmt_jupyter"
PAGE = text(ROOT / "docs" / "troubleshooting.md")
FAMILIES = {QmtError.__name__, *(each.__name__ for each in QmtError.__subclasses__())}
ANYTHING = ".+?"


def trees() -> dict[Path, ast.Module]:
    # The demo's own words are about its two processes; what happens in them has these classes.
    files = (path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "demo.py")
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}


TREES = trees()
FUNCTIONS = {
    node.name: node
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef)
}


def values(scope: ast.AST, name: str) -> Iterator[ast.expr]:
    """What a name may stand for."""
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            yield node.value


def texts(scope: ast.AST, name: str) -> list[str]:
    """The plain texts that a name is set to."""
    return [
        ast.literal_eval(each) for each in values(scope, name) if isinstance(each, ast.Constant)
    ]


def classes() -> dict[str, str]:
    """Every error class of the package, with its default next step."""
    found = {
        name: value.default_next_step
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, QmtError)
    }
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id in found for base in node.bases
            ):
                found.setdefault(node.name, next(iter(texts(node, "default_next_step")), ""))
    return found


CLASSES = classes()


def arguments(function: ast.AST, name: str) -> Iterator[ast.expr]:
    """What the callers of a function in its own module give for one of its parameters."""
    if not isinstance(function, ast.FunctionDef):
        return
    names = [each.arg for each in function.args.args]
    if name not in names:
        return
    for tree in TREES.values():
        if function not in tree.body:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == function.name:
                yield node.args[names.index(name)]


def patterns(node: ast.AST | None, scopes: tuple[ast.AST, ...]) -> list[str]:
    """Regular expressions for the texts that an expression can give."""
    if isinstance(node, ast.Constant):
        return [re.escape(str(node.value))]
    if isinstance(node, ast.JoinedStr):
        parts = [patterns(each, scopes)[0] if isinstance(each, ast.Constant) else ANYTHING
                 for each in node.values]  # fmt: skip
        return ["".join(parts)]
    if isinstance(node, ast.BinOp):
        return [
            left + right
            for left in patterns(node.left, scopes)
            for right in patterns(node.right, scopes)
        ]
    if isinstance(node, ast.IfExp):
        return patterns(node.body, scopes) + patterns(node.orelse, scopes)
    if isinstance(node, ast.Name):
        found = [value for scope in scopes for value in [*values(scope, node.id),
                 *arguments(scope, node.id)]]  # fmt: skip
        return [each for value in found for each in patterns(value, scopes)] or [ANYTHING]
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        made = FUNCTIONS.get(name)
        returned = [each.value for each in ast.walk(made or ast.Module([], []))
                    if isinstance(each, ast.Return)]  # fmt: skip
        return [each for value in returned for each in patterns(value, (made,))] or [ANYTHING]
    if isinstance(node, ast.Attribute) and node.attr == "default_next_step":
        return [re.escape(CLASSES.get(ast.unparse(node.value), ""))]
    return [ANYTHING]


def sentences() -> dict[str, list[str]]:
    """For each class the sentences that the code gives it, with their next steps."""
    found: dict[str, list[str]] = {name: [] for name in CLASSES}
    for tree in TREES.values():
        for function in [*ast.walk(tree)]:
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                if not isinstance(node, ast.Call) or not node.args:
                    continue
                name = ast.unparse(node.func).rpartition(".")[2]
                if name not in CLASSES:
                    continue
                scopes = (function, tree)
                step = next((each.value for each in node.keywords if each.arg == "next_step"), None)
                steps = patterns(step, scopes) if step else [re.escape(CLASSES[name])]
                for sentence in patterns(node.args[0], scopes):
                    found[name] += [f"{sentence} {each}".strip() for each in steps]
    return found


SENTENCES = sentences()


def entries() -> dict[str, str]:
    parts = re.split(r"^### (\w+)$", PAGE, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


ENTRIES = entries()


def quotes(entry: str) -> list[str]:
    return re.findall(r"^> (.*)$", entry, flags=re.M)


def wanted() -> Iterable[str]:
    raised = {name for name, said in SENTENCES.items() if said}
    return sorted((set(CLASSES) - FAMILIES) | raised)


def test_every_error_that_a_user_can_meet_has_its_entry_and_no_other():
    assert sorted(ENTRIES) == list(wanted())


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_an_entry_quotes_what_the_program_says(name):
    said, quoted = SENTENCES[name], quotes(ENTRIES[name])
    assert quoted or not said, "the entry quotes no sentence"
    unsaid = [
        quote
        for quote in quoted
        if not any(re.fullmatch(pattern, quote) for pattern in said if len(pattern) > 20)
    ]
    assert unsaid == []


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_an_entry_explains_and_says_what_to_do(name):
    explained = [
        line for line in ENTRIES[name].splitlines() if line.strip() and not line.startswith(">")
    ]
    assert len(" ".join(explained)) > 20


def test_a_sentence_that_nobody_says_would_be_noticed():
    assert not any(re.fullmatch(each, "The host is tired.") for each in SENTENCES["Busy"])
    assert any(
        re.fullmatch(each, "This invite expired 2 days ago. Ask the host for a fresh link.")
        for each in SENTENCES["InviteExpired"]
    )
