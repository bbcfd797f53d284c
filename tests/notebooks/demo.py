"""Binder's two-sided demo, gone through by its numbers: two notebooks, two kernels, one revocation.

Needs nothing but nbclient, so that the image's own environment can run it as a script:
``binder/start python tests/notebooks/demo.py`` goes through the demo under the present ``HOME`` and
leaves both notebooks in the present folder as a visitor would see them.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient

BINDER = Path(__file__).parents[2] / "binder"
SECONDS_A_CELL = 100


class Side:
    """One notebook of the two, and the kernel that it runs in."""

    def __init__(self, name: str) -> None:
        self.notebook = nbformat.read(BINDER / f"{name}.ipynb", as_version=4)
        self.client = NotebookClient(
            self.notebook,
            timeout=SECONDS_A_CELL,
            kernel_name="python3",
            resources={"metadata": {"path": str(BINDER)}},
        )

    def cells(self, step: int) -> list[int]:
        """Where the cells of a step stand; none where it is the other side's."""
        return [
            index
            for index, cell in enumerate(self.notebook.cells)
            if f"step-{step}" in cell.metadata.get("tags", ())
        ]

    async def run(self, step: int) -> None:
        """Run the cells of a step. Raises where one fails that is not tagged as one that may."""
        for index in self.cells(step):
            await self.client.async_execute_cell(self.notebook.cells[index], index)

    def text(self, step: int) -> str:
        """What the cells of a step have printed and shown so far, without their errors."""
        shown = []
        for index in self.cells(step):
            for output in self.notebook.cells[index].outputs:
                shown.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
        return "\n".join(shown)

    def errors(self, step: int) -> list[str]:
        """The sentences of the errors that the cells of a step ended with."""
        return [
            re.sub(r"\x1b\[[0-9;]*m", "", output.evalue)
            for index in self.cells(step)
            for output in self.notebook.cells[index].outputs
            if output.output_type == "error"
        ]


@dataclass(frozen=True)
class Gone:
    """The demo after its last step."""

    left: Side
    right: Side


async def go_through(environment: dict[str, str]) -> Gone:
    """Take every step, each on its side; the last but one while the answer before it is written."""
    left, right = Side("host"), Side("guest")
    async with AsyncExitStack() as kernels:
        for side in (left, right):
            await kernels.enter_async_context(side.client.async_setup_kernel(env=environment))
        for step in (1, 2, 3, 4):
            await left.run(step)
            await right.run(step)
        story = asyncio.ensure_future(right.run(5))
        deadline = time.monotonic() + SECONDS_A_CELL
        while len(right.text(5)) < 80 and not story.done() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        await left.run(6)
        await story
        await right.run(7)
        for side in (left, right):
            side.client.set_widgets_metadata()
    return Gone(left, right)


def check(demo: Gone, link: str) -> None:
    """Whether the demo shows what its text promises. Raises AssertionError."""
    left, right = demo.left, demo.right
    assert "smollm2" in left.text(1)
    assert right.text(2)
    assert all(len(answer) > 20 for answer in right.text(3).split("\n\n")[:1])
    assert "Grace" in left.text(4)
    assert left.text(6).strip() == "Grace is out."
    (ended,) = right.errors(5)
    assert "revoked" in ended
    assert len(right.text(5)) >= 80
    assert len(right.errors(7)) == 1
    token = link.rpartition("/")[2].partition("?")[0]
    for side in (left, right):
        saved = nbformat.writes(side.notebook)
        assert token[:40] not in saved
        assert "qmt://" not in saved


def main() -> None:
    demo = asyncio.run(go_through(dict(os.environ)))
    for side, name in ((demo.left, "host"), (demo.right, "guest")):
        nbformat.write(side.notebook, Path(f"{name}.ipynb"))
    check(demo, (Path.home() / ".qmt-demo" / "invite").read_text(encoding="utf-8").strip())
    print("The demo does what it says:", *demo.right.errors(5), *demo.right.errors(7), sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
