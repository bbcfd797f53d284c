"""A notebook of this repository in a kernel of its own, run as nbclient and papermill run it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.conftest import MODELS

REPOSITORY = Path(__file__).parents[2]


class Book:
    """One notebook with a running kernel; its outputs gather as its cells are run."""

    def __init__(self, client: NotebookClient) -> None:
        self.client = client
        self.cells = list(client.nb.cells)

    def outputs(self) -> list[nbformat.NotebookNode]:
        """The outputs of all cells, in order."""
        return [output for cell in self.cells for output in outputs(cell)]

    def tagged(self, tag: str) -> int:
        """Where the one cell with this tag stands."""
        (index,) = (i for i, c in enumerate(self.cells) if tag in c.metadata.get("tags", ()))
        return index

    def run_all(self) -> None:
        """Every cell from top to bottom. Raises CellExecutionError where one fails."""
        for index in range(len(self.cells)):
            self.run(index)

    def run(self, index: int) -> str:
        """One cell; returns the text it printed."""
        cell = self.client.execute_cell(self.cells[index], index)
        return printed(cell)

    def saved(self) -> str:
        """The file as a run by nbclient saves it, with the state of its widgets."""
        self.client.set_widgets_metadata()
        nbformat.validate(self.client.nb)
        return nbformat.writes(self.client.nb)


@contextmanager
def opened(path: Path, folder: Path, **environment: str) -> Iterator[Book]:
    """The notebook in a fresh kernel that works in ``folder``, with its own ``QMT_HOME`` there.

    ``environment`` adds to that. The kernel ends with the block.
    """
    folder.mkdir(exist_ok=True)
    client = NotebookClient(
        nbformat.read(path, as_version=4),
        timeout=100,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    ours = {
        "QMT_HOME": str(folder / "home"),
        "QMT_MODELS": str(MODELS),
        "QMT_INTERFACES": "127.0.0.1",
        # Where other work keeps the cores busy, waiting threads that spin cost tenfold.
        "OMP_WAIT_POLICY": "passive",
    }
    with client.setup_kernel(env={**os.environ, **ours, **environment}):
        yield Book(client)


def outputs(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """A cell's outputs; a Markdown cell has none."""
    return list(cell.get("outputs", ()))


def printed(cell: nbformat.NotebookNode) -> str:
    """What a cell wrote to its standard output."""
    return "".join(
        output.text
        for output in outputs(cell)
        if output.output_type == "stream" and output.name == "stdout"
    )
