"""The strip above an answer: it says how far it is, its *Stop* works while the cell runs."""

from __future__ import annotations

import re
import time

import pytest

from qmt_jupyter.notebook.display import Growing
from qmt_jupyter.notebook.footer import Clock
from qmt_jupyter.notebook.strip import Strip
from tests.notebook.conftest import errors

ENDLESS = """
import qmt_jupyter as qmt
from qmt_jupyter.providers.echo import Echo
from qmt_jupyter.notebook.state import STATE
h = STATE.started = qmt.host(Echo(delay={delay}, repeat=True, slots={slots}))
"""


class FrontEnd:
    """A kernel as JupyterLab uses it: what its widgets send goes to a subshell."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.client = kernel.client
        features = self.client.kernel_info(reply=True, timeout=30)["content"].get(
            "supported_features", []
        )
        if "kernel subshells" not in features:
            pytest.skip("this kernel has no subshells")
        self.subshell = self._made()

    def _made(self):
        request = self.client.session.msg("create_subshell_request", {})
        self.client.control_channel.send(request)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            reply = self.client.control_channel.get_msg(timeout=30)
            if reply["parent_header"].get("msg_id") == request["header"]["msg_id"]:
                return reply["content"]["subshell_id"]
        raise TimeoutError("no subshell was made")

    def ask(self, comm, what):
        content = {"comm_id": comm, "data": {"method": "custom", "content": {"ask": what}}}
        message = self.client.session.msg("comm_msg", content)
        message["header"]["subshell_id"] = self.subshell
        self.client.shell_channel.send(message)

    def run(self, code, press=None, others=()):
        """Run a cell as somebody who watches; press *Stop* at the first strip for which ``press``.

        Returns what was published, what the strip said, and its comm.
        """
        cell = self.client.execute(code, allow_stdin=True)
        for each in others:
            self.client.execute(each, allow_stdin=True)
        comm, said, published, pressed = None, [], [], False
        for message in self.kernel.messages(cell):
            published.append(message)
            content = message["content"]
            if message["msg_type"] == "comm_open" and "Strip" in str(content["data"]):
                comm = content["comm_id"]
                self.ask(comm, "watch")
            elif message["msg_type"] == "comm_msg" and content["comm_id"] == comm:
                said.append(content["data"]["content"])
                if press is not None and not pressed and press(said[-1]):
                    pressed = True
                    self.ask(comm, "stop")
            elif comm is not None and not said and "display" in message["msg_type"]:
                # As strip.js does: the first one may have come before anybody listened.
                self.ask(comm, "watch")
        return published, said, comm


@pytest.fixture
def front_end(kernel):
    return FrontEnd(kernel("both"))


def tokens_in(message):
    said = re.search(r"about (\d+) tokens", message["figures"])
    return int(said[1]) if said else 0


def shown(published):
    kinds = ("display_data", "update_display_data")
    return [m["content"] for m in published if m["msg_type"] in kinds]


def test_stop_ends_the_answer_while_the_cell_runs_and_the_next_cells_run(front_end):
    kernel = front_end.kernel
    kernel.text(ENDLESS.format(delay=0.02, slots=4))
    published, said, comm = front_end.run(
        "%%chat --max-tokens 5000 --save kept\nfor ever",
        press=lambda message: tokens_in(message) >= 3,
        others=["print('the next cell', len(kept))"],
    )
    assert not errors(published)
    last = shown(published)[-1]["data"]["text/plain"]
    assert last.startswith("for ever")
    assert last.endswith("· stopped")
    assert said[-1]["phase"] == "answering"
    # The host hears of it a moment later.
    kept = kernel.text(
        "import time\n"
        "for _ in range(400):\n"
        "    if not h.status()['busy']: break\n"
        "    time.sleep(0.05)\n"
        "print(len(kept), STATE.conversation[-1]['content'] == kept,"
        " h.status()['busy'], h._service.providers[0].cancelled)"
    ).split()
    assert int(kept[0]) >= len("for ever")
    assert kept[1:] == ["True", "0", "1"]
    everything = repr(kernel.published)
    assert "the next cell" in everything, "Run All goes on"
    closed = [m for m in kernel.published if m["msg_type"] == "comm_close"]
    assert [m["content"]["comm_id"] for m in closed] == [comm]


def test_nothing_of_a_strip_is_kept(front_end):
    front_end.kernel.text(ENDLESS.format(delay=0.02, slots=4))
    published, said, _ = front_end.run("%%chat --max-tokens 250\nmany words")
    assert said
    kept = {}
    for each in shown(published):
        kept[each["transient"]["display_id"]] = each["data"]
    strip, answer = kept.values()
    assert strip == {"text/plain": ""}
    assert set(answer) == {"text/plain", "text/markdown", "text/html"}
    assert "many words" in answer["text/markdown"]


def test_stopping_what_has_not_begun_fails_the_cell(front_end):
    kernel = front_end.kernel
    kernel.text(ENDLESS.format(delay=0.02, slots=1))
    kernel.text("first = h.chat('for ever', max_tokens=100_000)\nnext(iter(first))")
    published, said, _ = front_end.run(
        "%%chat\nme too", press=lambda message: "before you" in message["phase"]
    )
    (failed,) = errors(published)
    assert failed["ename"] == "Interrupted"
    assert "before its first word" in failed["evalue"]
    assert "waiting, " in said[-1]["phase"]
    assert kernel.text("first.stop(); print(len(STATE.conversation))").strip() == "0"


def test_interrupting_takes_the_strip_away_too(front_end):
    kernel = front_end.kernel
    kernel.text(ENDLESS.format(delay=0.02, slots=4))
    done = []

    def interrupt(message):
        if not done and "tokens" in message["figures"]:
            done.append(True)
            kernel.manager.interrupt_kernel()
        return False

    published, _, comm = front_end.run("%%chat --max-tokens 5000\nfor ever", press=interrupt)
    assert errors(published)[0]["ename"] == "Interrupted"
    assert shown(published)[-2]["data"] == {"text/plain": ""}
    assert [m["content"]["comm_id"] for m in published if m["msg_type"] == "comm_close"] == [comm]


def test_a_strip_that_outlives_its_kernels_sockets_ends_quietly(monkeypatch):
    def closed(_):
        raise OSError("the socket is closed")

    strip = Strip(lambda: None)
    monkeypatch.setattr(Strip, "close", closed)
    strip._close_quietly()


def test_a_strip_takes_no_state_from_a_front_end():
    strip = Strip(lambda: None)
    before = strip._esm
    strip.set_state({"_esm": "export default {}"})
    assert strip._esm == before
    strip.close()


def test_what_a_strip_hears_may_be_anything(front_end):
    front_end.kernel.text(
        "from qmt_jupyter.notebook.strip import Strip\n"
        "stops = []\n"
        "s = Strip(lambda: stops.append(1))\n"
        "for each in (None, 3, 'stop', [], {}, {'ask': ['stop']}, {'ask': None}):\n"
        "    s._heard(s, each, None)\n"
        "assert not stops and not s.is_watched\n"
        "for _ in range(3): s._heard(s, {'ask': 'stop'}, None)\n"
        "assert stops == [1]\n"
        "s.finish(); s.finish()"
    )


def test_where_nobody_could_press_there_is_no_strip(kernel):
    both = kernel("both")
    both.text(ENDLESS.format(delay=0, slots=4))
    published = both.run("%%chat --max-tokens 5\nhello there")
    assert not [m for m in published if m["msg_type"] == "comm_open"]
    assert len({each["transient"]["display_id"] for each in shown(published)}) == 1


class Shell:
    """What a shell says of its kernel; ``features`` None: nothing at all."""

    def __init__(self, allow_stdin, features):
        self.kernel = type("Kernel", (), {})()
        self.kernel._allow_stdin = allow_stdin
        if features is not None:
            self.kernel.kernel_info = {"supported_features": features}


@pytest.mark.parametrize(
    "shell",
    [None, object(), Shell(True, None), Shell(True, []), Shell(False, ["kernel subshells"])],
)
def test_old_kernels_terminals_and_runs_by_nobody_have_no_strip(shell):
    screen = Growing(shell)
    screen.begin(lambda: None, Clock())
    assert not screen.is_stopped
    screen.end()
