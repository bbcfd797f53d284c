from __future__ import annotations

import os
from pathlib import Path

import pytest

from qmt_jupyter.errors import (
    DownloadFailed,
    EngineMissing,
    ModelFileInvalid,
    ModelFileMissing,
)
from qmt_jupyter.providers.model_files import locate_model

from .conftest import Web, model_head
from .test_model_files import MODEL, Stopper

COMMIT = "a" * 40


def offer(web: Web, name: str, body: bytes) -> None:
    headers = {
        "ETag": f'"{abs(hash((name, body))):040x}"',
        "X-Repo-Commit": COMMIT,
        "Accept-Ranges": "bytes",
    }
    for revision in ("main", COMMIT):
        web.files[f"/owner/Tiny-GGUF/resolve/{revision}/{name}"] = (body, headers, 200)


@pytest.fixture
def hub(web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Web:
    """A hub that has one repository, as the hub's client meets it."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    offer(web, "Tiny.gguf", MODEL)
    return web


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def test_a_file_of_a_hub_is_fetched_once(hub, models):
    seen: list[tuple[int, int]] = []
    file = locate_model(
        "hf:owner/Tiny-GGUF/Tiny.gguf", models, lambda done, total: seen.append((done, total))
    )
    assert file.public_name == "Tiny"
    assert file.path == models / "hf" / "owner" / "Tiny-GGUF" / "Tiny.gguf"
    assert file.path.read_bytes() == MODEL
    assert all(total == len(MODEL) for _, total in seen)
    asked = len(hub.asked)
    assert asked > 0
    assert locate_model("hf:owner/Tiny-GGUF/Tiny.gguf", models) == file
    assert len(hub.asked) == asked


def test_a_file_in_a_folder_and_all_its_parts_are_fetched(hub, models):
    for number in (1, 2):
        offer(hub, f"Q4/Big-0000{number}-of-00002.gguf", model_head(block_count=number))
    file = locate_model("hf:owner/Tiny-GGUF/Q4/Big-00001-of-00002.gguf", models)
    assert file.public_name == "Big"
    assert {path.name for path in file.path.parent.glob("*.gguf")} == {
        "Big-00001-of-00002.gguf",
        "Big-00002-of-00002.gguf",
    }


def test_a_file_that_is_no_gguf_is_refused(hub, models):
    offer(hub, "Bad.gguf", b"<html>an error page</html>")
    with pytest.raises(ModelFileInvalid):
        locate_model("hf:owner/Tiny-GGUF/Bad.gguf", models)


def test_a_file_that_the_hub_lacks_is_missing(hub, models):
    hub.files["/owner/Tiny-GGUF/resolve/main/No.gguf"] = (
        b"",
        {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT},
        404,
    )
    with pytest.raises(ModelFileMissing, match=r"no file No\.gguf in owner/Tiny-GGUF"):
        locate_model("hf:owner/Tiny-GGUF/No.gguf", models)


def test_a_repository_that_the_hub_lacks_is_missing(hub, models):
    refusal = (b"", {"X-Error-Code": "RepoNotFound"}, 404)
    hub.files["/owner/None/resolve/main/No.gguf"] = refusal
    with pytest.raises(ModelFileMissing, match="owner/None"):
        locate_model("hf:owner/None/No.gguf", models)


def test_a_model_behind_terms_says_what_to_do(hub, models):
    refusal = (b"", {"X-Error-Code": "GatedRepo"}, 403)
    hub.files["/owner/Gated/resolve/main/X.gguf"] = refusal
    with pytest.raises(DownloadFailed, match="HF_TOKEN"):
        locate_model("hf:owner/Gated/X.gguf", models)


def test_a_hub_out_of_reach_is_said_so(hub, models, monkeypatch):
    # The client says the same as for a closed port, which it tries for 20 seconds.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadFailed, match="could not be reached"):
        locate_model("hf:owner/Tiny-GGUF/Tiny.gguf", models)


def test_without_the_hub_client_the_way_to_it_is_said(hub, models, monkeypatch, tmp_path):
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineMissing, match=r"qmt-jupyter\[host\]"):
        locate_model("hf:owner/Tiny-GGUF/Tiny.gguf", models)


def test_a_stopped_download_leaves_no_model(hub, models):
    hub.slow.set()
    stopper = Stopper("hf:owner/Tiny-GGUF/Tiny.gguf", models)
    stopper.start()
    hub.wait_for("Tiny.gguf")
    assert isinstance(stopper.end(), DownloadFailed)
    assert not list(models.rglob("*.gguf"))
    hub.slow.clear()
    assert locate_model("hf:owner/Tiny-GGUF/Tiny.gguf", models).path.read_bytes() == MODEL


@pytest.mark.parametrize(
    "name",
    [
        "hf:",
        "hf:owner/name",
        "hf:owner/name/file.bin",
        "hf:/name/file.gguf",
        "hf:owner/../../file.gguf",
        "hf:owner/name/../../x.gguf",
        "hf:owner/name//x.gguf\n",
        "hf:-o/name/file.gguf",
        "hf:owner/name/-x.gguf",
    ],
)
def test_a_name_of_another_shape_is_refused_before_any_packet(hub, models, name):
    with pytest.raises(ModelFileMissing):
        locate_model(name, models)
    assert hub.asked == []
    assert not models.exists()
