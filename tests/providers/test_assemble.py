"""What a person names is understood, keys go to their own servers, and doubles are refused."""

from __future__ import annotations

import pytest

from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.providers import assemble, secret
from qmt_jupyter.providers.echo import Echo

URLS = ["https://a.example/v1", "http://127.0.0.1:8000/v1"]


def wanted(model=None, upstream=None, upstream_models=(), upstream_key=None, engine="auto"):
    return assemble.wanted(model, upstream, upstream_models, upstream_key, engine)


def keys(understood):
    return [each.key and each.key.reveal() for each in understood.upstreams]


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("KEY_A", "sk-aaaaaaaaaa")
    monkeypatch.setenv("KEY_B", "sk-bbbbbbbbbb")


def test_one_or_several_models_may_be_named():
    provider = Echo()
    assert wanted().models == ()
    assert wanted("a").models == ("a",)
    assert wanted(["a", provider, "b"]).models == ("a", provider, "b")
    assert wanted(provider).models == (provider,)


def test_each_upstream_gets_the_key_in_its_place(environment):
    both = wanted(upstream=URLS, upstream_key=["env:KEY_A", "env:KEY_B"])
    assert [each.url for each in both.upstreams] == URLS
    assert keys(both) == ["sk-aaaaaaaaaa", "sk-bbbbbbbbbb"]
    assert keys(wanted(upstream=URLS, upstream_key=["none", "env:KEY_B"])) == [
        None,
        "sk-bbbbbbbbbb",
    ]
    assert keys(wanted(upstream=URLS, upstream_key=["env:KEY_A", None])) == ["sk-aaaaaaaaaa", None]
    assert keys(wanted(upstream=URLS)) == [None, None]
    assert keys(wanted(upstream=URLS[0], upstream_key="env:KEY_A")) == ["sk-aaaaaaaaaa"]
    assert "sk-" not in repr(both)


def test_a_person_is_told_whose_key_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(secret.getpass, "getpass", lambda text: asked.append(text) or "sk-typed-it")
    wanted(upstream=URLS, upstream_key=["prompt", "prompt"])
    assert asked == ["Key of a.example: ", "Key of 127.0.0.1: "]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"upstream": URLS, "upstream_key": "env:KEY_A"}, r"upstreams \(2\) and of keys \(1\)"),
        ({"upstream": URLS[0], "upstream_key": ["env:KEY_A", "env:KEY_B"]}, r"\(1\) and of keys \(2\)"),
        ({"upstream": [*URLS, URLS[0]]}, "same upstream is given twice"),
        ({"model": ["smollm2", "smollm2"]}, "same model is given twice"),
        ({"upstream_models": ["m"]}, "no upstream"),
        ({"upstream_key": "env:KEY_A"}, "no upstream"),
        ({"model": "echo", "upstream_key": "none"}, "no upstream"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(environment, given, said):
    with pytest.raises(OptionInvalid, match=said):
        wanted(**given)


def test_no_key_is_read_where_the_numbers_do_not_match(monkeypatch):
    monkeypatch.setattr(secret.getpass, "getpass", lambda text: pytest.fail("asked for a key"))
    with pytest.raises(OptionInvalid):
        wanted(upstream=URLS, upstream_key="prompt")


def test_one_provider_given_twice_is_refused():
    provider = Echo()
    with pytest.raises(OptionInvalid):
        wanted([provider, provider])
    assert len(wanted([provider, Echo()]).models) == 2
