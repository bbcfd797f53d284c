"""The invite's card: the link reaches the front end that asks for it, and nothing else."""

from __future__ import annotations

import queue
import time


def test_the_card_hands_over_the_link_by_a_message_that_no_notebook_saves(kernel, tmp_path):
    host = kernel("host")
    link = tmp_path / "link"
    published = host.run(f"%qmt_host --model echo --uses 2 --link-file {link}")
    url = link.read_text().strip()
    view = "application/vnd.jupyter.widget-view+json"
    (shown,) = [m["content"]["data"] for m in published if m["msg_type"] == "display_data"]
    card = shown[view]["model_id"]
    assert shown["text/plain"].startswith("<Invite card: Invite ")
    assert "2 guests" in shown["text/plain"]
    assert "qmt://" not in repr(published), "nor in the state that Save Widget State keeps"

    ask = {"comm_id": card, "data": {"method": "custom", "content": {"ask": "show"}}}
    host.client.shell_channel.send(host.client.session.msg("comm_msg", ask))
    answer, deadline = None, time.monotonic() + 30
    while answer is None and time.monotonic() < deadline:
        try:
            message = host.client.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        if message["msg_type"] == "comm_msg":
            answer = message["content"]
    assert answer is not None
    assert answer["comm_id"] == card
    assert answer["data"]["method"] == "custom", "an update would be saved"
    assert answer["data"]["content"]["link"] == url
    assert answer["data"]["content"]["svg"].lstrip().startswith(("<svg", "<?xml"))
