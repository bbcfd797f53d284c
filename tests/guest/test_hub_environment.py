"""What a JupyterHub tells by the environment: addresses that can be used, or a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_jupyter import settings
from qmt_jupyter.errors import HubNotFound
from qmt_jupyter.guest.hub import environment


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "secret")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("http://127.0.0.1:8000/services/qmt/", ("http://127.0.0.1:8000/services/qmt/",)),
        ("https://hub.example/services/qmt", ("https://hub.example/services/qmt/",)),
        (" http://a/x/ , http://[::1]:8/ ,, http://a/x", ("http://a/x/", "http://[::1]:8/")),
        (",".join(f"http://h{n}/" for n in range(40)), tuple(f"http://h{n}/" for n in range(16))),
    ],
)
def test_addresses_are_read(monkeypatch, given, found):
    monkeypatch.setenv("QMT_HUB_URL", given)
    assert environment.service_urls() == found
    assert settings.is_on_hub()


@pytest.mark.parametrize(
    "given",
    [
        "hub.example/services/qmt/", "ftp://a/", "http://", "http://user:pass@a/", "http://a/?q=1",
        "http://a/#x", "http://a:0/", "http://a:99999/", "http://a b/", "http://a\\b/",
        "http://a/\r\nX: 1", "http://[::1/", f"http://{'a' * 600}/", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_what_is_no_address_is_told_without_being_shown(monkeypatch, given):
    monkeypatch.setenv("QMT_HUB_URL", given)
    with pytest.raises(HubNotFound, match="QMT_HUB_URL holds something that is no address") as told:
        environment.service_urls()
    assert "pass" not in str(told.value)


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_whatever_stands_there_an_address_or_the_sentence_comes(text):
    try:
        url = environment._base(text)
    except HubNotFound:
        return
    assert url.endswith("/")
    assert url.isascii() and url.isprintable()
    assert environment._base(url) == url


@pytest.mark.parametrize("given", ["", " ", ","])
def test_without_a_service_the_sentence_names_the_variable(monkeypatch, given):
    monkeypatch.setenv("QMT_HUB_URL", given)
    with pytest.raises(HubNotFound, match="QMT_HUB_URL is not set. Ask whoever runs"):
        environment.service_urls()


@pytest.mark.parametrize("given", ["", "a b", "a\nX-Forged: 1", "x" * 5000, "é"])
def test_a_token_that_cannot_be_sent_is_none(monkeypatch, given):
    monkeypatch.setenv("QMT_HUB_URL", "http://a/")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", given)
    with pytest.raises(HubNotFound, match="JUPYTERHUB_API_TOKEN holds none") as told:
        environment.service_urls()
    assert "Forged" not in str(told.value)
