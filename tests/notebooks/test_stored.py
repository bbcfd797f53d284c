"""What the repository's notebooks hold as they are stored: cells, and nothing that a run left."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from tests.notebooks.book import REPOSITORY

EXAMPLES = sorted(REPOSITORY.glob("notebooks/*.ipynb"))
STORED = [*EXAMPLES, *sorted(REPOSITORY.glob("binder/*.ipynb"))]
EVERY = pytest.mark.parametrize(
    "path", STORED, ids=[f"{path.parent.name}-{path.stem}" for path in STORED]
)


def code(path: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def test_the_notebooks_that_the_readme_promises_are_there():
    assert [path.stem for path in EXAMPLES] == [
        "guest", "host", "structured_output_and_tools", "usage_analysis",
    ]  # fmt: skip
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert all(f"(notebooks/{path.name})" in readme for path in EXAMPLES)


@EVERY
def test_a_stored_notebook_is_valid_and_has_not_been_run(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert all(not cell.outputs and cell.execution_count is None for cell in code(path))
    # No widget state, no one front end's settings.
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)


@EVERY
def test_a_stored_notebook_is_written_as_nbformat_writes_it(path):
    notebook = nbformat.read(path, as_version=4)
    assert path.read_text(encoding="utf-8") == nbformat.writes(notebook) + "\n"


@EVERY
def test_a_stored_notebook_holds_no_link_and_no_machine(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"qmt://mesh/join/[\w-]", text)
    assert not re.search(r"12D3KooW\w{8}", text)
    assert not re.search(r"/(home|root|Users|tmp)/", text)


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example_says_first_what_to_install_and_installs_nothing_unasked(path):
    first = code(path)[0].source.splitlines()
    assert all(line.startswith("#") for line in first)
    assert any(line.startswith("# %pip install -q ") and "qmt-jupyter" in line for line in first)


@EVERY
def test_a_magic_is_loaded_before_it_is_used(path):
    lines = [line for cell in code(path) for line in cell.source.splitlines()]
    magics = [i for i, line in enumerate(lines) if re.match(r"%qmt_|%%?chat\b", line)]
    if magics:
        assert lines.index("%load_ext qmt_jupyter") < magics[0]
