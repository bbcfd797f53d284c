"""``qmt demo``: a host and a guest in two processes of this machine, everything real.

The guest has an empty home of its own and nothing but the link. All traffic stays on loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import api
from .errors import ProviderError, QmtError
from .harmless import plain
from .identity import qr
from .settings import Settings, write_private
from .tables import usage_table
from .terminal import progress_bar

PROMPT = "Explain in two or three sentences why the sky is blue."
_PARENT_ONLY = ("QMT_INVITE",)


def run(model: str, show: Callable[..., None] | None) -> dict[str, Any]:
    """Run it and return the figures; ``show`` is :func:`print`, or None to say nothing.

    Raises the :class:`~qmt_jupyter.errors.QmtError` that a child met.
    """
    say = show or (lambda *_, **__: None)
    settings = Settings.from_environment()
    api.fetch_model(model, progress_bar("Getting the model"))
    with tempfile.TemporaryDirectory(prefix="qmt-demo-") as directory:
        host = _start(
            Path(directory) / "host", settings, "host", "--model", model, "--name", "Demo"
        )
        try:
            ready = _event(host, "ready")
            say(f"A host shares {', '.join(ready['models'])} on {ready['device']}.\n")
            say(f"{qr.terminal(ready['invite'])}\n\n{ready['invite']}\n")
            say(f"A guest with nothing but this link asks:\n> {PROMPT}\n")
            link_file = Path(directory) / "link"
            write_private(link_file, ready["invite"].encode())
            done: dict[str, Any] = {}
            guest = _start(
                Path(directory) / "guest", settings, "chat", "--file", str(link_file),
                "--max-tokens", "160", "--temperature", "0.2", "--seed", "7", PROMPT,
            )  # fmt: skip
            try:
                for event in _events(guest):
                    if event["event"] == "delta":
                        say(plain(event["text"]), end="", flush=True)
                    elif event["event"] == "done":
                        done = event
            finally:
                _end(guest, finishing=bool(done))
            if not done:
                raise ProviderError("The guest got no whole answer.")
            say(f"\n\n{_summary(done)}\n")
            host.send_signal(signal.SIGINT)
            usage = _event(host, "stopped")["usage"]
            say(usage_table(usage))
            _end(host, finishing=True)
        finally:
            _end(host)
    figures = {key: value for key, value in done.items() if key != "event"}
    return {**figures, "host_usage": usage}


def _summary(done: dict[str, Any]) -> str:
    tokens = done["usage"]["completion_tokens"]
    first = (done["time_to_first_token_s"] or 0) * 1000
    rate = f", then {done['tokens_per_s']} tokens/s" if done["tokens_per_s"] else ""
    return f"{done['model']}: {tokens} tokens, the first after {first:.0f} ms{rate}"


def _start(home: Path, settings: Settings, *words: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key not in _PARENT_ONLY}
    environment |= {
        "QMT_HOME": str(home),
        "QMT_MODELS": str(settings.models_dir),
        "QMT_INTERFACES": "127.0.0.1",
        "PYTHONIOENCODING": "utf-8",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "qmt_jupyter.cli", *words[:1], "--json", *words[1:]],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
    )


def _events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "error":
            raise QmtError(event["sentence"], next_step=event["next_step"])
        yield event


def _event(process: subprocess.Popen[str], wanted: str) -> dict[str, Any]:
    for event in _events(process):
        if event["event"] == wanted:
            return event
    raise QmtError(f"The demo's process ended with status {process.wait()} before it was {wanted}.")


def _end(process: subprocess.Popen[str], *, finishing: bool = False) -> None:
    """Wait for a child that is ``finishing``; end one that is not, or does not."""
    patience = 10.0
    if not finishing and process.poll() is None:
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=patience)
    if process.poll() is None:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
