"""While a cell waits it shows what there is, and an interrupt ends the wait in one sentence."""

from __future__ import annotations

import json
import time

import filelock

from tests.notebook.conftest import errors

# A provider that says two words, then nothing until a file appears.
PAUSING = """
import asyncio, pathlib
import qmt_jupyter as qmt
from qmt_jupyter.notebook.state import STATE
from qmt_jupyter.providers.base import Model, Provider

class Pausing(Provider):
    models, slots, device = (Model("pausing"),), 1, "paper"
    async def chat(self, model, request):
        def piece(text):
            return {{"choices": [{{"index": 0, "delta": {{"content": text}}, "finish_reason": None}}]}}
        yield piece("first ")
        yield piece("second ")
        while not pathlib.Path({go!r}).exists():
            await asyncio.sleep(0.02)
        yield piece("third")
        yield {{"choices": [{{"index": 0, "delta": {{}}, "finish_reason": "stop"}}]}}
        yield {{"choices": [], "usage": {{"completion_tokens": 3}}}}

h = STATE.started = qmt.host(Pausing())
"""


def interrupted(kernel, cell, when=lambda message: True):
    """Interrupt the running cell at the first message that fits; returns its error."""
    done = False
    failed = []
    for message in kernel.messages(cell):
        if not done and when(message):
            done = True
            kernel.manager.interrupt_kernel()
        failed += errors([message])
    return failed[0]


def test_what_came_before_a_pause_is_drawn_without_anything_following(kernel, tmp_path):
    go = tmp_path / "go"
    both = kernel("both")
    both.text(PAUSING.format(go=str(go)))
    shown = []
    for message in both.messages(both.start("%%chat\nhello")):
        if "data" in message["content"] and "display" in message["msg_type"]:
            shown.append(message["content"]["data"]["text/plain"])
            if shown[-1] == "first second ":
                go.touch()
    assert "first second " in shown
    assert shown[-1].startswith("first second third\n\npausing on ")


def test_an_interrupted_join_is_one_sentence_and_leaves_nothing(kernel, tmp_path):
    guest, host = kernel("guest"), kernel("host")
    link = tmp_path / "link"
    host.text(f"%qmt_host --model echo --link-file {link}")
    host.text("%qmt_host --stop")
    cell = guest.start(f"print('looking')\n%qmt_join --file {link} --timeout 60")
    failed = interrupted(guest, cell, lambda message: message["msg_type"] == "stream")
    assert failed["ename"] == "Interrupted"
    assert len(failed["traceback"]) == 1
    assert "%qmt_join was interrupted" in failed["evalue"]
    assert "Neither hosting nor joined" in guest.text("%qmt_status")


def test_an_interrupted_host_frees_its_identity(kernel):
    host = kernel("host")
    host.text(
        "from qmt_jupyter.host import presence\n"
        "import asyncio\n"
        "async def never(*_, **__):\n"
        "    await asyncio.sleep(600)\n"
        "presence.Endpoint.bind = never"
    )
    cell = host.start("print('starting')\n%qmt_host --model echo")
    deadline = time.monotonic() + 30

    def locked(_message):
        free = filelock.FileLock(str(host.home / "host" / "lock"), timeout=0)
        while time.monotonic() < deadline:
            if (host.home / "host").exists():
                try:
                    free.acquire()
                except filelock.Timeout:
                    return True
                free.release()
            time.sleep(0.05)
        return False

    assert interrupted(host, cell, locked)["ename"] == "Interrupted"
    with filelock.FileLock(str(host.home / "host" / "lock"), timeout=5):
        pass


def test_the_link_is_asked_for_through_the_front_end_and_seen_nowhere(kernel, tmp_path):
    host, guest = kernel("host"), kernel("guest")
    link = tmp_path / "link"
    host.text(f"%qmt_host --model echo --link-file {link}")
    cell = guest.client.execute("%qmt_join", allow_stdin=True)
    asked = guest.client.get_stdin_msg(timeout=30)["content"]
    assert asked["password"] is True
    guest.client.input(link.read_text())
    published = list(guest.messages(cell))
    assert not errors(published)
    assert "qmt://" not in json.dumps(published, default=str)

    cell = guest.client.execute("%qmt_join", allow_stdin=True)
    guest.client.get_stdin_msg(timeout=30)
    guest.manager.interrupt_kernel()
    failed = errors(list(guest.messages(cell)))[0]
    assert failed["ename"] == "Interrupted"
    assert len(failed["traceback"]) == 1
    assert "Joined" not in json.dumps(failed)
    assert "direct" in guest.text("%qmt_status"), "the mesh joined before is still there"


def test_a_chat_waits_for_a_host_that_is_away_and_says_so(kernel, tmp_path):
    guest, host = kernel("guest"), kernel("host")
    link = tmp_path / "link"
    host.text(f"%qmt_host --model echo --link-file {link}")
    assert "Joined" in guest.text(f"%qmt_join --file {link}")
    host.text("%qmt_host --stop")
    shown, told = [], False
    for message in guest.messages(guest.start("%%chat\nhello there")):
        if "data" in message["content"] and "display" in message["msg_type"]:
            shown.append(message["content"]["data"]["text/plain"])
            if not told and "the host is away; waiting up to 60 s" in shown[-1]:
                told = True
                host.text("%qmt_host --model echo")
    assert told
    assert shown[-1].startswith("hello there\n\necho on ")
