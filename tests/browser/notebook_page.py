"""A notebook in JupyterLab or in Notebook 7, used as a person does: keys, clicks, and looking."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from playwright.sync_api import JSHandle, Locator, Page, expect

from tests.browser.server import Document, JupyterServer

# JupyterLab shows several documents in one page, Notebook 7 one. A workspace of its own keeps
# JupyterLab from opening what another page has open.
APPS = {"lab": "/lab/workspaces/{name}/tree/{name}.ipynb", "notebook": "/notebooks/{name}.ipynb"}

_SHOWN = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook"
_READY = """async () => {
    const panel = jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.revealed;
    await panel.sessionContext.session?.kernel?.info;
}"""
_WATCH = """(cell, word) => {
    const noted = [0];
    new MutationObserver(() => {
        const text = cell.querySelector(".jp-Cell-outputArea").textContent;
        const count = text.split(word).length - 1;
        if (count !== noted.at(-1)) noted.push(count);
    }).observe(cell, { childList: true, subtree: true, characterData: true });
    return noted;
}"""
# The menu's "Save Widget State Automatically", which is switched over.
_SAVE_WIDGETS = """async (wanted) => {
    const command = "@jupyter-widgets/jupyterlab-manager:saveWidgetState";
    if (jupyterapp.commands.isToggled(command) !== wanted)
        await jupyterapp.commands.execute(command);
}"""
_SAVES_WIDGETS = """(wanted) => wanted ===
    jupyterapp.commands.isToggled("@jupyter-widgets/jupyterlab-manager:saveWidgetState")"""
_RAN = re.compile(r"^\[\d+\]:$")


class Counts:
    """How often a word was seen, one number for each change."""

    def __init__(self, page: Page, noted: JSHandle) -> None:
        self._page = page
        self._noted = noted

    def __call__(self) -> list[int]:
        return list(self._noted.json_value())

    def wait_for(self, changes: int) -> None:
        """Until it has changed so often."""
        self._page.wait_for_function("([noted, n]) => noted.length > n", arg=[self._noted, changes])


class NotebookPage:
    """One open notebook. Cells are counted from 0."""

    def __init__(self, page: Page, server: JupyterServer, document: Document, app: str) -> None:
        self.page = page
        self.document = document
        self.app = app
        self._server = server
        self._go()

    def _go(self) -> None:
        self.page.goto(self._server.address(APPS[self.app].format(name=self.document.name)))
        self.wait_until_ready()

    def show(self, document: Document) -> None:
        """Open another file in this page."""
        self.document = document
        if self.app == "lab":
            self.command("docmanager:open", path=document.path.name)
            self.wait_until_ready()
        else:
            self._go()

    def wait_until_ready(self) -> None:
        """Until the file is shown and its kernel answers."""
        self.page.wait_for_function("globalThis.jupyterapp?.shell?.currentWidget?.context")
        self.page.evaluate(_READY)
        expect(self.cell(0)).to_be_visible()

    def cell(self, number: int) -> Locator:
        return self.page.locator(f"{_SHOWN} .jp-Cell").nth(number)

    def output(self, number: int) -> Locator:
        """All that stands below a cell."""
        return self.cell(number).locator(".jp-Cell-outputArea")

    def answer(self, number: int) -> Locator:
        """What ``%%chat`` shows in a cell."""
        return self.cell(number).locator(".qmt-answer")

    def start(self, number: int) -> None:
        """Press Shift+Enter in a cell."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")

    def run(self, *numbers: int) -> None:
        """Run cells, one after the other, each to its end."""
        for number in numbers:
            self.start(number)
            self.wait_until_done(number)

    def wait_until_done(self, number: int) -> None:
        """Until a cell has ended. A model may take its time to be loaded."""
        prompt = self.cell(number).locator(".jp-InputPrompt")
        expect(prompt).to_have_text(_RAN, timeout=120_000)

    def is_running(self, number: int) -> bool:
        """Whether a cell that was started has not ended."""
        prompt = self.cell(number).locator(".jp-InputPrompt").inner_text()
        return _RAN.fullmatch(prompt.strip()) is None

    def type(self, number: int, text: str) -> None:
        """Replace what stands in a cell."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.insert_text(text)

    def reply(self, text: str) -> None:
        """Answer the question that a running cell asks."""
        box = self.page.locator(".jp-Stdin-input")
        box.fill(text)
        box.press("Enter")

    def server_log(self) -> str:
        """The end of what the server and the kernels have written."""
        return self._server.tail()

    def value(self, expression: str) -> str:
        """The repr of an expression in the kernel; the page shows nothing of it."""
        return self._server.value(self.document, expression)

    def watch(self, number: int, word: str) -> Counts:
        """From now on, note how often ``word`` stands below a cell whenever that changes."""
        return Counts(self.page, self.cell(number).evaluate_handle(_WATCH, word))

    def interrupt(self) -> None:
        """Press ■."""
        self.page.get_by_role("button", name="Interrupt the kernel").click()

    def restart(self) -> None:
        """Restart the kernel, and say yes."""
        self.page.get_by_role("button", name="Restart the kernel", exact=True).click()
        self.page.get_by_role("dialog").get_by_role("button", name="Confirm Kernel Restart").click()
        expect(self.page.get_by_role("dialog")).to_have_count(0)
        self.wait_until_ready()

    def reload(self) -> None:
        self.page.reload()
        self.wait_until_ready()

    def command(self, name: str, **arguments: Any) -> None:
        """Run one of the application's own commands."""
        self.page.evaluate("([name, args]) => jupyterapp.commands.execute(name, args)",
                           [name, arguments])  # fmt: skip

    def save(self, *, widgets: bool = False) -> str:
        """Save as Ctrl+S does, with or without the widgets' state; return what the file holds.

        A state that a file has once been saved with stays in it.
        """
        self.page.evaluate(_SAVE_WIDGETS, widgets)
        self.page.wait_for_function(_SAVES_WIDGETS, arg=widgets)
        self.command("docmanager:save")
        deadline = time.monotonic() + 30
        while True:
            text = self.document.path.read_text(encoding="utf-8")
            state = json.loads(text)["metadata"].get("widgets")
            if bool(state) == widgets or time.monotonic() > deadline:
                assert bool(state) == widgets, "the widgets' state was saved as asked"
                return text
            self.page.wait_for_timeout(100)
