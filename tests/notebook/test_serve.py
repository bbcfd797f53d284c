"""``%qmt_serve`` in a real kernel: it serves, and nothing that is published has the key."""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace

import pytest

from qmt_jupyter.notebook import serving
from tests.endpoint.conftest import Client
from tests.notebook.conftest import errors
from tests.notebook.front import Front, panels, states


class Told:
    """An endpoint as its owner tells of it."""

    def __init__(self, base_url, api_key):
        self.base_url, self.api_key = base_url, api_key


@pytest.fixture
def hosting(kernel):
    """A kernel that hosts the echo."""
    running = kernel("host")
    running.run("%qmt_host --model echo")
    return running


def address(said: str) -> str:
    return next(word.rstrip(",") for word in said.split() if word.startswith("http://"))


def test_the_key_goes_to_a_file_or_into_the_environment_and_into_no_output(hosting, tmp_path):
    file = tmp_path / "key"
    said = hosting.text(f"%qmt_serve --key-file {file}")
    assert "Serving echo at http://127.0.0.1:" in said
    key = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    client = Client(Told(address(said), key))
    assert client.chat("hello").json["choices"][0]["message"]["content"] == "hello"

    hosting.text("import os; os.environ['OPENAI_API_KEY'] = 'my own'")
    said = hosting.text("%qmt_serve --env")
    assert "OPENAI_API_KEY" in said
    same = f"print(os.environ['OPENAI_API_KEY'] == open({str(file)!r}).read().strip())"
    assert hosting.text(same).strip() == "True"
    assert hosting.text("print(os.environ['OPENAI_BASE_URL'])").strip() == client.endpoint.base_url
    published = hosting.run("%qmt_serve")
    assert not errors(published)
    assert hosting.text("%qmt_serve --stop").strip() == "Stopped serving."
    assert hosting.text("print(os.environ['OPENAI_API_KEY'])").strip() == "my own"
    assert hosting.text("print('OPENAI_BASE_URL' in os.environ)").strip() == "False"
    with pytest.raises(OSError):
        client.chat()
    assert key[4:20] not in repr(hosting.published), "neither outputs nor widget state"
    assert "serves nothing" in hosting.text("%qmt_serve --stop")


def test_the_panel_hands_the_key_over_by_a_message_that_no_notebook_saves(hosting, tmp_path):
    file = tmp_path / "key"
    hosting.text(f"%qmt_serve --key-file {file}")
    key = file.read_text().strip()
    published = hosting.run("%qmt_serve")
    (comm,) = panels(published)
    front = Front(hosting, comm)
    view = front.watch()
    assert view["open"]
    assert view["address"].startswith("http://127.0.0.1:")
    assert "127.0.0.1" not in repr(states(published)), "nor where it is"
    assert key not in repr(hosting.published)
    answer = front.ask("show")
    assert answer["secret"] == key
    assert key not in repr(states(hosting.published)), "an update would be saved"
    hosting.text("%qmt_serve --stop")
    assert not front.watch(lambda view: not view["open"])["open"]
    assert "closed" in front.ask("show")["problem"]


def test_a_guest_serves_what_it_joins_later_too(kernel, hosting, tmp_path):
    link, file = tmp_path / "link", tmp_path / "key"
    hosting.text(f"%qmt_invite --link-file {link} --uses 0")
    guest = kernel("guest")
    # Caught, because after an error a kernel drops what is sent to it next.
    said = guest.text(
        "try:\n    get_ipython().run_line_magic('qmt_serve', '')\n"
        "except Exception as error:\n    print(type(error).__name__)"
    )
    assert said.strip() == "NotJoined"
    guest.text(f"%qmt_join --file {link}")
    client = Client(
        Told(address(guest.text(f"%qmt_serve --key-file {file}")), file.read_text().strip())
    )
    assert client.chat("over").json["choices"][0]["message"]["content"] == "over"
    guest.text("%qmt_leave")
    gone = client.chat()
    assert (gone.status, gone.error["code"]) == (503, "not-joined")
    guest.text(f"%qmt_join --file {link}")
    assert client.chat("again").status == 200
    other = errors(guest.run("%qmt_serve --port 1"))[0]
    assert other["ename"] == "OptionInvalid"


def test_what_was_set_to_something_else_meanwhile_is_left(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-users-own")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    endpoint = SimpleNamespace(base_url="http://127.0.0.1:1/v1", api_key="qmt-ours")
    state = SimpleNamespace(environment={"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None})
    serving._restore(state, endpoint)
    assert os.environ["OPENAI_API_KEY"] == "sk-users-own"
    assert "OPENAI_BASE_URL" not in os.environ
