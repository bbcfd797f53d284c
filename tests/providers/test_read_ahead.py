"""A model's files are read before the engine holds everything up with them."""

from __future__ import annotations

import threading

import anyio
import pytest

from qmt_jupyter.providers import read_ahead as module
from qmt_jupyter.providers.llamacpp import LlamaCpp
from qmt_jupyter.providers.model_files import ModelFile
from qmt_jupyter.providers.read_ahead import read_ahead

pytestmark = pytest.mark.anyio


@pytest.fixture
def parts(tmp_path):
    """A model in two parts of three and a half blocks, and a file beside it that is none of it."""
    paths = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for path in (*paths, tmp_path / "m-00003-of-00003.gguf"):
        path.write_bytes(bytes(3500))
    return ModelFile(paths[0], "m").parts


@pytest.fixture
def told(monkeypatch):
    """What is told from the first block on, and in which threads."""
    monkeypatch.setattr(module, "_BLOCK", 1000)
    monkeypatch.setattr(module, "_PATIENCE", -1.0)
    return []


async def test_all_parts_are_read_and_told_of_to_the_end(parts, told):
    threads = set()

    def progress(done, total):
        told.append((done, total))
        threads.add(threading.current_thread())

    await read_ahead(parts, progress)
    assert told == [(done, 7000) for done in (1000, 2000, 3000, 3500, 4500, 5500, 6500, 7000)]
    assert threading.main_thread() not in threads, "who shows it may take its time"


async def test_what_is_read_at_once_is_told_to_nobody(parts):
    told = []
    await read_ahead(parts, lambda *progress: told.append(progress))
    assert told == []


async def test_cancelling_ends_it_within_a_block(parts, told):
    async with anyio.create_task_group() as tasks:

        def progress(done, total):
            told.append(done)
            anyio.from_thread.run_sync(tasks.cancel_scope.cancel)

        await read_ahead(parts, progress)
    assert told == [1000]


async def test_a_file_that_cannot_be_read_is_left_to_the_engine(tmp_path, parts, told):
    await read_ahead([tmp_path / "gone.gguf"], lambda *progress: told.append(progress))
    await read_ahead([tmp_path], lambda *progress: told.append(progress))
    assert told == []


async def test_the_real_engine_loads_what_was_read(smollm2, told, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 16 << 20)
    size = smollm2.path.stat().st_size
    provider = await LlamaCpp.load(
        smollm2, slots=1, context=256, progress=lambda *progress: told.append(progress)
    )
    await provider.aclose()
    assert told[-1] == (size, size)
