"""One real JupyterHub for a module: each module that wants one says what it is, in ``HUB``.

``HUB`` is a dict of :class:`tests.hub.hub.Hub`'s arguments, or a function that makes one and gets
the module's folder.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub.hub import Hub, missing

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture(scope="session")
def hub_is_possible():
    if why := missing():
        pytest.skip(why)


@pytest.fixture(scope="module")
def hub(request, hub_is_possible, tmp_path_factory):
    """The module's Hub, which runs; nothing of it is left after the module."""
    root = tmp_path_factory.mktemp("hub")
    wanted = request.module.HUB
    with Hub(root, **(wanted(root) if callable(wanted) else wanted)) as started:
        yield started
    assert started.left_behind == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    started = item.funcargs.get("hub") if hasattr(item, "funcargs") else None
    if report.failed and isinstance(started, Hub):
        report.sections.append(("The end of the Hub's log", started.log[-4000:]))
        for name in started.services:
            report.sections.append((f"The end of {name}'s log", started.service_log(name)[-4000:]))
    return report
