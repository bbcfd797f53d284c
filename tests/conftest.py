"""Every test has an empty home of its own, and its network ends at loopback.

Run by root on Linux, each process that runs tests gets a network of its own that has nothing but
loopback, so that what a library sends of itself (a question to the router) goes nowhere either, not
even to the tests beside it. What has to be fetched is fetched before; ``QMT_TEST_NETWORK=host``
leaves the machine's network in place.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import socket
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmt_jupyter import runtime
from qmt_jupyter.providers.model_files import locate_model

MODELS = Path(os.environ.get("QMT_TEST_MODELS") or Path(__file__).parents[1] / ".cache" / "models")

# The engine's threads wait for each other by spinning, which halves an answer's time on a quiet
# machine and makes it ten times as long on one whose cores are busy: a test may run on either.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# What is drawn is the same in every run, and how long it takes is the machine's affair.
settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
settings.load_profile("suite")

# How long after its time limit a test may still be running. The limit is a signal, and Python hears
# none while it waits in a library for good.
_STUCK = 60

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1


def pytest_sessionstart(session):
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        session.stash[_terminal] = os.dup(2)
    if session.config.option.collectonly or not sys.platform.startswith("linux"):
        return
    locate_model("smollm2", MODELS)
    if session.config.getoption("dist", "no") != "no":
        return  # tests run in pytest-xdist's workers, each of which comes here as well
    if os.geteuid() != 0 or os.environ.get("QMT_TEST_NETWORK") == "host":
        return
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loopback:
            request = struct.pack("16sh22x", b"lo", _IFF_UP)
            fcntl.ioctl(loopback, _SIOCSIFFLAGS, request)


_terminal = pytest.StashKey[int]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """End the process, and print where each thread stands, where a time limit cannot end its test."""
    marker = item.get_closest_marker("timeout")
    given = item.config.getoption("timeout")
    limit = float(item.config.getini("timeout") if given is None else given)
    limit = marker.args[0] if marker else limit
    if not limit:
        return (yield)  # somebody wants to take a long look
    faulthandler.dump_traceback_later(limit + _STUCK, exit=True, file=item.session.stash[_terminal])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_enter_pdb():
    faulthandler.cancel_dump_traceback_later()


@given(st.none())
@settings(max_examples=1)
def _first_draw(_):
    pass


def pytest_sessionfinish(session):
    os.close(session.stash[_terminal])


def pytest_collection_finish():
    # Half a million objects that stay until the end; looking through them for garbage, as some
    # tests do at their own end, takes 0.3 s each time.
    # At its first draw hypothesis 6.100 looks for who refers to its generator of random numbers,
    # and does not see what is frozen.
    _first_draw()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty ``QMT_HOME``."""
    directory = tmp_path / "home"
    monkeypatch.setenv("QMT_HOME", str(directory))
    monkeypatch.setenv("QMT_INTERFACES", "127.0.0.1")
    for variable in (
        "QMT_INVITE",
        "QMT_BOOTSTRAP",
        "QMT_DHT",
        "QMT_HUB_URL",
        "JUPYTERHUB_API_TOKEN",
    ):
        monkeypatch.delenv(variable, raising=False)
    return directory


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True, scope="session")
def history(tmp_path_factory):
    """Kernels remember what they ran, in one file; no two processes' kernels wait for the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        yield


@pytest.fixture(autouse=True, scope="session")
def no_node_is_left():
    yield
    runtime.shutdown()
