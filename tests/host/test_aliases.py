"""What models are called: by aliases, by labels where names clash, by their own names else."""

from __future__ import annotations

import pytest

from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.host.aliases import LONGEST, Alias, parse, resolve
from qmt_jupyter.host.lanes import Lanes
from qmt_jupyter.providers.base import Model, Provider


class Named(Provider):
    """Has models of these names, under a label."""

    slots = 1
    label = ""
    models = ()

    def __init__(self, label, *names):
        self.label = label
        self.models = tuple(Model(name) for name in names)

    async def chat(self, model, request):
        yield {}


def names(*providers, aliases=()):
    return [model.name for model in Lanes(providers, parse(aliases)).models]


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ((), ()),
        ("fast", (Alias("fast"),)),
        (["fast"], (Alias("fast"),)),
        (["fast=a/b:7=c"], (Alias("fast", "a/b:7=c"),)),
        ({"fast": "m", "größer": "n"}, (Alias("fast", "m"), Alias("größer", "n"))),
    ],
)
def test_aliases_are_given_as_text_or_as_a_mapping(given, understood):
    assert parse(given) == understood


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "1 to 100 characters, not 0"),
        ("=m", "1 to 100 characters, not 0"),
        ("x" * (LONGEST + 1), f"not {LONGEST + 1}"),
        ("two words=m", "must not have"),
        ("bell\x07", "must not have"),
        ("\u202elatot", "must not have"),
        ("fast=", "NAME=MODEL"),
        (["a=m", "a=n"], "a is given to two models"),
        ({"a": 5}, "NAME=MODEL"),
        ({5: "a"}, "NAME=MODEL"),
    ],
)
def test_what_is_no_alias_is_said_in_one_sentence(given, said):
    with pytest.raises(OptionInvalid) as raised:
        parse(given)
    assert said in raised.value.sentence
    assert raised.value.sentence.isprintable()


@pytest.mark.parametrize(
    ("aliases", "shared", "said"),
    [
        ("fast", ["m", "n"], "any of 2 models: m, n"),
        ("fast", [], "any of 0 models"),
        ("fast=o", ["m"], "no model 'o' to be called fast; shared are m"),
        (["a=m", "b=m"], ["m"], "m gets two names, a and b"),
        ("n=m", ["m", "n"], "called n already"),
    ],
)
def test_an_alias_that_fits_no_model_is_refused(aliases, shared, said):
    with pytest.raises(OptionInvalid) as raised:
        resolve(parse(aliases), shared)
    assert said in raised.value.sentence


def test_two_models_may_swap_their_names():
    assert resolve(parse(["n=m", "m=n"]), ["m", "n"]) == {"m": "n", "n": "m"}
    assert names(Named("p", "m", "n"), aliases=["n=m", "m=n"]) == ["n", "m"]


def test_models_go_by_their_own_names_unless_these_clash():
    assert names(Named("p", "m"), Named("q", "n")) == ["m", "n"]
    assert names(Named("p", "m", "o"), Named("q", "m")) == ["p/m", "o", "q/m"]
    assert names(Named("p", "m"), Named("p", "m"), Named("p", "n")) == ["p/m", "p-2/m", "n"]


def test_every_model_has_a_name_of_its_own_however_odd_the_names():
    providers = [Named("p", "m", "q/m"), Named("q", "m"), Named("", "m"), Named("a\x07b\n", "m")]
    assert names(*providers) == ["p/m", "q/m", "q/m-2", "provider/m", "a b/m"]
    assert names(Named("p", "fast", "m"), aliases={"fast": "m", "slow": "fast"}) == ["slow", "fast"]


def test_a_model_with_an_alias_clashes_with_nothing():
    assert names(Named("p", "m"), Named("q", "m"), aliases="fast=p/m") == ["fast", "m"]


def test_a_newcomer_does_not_take_an_aliass_name():
    provider = Named("p", "m")
    lanes = Lanes([provider], parse("fast"))
    provider.models = (Model("fast"), Model("m"))
    assert [model.name for model in lanes.models] == ["p/fast", "fast"]
    assert lanes.find("fast")[1].name == "m"


def test_what_is_asked_for_may_be_the_bare_name_while_one_model_has_it():
    lanes = Lanes([Named("p", "m", "o"), Named("q", "m", "n")], parse("fast=o"))
    offered = ("p/m", "fast", "q/m", "n")
    assert lanes.meant("p/m", offered) == "p/m"
    assert lanes.meant("m", offered) is None, "two models have it"
    assert lanes.meant("m", ("q/m", "n")) == "q/m", "one of them is all that is offered"
    assert lanes.meant("q/n", offered) == "n"
    assert lanes.meant("o", offered) is None, "only its alias is known"
    assert lanes.meant("p/o", offered) is None
    assert lanes.meant("n", ("fast",)) is None
