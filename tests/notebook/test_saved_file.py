"""A notebook may be shared: after everything that its magics do, the file gives nothing away."""

from __future__ import annotations

import base64
import re

import nbformat
import pytest

from qmt_jupyter.harmless import shareable
from qmt_jupyter.identity import keys, link
from tests.notebook.conftest import errors
from tests.notebook.front import Front, panels, states

_WINDOW = 20
_SAVED = ("stream", "display_data", "execute_result", "error")
# A place that a peer listens at. Of URLs there is the endpoint's, which leads to this machine alone.
_PLACE = re.compile(r"(?<![/\w.])(\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]*\]):\d+")


def saved(published: list[dict], with_widgets: bool) -> str:
    """The file that a front end writes of what a kernel has published."""
    cell = nbformat.v4.new_code_cell("")
    updates = {}
    for message in published:
        if message["msg_type"] == "update_display_data":
            updates[message["content"]["transient"]["display_id"]] = message["content"]
        elif message["msg_type"] in _SAVED:
            cell.outputs.append(nbformat.v4.output_from_msg(message))
    for content in updates.values():
        cell.outputs.append(
            nbformat.v4.new_output(
                "display_data", data=content["data"], metadata=content["metadata"]
            )
        )
    notebook = nbformat.v4.new_notebook(cells=[cell])
    if with_widgets:
        notebook.metadata.widgets = {
            "application/vnd.jupyter.widget-state+json": {
                "version_major": 2, "version_minor": 0,
                "state": {name: {"state": state} for name, state in states(published).items()},
            }
        }  # fmt: skip
    text = nbformat.writes(notebook)
    assert len(text) > 5000, "there is something to search"
    return text


def everything_but_custom(published: list[dict]) -> str:
    """All that a kernel says, but for what no front end saves."""
    return repr(
        [
            message["content"]
            for message in published
            if message["msg_type"] != "comm_msg" or message["content"]["data"]["method"] != "custom"
        ]
    )


def found_in(text: str, secret: str) -> list[str]:
    """The pieces of a secret that a text holds."""
    pieces = {secret[at : at + _WINDOW] for at in range(max(1, len(secret) - _WINDOW + 1))}
    return [piece for piece in pieces if piece in text]


def key_forms(seed: bytes) -> list[str]:
    coded = [base64.b64encode(seed), base64.urlsafe_b64encode(seed), seed.hex().encode()]
    return [each.decode().rstrip("=") for each in coded]


def token_of(url: str) -> str:
    return url.strip().rpartition("/")[2].partition("?")[0]


def show(kernel, published: list[dict], question: str = "show", **given) -> str:
    """Press *Show* on the panel that a cell has displayed; the secret that came."""
    front = Front(kernel, panels(published)[-1])
    view = front.watch()
    if "invites" in view:
        given.setdefault("invite", view["invites"][0]["id"])
    answer = front.ask(question, **given)
    assert "problem" not in answer, answer
    return answer["secret"]


def run_all(kernel, cells: list[str], failing: int) -> None:
    """Run cells, of which so many fail; each failure is caught so that the next is not dropped."""
    failed = [len(errors(kernel.run(cell))) for cell in cells]
    assert sum(failed) == failing, list(zip(cells, failed, strict=True))


def test_after_everything_the_file_holds_no_token_key_or_address(kernel, tmp_path):
    host, guest = kernel("host"), kernel("guest")
    first, second = tmp_path / "first.link", tmp_path / "second.link"
    hosted = host.run(f"%qmt_host --model echo --name Team --uses 0 --save h --link-file {first}")
    url = first.read_text().strip()
    assert show(host, hosted) == url, "it was shown, and is not saved"
    made = host.run(f"%qmt_invite --uses 3 --tokens 900 --save made --link-file {second}")
    assert show(host, made) == second.read_text().strip()
    served = host.run("%qmt_serve")
    key = show(host, served)

    damaged = tmp_path / "damaged.link"
    damaged.write_text(url.partition("?")[0][:-30])

    joined = guest.run(f"%qmt_join --file {second} --name Ada")
    Front(guest, panels(joined)[-1]).watch(lambda view: view["hosts"])
    guest_key = show(guest, guest.run("%qmt_serve"))
    guest.run(f"%qmt_join --file {first}")
    run_all(guest, ["%%chat --save a\nHello there.", "%chat And again?", "%%chat --new\nHi."], 0)
    run_all(guest, ["%qmt_status", "%qmt_models", "%qmt_history", "%qmt"], 0)
    run_all(
        host,
        [
            "%%chat\nMine.", "%qmt_status", "%qmt_models", "%qmt_usage", "%qmt_usage --json",
            "%qmt_usage --csv", "h", "h.invite", "made", "h.invites",
        ],
        0,
    )  # fmt: skip
    run_all(
        host,
        [
            "%qmt_host --model other", "%qmt_revoke nobody", "%qmt_host --nonsense",
            "%xmode Verbose\n%qmt_serve --port 1", "%%chat --model none\nHi.",
            f"%qmt_join --file {damaged}",
        ],
        6,
    )  # fmt: skip
    # The guest is turned away, and then its host is gone: errors that say where it was looked for.
    host.text("%qmt_revoke " + link.read(second.read_text().strip()).invite.invite_id)
    host.text("%qmt_status")
    guest.text("%qmt_leave")
    run_all(guest, [f"%qmt_join --file {second}", "%%chat\nHi."], 2)
    host.text("%qmt_host --stop")
    lost = guest.run(f"%xmode Verbose\n%qmt_join --file {first} --timeout 2")
    (content,) = errors(lost)
    assert content["ename"] == "HostNotFound"
    assert "no answer from 127.0.…:" in content["evalue"], "cut short, not left out"

    host_id = keys.load_or_create(host.home / "host" / "identity.key")
    guest_id = keys.load_or_create(guest.home / "guest" / "identity.key")
    secrets = {
        "first token": token_of(url),
        "second token": token_of(second.read_text()),
        "the host's key for its endpoint": key,
        "the guest's key for its endpoint": guest_key,
        "the host's peer id": host_id.peer_id,
        "the guest's peer id": guest_id.peer_id,
    }
    for identity, name in ((host_id, "host's seed"), (guest_id, "guest's seed")):
        secrets |= {f"{name} {n}": form for n, form in enumerate(key_forms(identity.seed))}
    assert all(len(secret) > _WINDOW for secret in secrets.values())
    for running in (host, guest):
        for text in (
            saved(running.published, with_widgets=False),
            saved(running.published, with_widgets=True),
            everything_but_custom(running.published),
        ):
            leaks = {
                name: found for name, secret in secrets.items() if (found := found_in(text, secret))
            }
            assert leaks == {}
            assert [found[0] for found in _PLACE.finditer(text)] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no answer from 192.168.1.5:4242.", "no answer from 192.168.…:4242."),
        ("203.0.113.9:7, [2001:db8::1]:9", "203.0.…:7, [2001:…]:9"),
        ("[fe80::1%eth0]:9 and [::1]:9", "[fe80:…]:9 and [:…]:9"),
        ("12D3KooWHHzSeKaY8xuZVzkLbKFfvNgPPeKhFBGrMbNzbm5akpqu", "bm5akpqu"),
        ("at http://127.0.0.1:8000/v1", "at http://127.0.0.1:8000/v1"),
        ("version 1.2.3.4, 10:30, 5 of 7", "version 1.2.3.4, 10:30, 5 of 7"),
    ],
)
def test_what_leads_to_a_peer_is_cut_short_and_the_rest_is_left(text, shown):
    assert shareable(text) == shown
