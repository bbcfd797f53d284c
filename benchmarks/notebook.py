"""What showing an answer in a notebook costs the kernel, and how much it sends, on this machine.

    python benchmarks/notebook.py [--json] [--quick]

A real kernel hosts the echo provider and asks it with ``%%chat``; this process reads what the
kernel publishes, byte for byte, as a Jupyter server does. Three answers: ``prose`` (20,000 words in
one paragraph, one each 5 ms), ``markdown`` (1,000 lines with headings, lists, tables and code, a
word each 2 ms) and ``flood`` (the 20,000 words as fast as they come). Each is asked twice, without
a display and with one.

Figures of each: ``…_messages_per_s_max`` and ``…_bytes_per_s_max`` over the three seconds that a
server looks at; ``…_draw_share``, the part of a core that drawing takes; ``…_tokens_ratio``,
tokens/s with a display over without; ``…_tokens_per_s``; ``…_last_ms``, the last drawing. Tokens
are words.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field

from harness.figures import show
from jupyter_client.manager import KernelManager

WINDOW_S = 3.0  # ZMQChannelsWebsocketConnection.rate_limit_window
PATIENCE_S = 600

SETUP = """
%load_ext qmt_jupyter
import time
import qmt_jupyter as qmt
from qmt_jupyter.notebook import display
from qmt_jupyter.notebook.state import STATE
from qmt_jupyter.providers.echo import Echo

echo = Echo(repeat=True)
STATE.started = host = qmt.host(echo)
spent = {"show": 0.0, "finish": 0.0}

def timed(name):
    drawing = getattr(display.Growing, name)
    def measured(*arguments):
        began = time.thread_time()
        try:
            return drawing(*arguments)
        finally:
            spent[name] += time.thread_time() - began
    setattr(display.Growing, name, measured)

for name in spent:
    timed(name)
"""
UNSEEN = """
began = time.perf_counter()
pieces = sum(1 for _ in host.chat({prompt!r}, max_tokens={tokens}))
print(pieces, time.perf_counter() - began)
"""
SECTION = """## Section {n}

Some *soft* and **strong** words with `code`, a [link](https://example.org/{n}) and more of them.

1. first of the list, which has a sentence
2. second of the list

| name | value |
|------|-------|
| a    | {n}   |

```python
def function_{n}(argument: int = {n}) -> str:
    \"\"\"Say what it is.\"\"\"
    return f"{{argument}} and more" if argument > 1 else None  # a comment
```

"""


@dataclass(frozen=True)
class Case:
    """An answer: its text, its words (``tokens``) and the seconds before each."""

    prompt: str
    tokens: int
    delay: float


@dataclass
class Traffic:
    """What a server counts: messages and bytes over a window that slides."""

    recent: deque[tuple[float, int]] = field(default_factory=deque)
    size: int = 0
    messages_max: float = 0.0
    bytes_max: float = 0.0

    def add(self, size: int) -> None:
        now = time.monotonic()
        self.recent.append((now, size))
        self.size += size
        while self.recent[0][0] < now - WINDOW_S:
            self.size -= self.recent.popleft()[1]
        self.messages_max = max(self.messages_max, len(self.recent) / WINDOW_S)
        self.bytes_max = max(self.bytes_max, self.size / WINDOW_S)


class Kernel:
    def __init__(self, home: str) -> None:
        environment = {**os.environ, "QMT_HOME": home, "QMT_INTERFACES": "127.0.0.1"}
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env=environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str) -> tuple[str, Traffic]:
        """Run a cell; returns what it printed, and its traffic."""
        asked = self.client.execute(code, allow_stdin=False)
        socket, session = self.client.iopub_channel.socket, self.client.session
        traffic, printed = Traffic(), ""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if not socket.poll(1000):
                continue
            frames = socket.recv_multipart()
            _, parts = session.feed_identities(frames)
            message = session.deserialize(parts)
            if message["parent_header"].get("msg_id") != asked:
                continue
            traffic.add(sum(map(len, frames)))
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed += content["text"]
            elif kind == "error":
                raise SystemExit(f"a cell failed: {content['ename']}: {content['evalue']}")
            elif kind == "status" and content["execution_state"] == "idle":
                return printed, traffic
        raise SystemExit("a cell did not end")

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


def cases(quick: bool) -> dict[str, Case]:
    words, sections = (2_000, 10) if quick else (20_000, 63)
    prose = "the quick brown fox jumps over the lazy dog"
    text = "".join(SECTION.format(n=n) for n in range(sections))
    return {
        "prose": Case(prose, words, 0.005),
        "markdown": Case(text, len(text.split()), 0.002),
        "flood": Case(prose, words, 0.0),
    }


def measure(kernel: Kernel, case: Case) -> dict[str, float]:
    kernel.run(f"echo._delay = {case.delay}; spent.update(show=0.0, finish=0.0)")
    printed, _ = kernel.run(UNSEEN.format(prompt=case.prompt, tokens=case.tokens))
    pieces, seconds = printed.split()
    unseen = int(pieces) / float(seconds)
    began = time.perf_counter()
    _, traffic = kernel.run(f"%%chat --new --max-tokens {case.tokens}\n{case.prompt}")
    seconds = time.perf_counter() - began
    printed, _ = kernel.run("import json; print(json.dumps(spent))")
    spent = json.loads(printed)
    return {
        "messages_per_s_max": traffic.messages_max,
        "bytes_per_s_max": traffic.bytes_max,
        "draw_share": sum(spent.values()) / seconds,
        "tokens_ratio": int(pieces) / seconds / unseen,
        "tokens_per_s": int(pieces) / seconds,
        "last_ms": spent["finish"] * 1000,
    }


BUDGETS = {
    f"{name}_{figure}": budget
    for name in ("prose", "markdown", "flood")
    for figure, budget in (
        ("messages_per_s_max", ("≤", 1_000.0)),
        ("bytes_per_s_max", ("≤", 1_000_000.0)),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="a tenth of the length")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="qmt-notebook-") as home:
        kernel = Kernel(home)
        try:
            kernel.run(SETUP)
            for name, case in cases(arguments.quick).items():
                measured = measure(kernel, case)
                figures |= {f"{name}_{figure}": value for figure, value in measured.items()}
        finally:
            kernel.stop()
    show(figures, BUDGETS, arguments.json)


if __name__ == "__main__":
    main()
