"""Notebooks in a real browser: one Jupyter server and one Chromium for all tests of this folder.

Both start with the first test that asks for them and end after the folder's last one, because
Playwright's synchronous interface keeps this thread's event loop occupied while it is there. The
tests are left out, with a reason, where Playwright, JupyterLab, Notebook or Chromium is missing.

A test fails, too, when a page logs an error or asks anybody but this machine for anything. What a
test photographs goes to ``$QMT_TEST_SCREENSHOTS``, and so do the trace, the pictures and the
server's log of a test that fails; without it, to a folder among pytest's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NEEDED = ("playwright", "jupyterlab", "notebook")


class Desk:
    """A server, a browser, and the window (browsing context) that most tests share."""

    def __init__(self, root: Path) -> None:
        from tests.browser.chromium import chromium
        from tests.browser.server import JupyterServer

        self.windows = []
        with contextlib.ExitStack() as stack:
            self.server = JupyterServer(root / "jupyter")
            stack.callback(self.server.stop)
            self.browser = stack.enter_context(chromium())
            self.window = self.open_window()
            self._closing = stack.pop_all()

    def open_window(self, **options):
        """A window with a theme, size or clock of its own."""
        from tests.browser.chromium import Window

        self.windows.append(Window(self.browser, **options))
        return self.windows[-1]

    def close_window(self, window) -> None:
        self.windows.remove(window)
        window.context.close()

    def open(self, document, app="lab", window=None):
        """A notebook in a page of its own."""
        from tests.browser.notebook_page import NotebookPage

        page = (window or self.window).context.new_page()
        return NotebookPage(page, self.server, document, app)

    def put_away(self, opened) -> None:
        """Close a page and end its kernel."""
        opened.page.close()
        self.server.end_kernels(opened.document)

    def close(self) -> None:
        self._closing.close()


class _Lent:
    """The desk while tests of this folder run, and the folder for pictures."""

    desk: Desk | None = None
    pictures: Path | None = None


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    try:
        return (yield)
    finally:
        if _Lent.desk is not None and (nextitem is None or HERE not in nextitem.path.parents):
            desk, _Lent.desk = _Lent.desk, None
            desk.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and _Lent.desk is not None and _Lent.pictures is not None:
        for number, window in enumerate(_Lent.desk.windows):
            window.keep(_Lent.pictures / f"failed-{item.name}-{call.when}-{number}")
        report.sections.append(("The end of Jupyter's log", _Lent.desk.server.tail()))
    return report


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory):
    """The folder for pictures."""
    chosen = os.environ.get("QMT_TEST_SCREENSHOTS")
    folder = Path(chosen).absolute() if chosen else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def _take_desk(tmp_path_factory, screenshots):
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    from tests.browser.chromium import installed

    if installed() is None:
        pytest.skip("there is no Chromium on this machine (on Debian: apt install chromium)")

    def take() -> Desk:
        if _Lent.desk is None:
            _Lent.pictures = screenshots
            _Lent.desk = Desk(tmp_path_factory.mktemp("desk"))
        return _Lent.desk

    return take


@pytest.fixture(scope="module")
def desk(_take_desk):
    """The server and the browser."""
    return _take_desk()


@pytest.fixture(scope="module")
def lasting(desk):
    """Opens notebooks that all tests of a module share."""
    yield from _opening(desk)


@pytest.fixture
def opened(desk):
    """Opens notebooks for one test: their cells, and in which application and window."""
    yield from _opening(desk)


def _opening(desk):
    pages = []

    def open_notebook(name, *cells, app="lab", window=None):
        document = desk.server.write(name, *cells)
        pages.append(desk.open(document, app, window))
        return pages[-1]

    yield open_notebook
    for each in pages:
        desk.put_away(each)


@pytest.fixture
def window(desk):
    """Opens windows for one test, each with a theme, size or clock of its own."""
    opened = []

    def open_window(**options):
        opened.append(desk.open_window(**options))
        return opened[-1]

    yield open_window
    for each in opened:
        desk.close_window(each)


@pytest.fixture(autouse=True)
def nothing_is_amiss(desk):
    """Holds for every test here: no error in a console, and nobody beyond this machine is asked."""
    yield
    heard = [line for window in desk.windows for line in window.complaints]
    asked = [line for window in desk.windows for line in window.foreign]
    for window in desk.windows:
        window.end()
        window.begin()
    assert (heard, asked) == ([], [])
