"""Run All, as nbclient does it: it stops where a cell fails. tests/notebooks has the examples."""

from __future__ import annotations

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError


def run_all(*sources: str) -> tuple[nbformat.NotebookNode, CellExecutionError | None]:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    try:
        NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    except CellExecutionError as error:
        return notebook, error
    return notebook, None


def test_run_all_stops_at_a_cell_that_fails():
    notebook, error = run_all(
        "%load_ext qmt_jupyter", "%%chat\nIs anyone there", "print('never reached')"
    )
    assert error is not None
    assert error.ename == "NotJoined"
    assert notebook.cells[2].execution_count is None


def test_a_notebook_that_was_run_and_saved_holds_the_answer_and_no_token(tmp_path):
    link = tmp_path / "link"
    notebook, error = run_all(
        "%load_ext qmt_jupyter",
        f"%qmt_host --model echo --link-file {link}",
        "%%chat\nsay this again",
    )
    assert error is None
    saved = nbformat.writes(notebook)
    token = link.read_text().strip().rpartition("/")[2].partition("?")[0]
    assert token[:40] not in saved
    assert "qmt://" not in saved
    (answer,) = notebook.cells[2].outputs
    assert "say this again" in answer.data["text/plain"]
    assert answer.metadata["qmt"]["model"] == "echo"
