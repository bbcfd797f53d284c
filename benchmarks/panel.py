"""What the host's panel costs its kernel while fifty guests chat, on this machine (Linux, macOS).

    python benchmarks/panel.py [--json] [--quick]

A real kernel hosts the echo provider, 10 tokens a second and guest, and shows its panel. Fifty
guests, all in one other process, each with an identity of its own, ask one question after the
other: 40 to 120 tokens, then up to a second of silence. This process is the front end. In turn it
watches the panel for some seconds, as a page does, and leaves it alone for as long.

Figures: ``updates_per_s`` and ``updates_most_in_1s``, views that the panel sent, by the kernel's
clock; ``bytes_per_s``, their content as JSON; ``view_bytes``, the median of one.
``panel_cpu_percent`` of a core is the processor time of the panels' thread, of what it asks the
runtime's thread for, and what the thread that publishes takes more than it does unwatched.
``cpu_difference_percent`` is a check on it: the median of what the whole kernel took more in a
watched period than in the next one, with all the noise of serving, which takes
``serving_cpu_percent``. ``tokens_per_s`` is what the guests got meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import queue
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.figures import show
from harness.processes import Other, next_order, say

os.environ["QMT_INTERFACES"] = "127.0.0.1"

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient

GUESTS = 50
SETUP = """
import json, threading, time
from IPython.display import display
import qmt_jupyter as qmt
from qmt_jupyter import runtime
from qmt_jupyter.notebook.panels.feed import FEED
from qmt_jupyter.notebook.panels.host import HostPanel
from qmt_jupyter.providers.echo import Echo

host = qmt.host(Echo(slots=GUESTS, delay=0.1, repeat=True), name="benchmark", uses=0)
panel = HostPanel(host)
looking, read = 0.0, runtime.read

def timed_read(look):
    def timed():
        global looking
        began = time.thread_time()
        try:
            return look()
        finally:
            looking += time.thread_time() - began
    return read(timed)

def spent(thread):
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))

def measured():
    feeding = FEED._thread
    return json.dumps({
        "at": time.monotonic(),
        "process": time.process_time(),
        "feed": 0.0 if feeding is None else spent(feeding),
        "looks": looking,
        "publish": spent(get_ipython().kernel.iopub_thread.thread),
        "tokens": sum(i["completion_tokens"] for i in host.usage()["invites"]),
    })

runtime.read = timed_read
open(LINK, "w").write(host.invite.url)
display(panel)
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="two pairs of periods, a first look")
    parser.add_argument("--guests", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# The guests' process ----------------------------------------------------------------------------


async def chat_on(url: str, home: Path, name: str) -> None:
    from qmt_jupyter import aio

    os.environ["QMT_HOME"] = str(home)  # another home is another guest
    async with await aio.join(url, name=name) as mesh:
        say(joined=name)
        while True:
            await mesh.chat(f"{name} asks", max_tokens=random.randint(40, 120)).read()
            await asyncio.sleep(random.random())


async def guests_main() -> None:
    random.seed(1)
    order = await next_order()
    assert order is not None
    homes = Path(os.environ["QMT_HOME"])
    chatting = []
    for number in range(GUESTS):
        name = f"guest {number}"
        chatting.append(asyncio.ensure_future(chat_on(order["join"], homes / str(number), name)))
        await asyncio.sleep(0.05)  # each takes its home from the environment before the next one
    while await next_order():
        pass
    for task in chatting:
        task.cancel()
    failed = await asyncio.gather(*chatting, return_exceptions=True)
    wrong = [each for each in failed if not isinstance(each, asyncio.CancelledError)]
    say(wrong=[repr(each) for each in wrong])


# The front end ----------------------------------------------------------------------------------


@dataclass
class Period:
    """So many seconds, watched or not, as the kernel counted them and the front end heard them."""

    before: dict[str, float]
    after: dict[str, float]
    sent_at: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def share(self, name: str) -> float:
        """Processor time of one part in percent of a core."""
        return 100 * (self.after[name] - self.before[name]) / self.seconds

    @property
    def seconds(self) -> float:
        return self.after["at"] - self.before["at"]


class FrontEnd:
    """Runs code in the kernel and watches the panel."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client
        self._panel = ""

    def run(self, code: str) -> None:
        """Run a cell; remember which widget it shows."""

        def published(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "error":
                raise SystemExit("\n".join(content["traceback"]))
            view = content.get("data", {}).get("application/vnd.jupyter.widget-view+json")
            self._panel = view["model_id"] if view else self._panel

        self._client.execute_interactive(code, output_hook=published, timeout=120)

    def measured(self) -> dict[str, float]:
        """What the kernel has spent so far."""
        identity = self._client.execute("", silent=True, user_expressions={"it": "measured()"})
        while True:
            reply = self._client.get_shell_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == identity:
                told = reply["content"]["user_expressions"]["it"]["data"]["text/plain"]
                return dict(json.loads(told.strip("'")))

    def period(self, seconds: float, watching: bool) -> Period:
        """Watch the panel for so long, or leave it alone."""
        if watching:
            self._say({"ask": "watch", "id": 1, "fresh": True})
            time.sleep(1)  # until its thread runs
        else:
            self.run("FEED.forget(panel); _ = FEED._thread and FEED._thread.join()")
        self._heard(0.0)
        period = Period(self.measured(), {})
        for view in self._heard(seconds):
            period.sent_at.append(view["data"]["content"]["now"])
            period.sizes.append(len(json.dumps(view, ensure_ascii=False).encode()))
        period.after = self.measured()
        return period

    def _say(self, content: dict[str, Any]) -> None:
        data = {"comm_id": self._panel, "data": {"method": "custom", "content": content}}
        self._client.shell_channel.send(self._client.session.msg("comm_msg", data))

    def _heard(self, seconds: float) -> list[dict[str, Any]]:
        """The views that come within so many seconds, and have come before."""
        until = time.monotonic() + seconds
        views = []
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return views
            if message["msg_type"] == "comm_msg" and "view" in message["content"]["data"].get(
                "content", {}
            ):
                views.append(message["content"])


def most_in_a_second(times: list[float]) -> int:
    """Of so many moments, how many at most within one second."""
    return max((sum(start <= at < start + 1 for at in times) for start in times), default=0)


def panel_figures(watched: list[Period], alone: list[Period]) -> dict[str, float]:
    seconds = sum(each.seconds for each in watched)
    publishing = statistics.median(each.share("publish") for each in alone)
    return {
        "updates_per_s": sum(len(each.sent_at) for each in watched) / seconds,
        "updates_most_in_1s": max(most_in_a_second(each.sent_at) for each in watched),
        "panel_cpu_percent": statistics.median(
            each.share("feed") + each.share("looks") + each.share("publish") - publishing
            for each in watched
        ),
        "cpu_difference_percent": statistics.median(
            one.share("process") - other.share("process")
            for one, other in zip(watched, alone, strict=True)
        ),
        "serving_cpu_percent": statistics.median(each.share("process") for each in alone),
        "bytes_per_s": sum(sum(each.sizes) for each in watched) / seconds,
        "view_bytes": statistics.median(size for each in watched for size in each.sizes),
        "tokens_per_s": statistics.median(each.share("tokens") / 100 for each in watched),
    }


def measure(quick: bool) -> dict[str, float]:
    from jupyter_client.manager import KernelManager

    pairs, seconds = (2, 4.0) if quick else (10, 5.0)
    with tempfile.TemporaryDirectory(prefix="qmt-panel-") as place:
        link = Path(place) / "link"
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(env={**os.environ, "QMT_HOME": f"{place}/host"})
        client = manager.client()
        guests = Other("--guests", {"QMT_HOME": f"{place}/guests"})
        try:
            client.start_channels()
            client.wait_for_ready(timeout=60)
            front = FrontEnd(client)
            front.run(f"GUESTS, LINK = {GUESTS}, {str(link)!r}{SETUP}")
            guests.tell(join=link.read_text())
            for _ in range(GUESTS):
                asyncio.run(guests.hear())
            watched, alone = [], []
            front.period(seconds, watching=True)  # imports, first rows
            for _ in range(pairs):
                watched.append(front.period(seconds, watching=True))
                alone.append(front.period(seconds, watching=False))
            guests.tell()
            if wrong := asyncio.run(guests.hear())["wrong"]:
                raise SystemExit(f"guests failed: {wrong[:3]}")
        finally:
            guests.close()
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
    return panel_figures(watched, alone)


BUDGETS = {
    "updates_per_s": ("≤", 4.0),
    "updates_most_in_1s": ("≤", 4.0),
    "panel_cpu_percent": ("≤", 3.0),
}


def main() -> None:
    arguments = parse()
    if arguments.guests:
        asyncio.run(guests_main())
        return
    show(measure(arguments.quick), BUDGETS, arguments.json)


if __name__ == "__main__":
    main()
