"""What the engine does to the process around it: its output, its signals, its exit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .conftest import REPOSITORY

BEGIN = """
import asyncio, json, sys, threading, time
from pathlib import Path
from qmt_jupyter.errors import QmtError
from qmt_jupyter.providers.llamacpp import LlamaCpp
from qmt_jupyter.providers.model_files import ModelFile

MODEL = ModelFile(Path(sys.argv[1]), "smollm2")

def ask(content, **parameters):
    return {"messages": [{"role": "user", "content": content}], **parameters}

async def whole(provider, request):
    return [chunk async for chunk in provider.chat("smollm2", request)]
"""


def python(script: str, model, **options):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + script, str(model.path)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=100,
        **options,
    )


def test_nothing_is_printed_by_the_engine_whatever_happens(smollm2, write_model):
    done = python(
        f"""
async def main():
    provider = await LlamaCpp.load(MODEL, slots=1, context=512)
    await whole(provider, ask("Hi", max_tokens=5))
    form = {{"type": "json_schema", "json_schema": {{"name": "x", "schema": {{"type": "object"}}}}}}
    await whole(provider, ask("Hi", max_tokens=5, response_format=form))
    stream = provider.chat("smollm2", ask("Count", max_tokens=400))
    await anext(stream)
    await stream.aclose()
    pattern = {{"type": "json_schema", "json_schema": {{"name": "x", "schema": {{
        "type": "string", "pattern": "(secret"}}}}}}
    for request in (
        {{"messages": []}},
        ask("secret " * 2000),
        ask("secret", temperature="hot"),
        ask("secret", response_format={{"type": "poem"}}),
        ask("secret", response_format=pattern),
        ask("secret", response_format={{"type": "json_schema", "json_schema": {{"schema": {{
            "type": "array", "items": {{"$ref": "#/$defs/a"}}, "maxItems": 900,
            "$defs": {{"a": {{"$ref": "#/$defs/a"}}}}}}}}}}),
        ask("secret", tools=[{{"secret": 1}}]),
        ask([{{"type": "image_url", "image_url": {{"url": "data:image/png;base64,AA"}}}}]),
    ):
        try:
            await whole(provider, request)
        except QmtError:
            continue
        raise AssertionError(request)
    running = asyncio.create_task(whole(provider, ask("Count", max_tokens=400)))
    await asyncio.sleep(0.3)
    await provider.aclose()
    try:
        await running
    except QmtError:
        pass
    try:
        await LlamaCpp.load(ModelFile(Path({str(write_model())!r}), "x"))
    except QmtError:
        pass

asyncio.run(main())
""",
        smollm2,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="no kill(2)")
def test_an_interrupt_still_reaches_python(smollm2):
    done = python(
        """
import os, signal

async def main():
    provider = await LlamaCpp.load(MODEL, slots=1, context=512)
    stream = provider.chat("smollm2", ask("Count", max_tokens=400))
    await anext(stream)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        async for _ in stream:
            pass
    finally:
        await provider.aclose()

try:
    asyncio.run(main())
except (KeyboardInterrupt, asyncio.CancelledError) as error:
    print(type(error).__name__)
""",
        smollm2,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "KeyboardInterrupt\n", "")


@pytest.mark.parametrize("running", [True, False])
def test_the_interpreter_ends_though_nobody_closed_the_engine(smollm2, running):
    # As in a kernel: the loop has a thread of its own, and the main thread just ends.
    done = python(
        f"""
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()

async def begin():
    provider = await LlamaCpp.load(MODEL, slots=1, context=8192)
    if {running}:
        stream = provider.chat("smollm2", ask("Count to a million", max_tokens=8000))
        await anext(stream)
        return provider, stream
    return provider

kept = asyncio.run_coroutine_threadsafe(begin(), loop).result()
began = time.monotonic()
import atexit
atexit.register(lambda: print("quick" if time.monotonic() - began < 20 else "slow"))
""",
        smollm2,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "quick\n", "")


def test_a_model_that_is_let_go_of_at_once_lets_go(smollm2):
    done = python(
        """
async def main():
    for _ in range(20):
        await (await LlamaCpp.load(MODEL, slots=1, context=256)).aclose()
    print("closed")

asyncio.run(main())
""",
        smollm2,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")


def test_the_module_is_cheap_to_import():
    script = "import sys, qmt_jupyter.providers.llamacpp; print('xllamacpp' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, timeout=60
    )
    assert done.stdout == "False\n", done.stderr
