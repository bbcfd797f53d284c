"""Every test has an empty home of its own, and its network ends at loopback."""

from __future__ import annotations

import pytest

from qmt_jupyter import runtime


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty ``QMT_HOME``."""
    directory = tmp_path / "home"
    monkeypatch.setenv("QMT_HOME", str(directory))
    monkeypatch.setenv("QMT_INTERFACES", "127.0.0.1")
    monkeypatch.delenv("QMT_INVITE", raising=False)
    return directory


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True, scope="session")
def no_node_is_left():
    yield
    runtime.shutdown()
