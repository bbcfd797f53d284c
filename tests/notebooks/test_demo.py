"""Binder's demo: goes from step to step, and its files are what repo2docker and JupyterLab take."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import MODELS
from tests.notebooks import demo

BINDER = demo.BINDER


def test_the_demo_goes_from_side_to_side_until_the_guest_is_shown_out(tmp_path, monkeypatch):
    monkeypatch.delenv("QMT_HOME")
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "QMT_MODELS": str(MODELS),
        "QMT_DHT": "off",
        "OMP_WAIT_POLICY": "passive",
        # Where it is known that no UDP gets out.
        "BINDER_LAUNCH_HOST": "https://mybinder.org/",
    }
    gone = asyncio.run(demo.go_through(environment))
    demo.check(gone, (tmp_path / ".qmt-demo" / "invite").read_text(encoding="utf-8").strip())


def test_each_step_is_on_one_side_and_its_number_stands_before_it():
    sides = {"host": demo.Side("host"), "guest": demo.Side("guest")}
    told = dict.fromkeys(sides, "")
    where = {}
    for name, side in sides.items():
        for cell in side.notebook.cells:
            if cell.cell_type == "markdown":
                told[name] += cell.source
                continue
            (step,) = (int(t[5:]) for t in cell.metadata.tags if t.startswith("step-"))
            assert chr(ord("①") + step - 1) in told[name]
            assert where.setdefault(step, name) == name
    assert [where[step] for step in sorted(where)] == [
        "host", "guest", "guest", "host", "guest", "host", "guest",
    ]  # fmt: skip


def test_the_workspace_shows_host_and_guest_side_by_side():
    workspace = json.loads((BINDER / "workspace.json").read_text(encoding="utf-8"))
    assert workspace["metadata"]["id"] == "demo"
    area = workspace["data"]["layout-restorer:data"]["main"]["dock"]
    assert (area["type"], area["orientation"]) == ("split-area", "horizontal")
    shown = [widget for each in area["children"] for widget in each["widgets"]]
    paths = [workspace["data"][widget]["data"]["path"] for widget in shown]
    assert paths == ["binder/host.ipynb", "binder/guest.ipynb"]
    assert all((BINDER.parent / path).is_file() for path in paths)


def test_start_keeps_everything_in_the_container_and_runs_what_it_is_given(tmp_path):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("QMT_")}
    ran = subprocess.run(
        [BINDER / "start", "env"],
        env=clean,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    set_there = dict(line.split("=", 1) for line in ran.stdout.splitlines() if "=" in line)
    assert set_there["QMT_INTERFACES"] == "127.0.0.1"
    assert set_there["QMT_DHT"] == "off"
    assert set_there["QMT_MODELS"] == str(BINDER.parent / ".cache" / "models")
    failed = subprocess.run([BINDER / "start", "sh", "-c", "exit 7"], env=clean, check=False)
    assert failed.returncode == 7


def test_scripts_can_be_run_and_packages_are_named_as_repo2docker_reads_them():
    for script in ("postBuild", "start"):
        assert os.access(BINDER / script, os.X_OK)
        assert (BINDER / script).read_text(encoding="utf-8").startswith("#!/bin/bash\n")
    assert re.fullmatch(r"python-3\.\d+\n", (BINDER / "runtime.txt").read_text(encoding="utf-8"))
    packages = (BINDER / "apt.txt").read_text(encoding="utf-8").splitlines()
    named = [line.partition("#")[0].strip() for line in packages]
    assert [name for name in named if name] == ["libgomp1"]
    assert all(re.fullmatch(r"[a-z0-9.+-]*", name) for name in named)


def test_repo2docker_builds_a_python_image_with_these_scripts():
    pytest.importorskip("repo2docker", reason="the group binder is not installed")
    planned = subprocess.run(
        [sys.executable, "-m", "repo2docker", "--no-build", "--debug", str(BINDER.parent)],
        capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    said = planned.stdout + planned.stderr
    for line in (
        "RUN ./binder/postBuild",
        'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"',
        'pip install --no-cache-dir -r "binder/requirements.txt"',
        "apt-get install --yes --no-install-recommends libgomp1",
    ):
        assert line in said
