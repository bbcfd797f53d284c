"""Limits by user and group: whose word counts, and what is said about a file that is wrong."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qmt_jupyter.errors import OptionInvalid
from qmt_jupyter.hub.person import Person
from qmt_jupyter.hub.policy import LIMITS, Policy, notices, read_limits, read_policy

COURSES = """
zone = "Europe/Berlin"
only = ["course-a", "course-b", "staff", "guests"]
[everybody]
tokens_per_day = 50000
answer_tokens = 1000
[groups.course-a]
hours = ["Mon 08:00-12:00"]
models = ["small"]
tokens_per_day = 100000
concurrent = 1
[groups.course-b]
hours = ["Tue 14:00-18:00", "Mon 08:00-12:00"]
models = ["small", "large"]
tokens_per_day = 80000
[groups.staff]
priority = 4
tokens_per_day = 0
hours = []
[users.alice]
models = ["large"]
tokens_per_month = 7
"""


def person(name="ann", *groups):
    return Person(name, frozenset(groups))


def test_without_a_file_everybody_has_the_defaults():
    allowance, rules = Policy().allowance(person())
    assert (allowance.tokens_per_day, allowance.concurrent) == (200_000, 2)
    assert allowance.requests_per_minute == 30
    assert (allowance.models, allowance.hours, allowance.priority) == ((), (), 1)
    assert (allowance.tokens_per_month, allowance.answer_tokens) == (None, None)
    assert (allowance.zone, allowance.paused) == ("UTC", False)
    assert rules == dict.fromkeys(LIMITS, "default")
    assert Policy().allows(person())


def test_the_closest_word_counts_and_is_named():
    policy = read_policy(COURSES)
    allowance, rules = policy.allowance(
        person("alice", "course-a"), {"concurrent": 9, "priority": 3}, paused=True
    )
    assert allowance.as_dict() == {
        "models": ["large"],
        "tokens_per_day": 100_000,
        "tokens_per_month": 7,
        "concurrent": 9,
        "requests_per_minute": 30,
        "answer_tokens": 1000,
        "priority": 3,
        "hours": ["Mon 08:00-12:00"],
        "zone": "Europe/Berlin",
        "paused": True,
    }
    assert rules == {
        "models": "user",
        "tokens_per_day": "group course-a",
        "tokens_per_month": "user",
        "concurrent": "admin",
        "requests_per_minute": "default",
        "answer_tokens": "everybody",
        "priority": "admin",
        "hours": "group course-a",
    }


def test_of_several_groups_the_most_generous_counts_limit_by_limit():
    policy = read_policy(COURSES)
    allowance, rules = policy.allowance(person("ben", "course-a", "course-b", "unheard-of"))
    assert allowance.tokens_per_day == 100_000
    assert allowance.concurrent == 1  # course-b says nothing about it
    assert allowance.hours == ("Mon 08:00-12:00", "Tue 14:00-18:00")
    assert allowance.models == ("small", "large")
    assert rules["hours"] == "groups course-a, course-b"
    assert rules["tokens_per_day"] == "group course-a"

    allowance, rules = policy.allowance(person("zoe", "course-a", "staff"))
    assert (allowance.tokens_per_day, allowance.hours, allowance.priority) == (None, (), 4)
    assert rules["tokens_per_day"] == rules["hours"] == rules["priority"] == "group staff"
    assert allowance.models == ("small",)  # staff says nothing about models


def test_a_limit_that_an_administrator_takes_away_is_none():
    changed = read_limits({"tokens_per_day": None, "concurrent": 0, "models": [], "priority": None})
    allowance, rules = read_policy(COURSES).allowance(person("ann", "course-a"), changed)
    assert (allowance.tokens_per_day, allowance.concurrent, allowance.models) == (None, None, ())
    assert allowance.priority == 1
    assert rules["tokens_per_day"] == rules["concurrent"] == rules["models"] == "admin"


def test_only_the_named_groups_may_use_it():
    policy = read_policy(COURSES)
    assert policy.allows(person("ann", "course-a"))
    assert not policy.allows(person("ann"))
    # A table of one's own grants nothing.
    assert not policy.allows(person("alice", "others"))


def test_names_are_taken_as_they_are():
    name = "Zoë O'Hara \u2028<script>" + "x" * 200
    quoted = name.replace("\u2028", "\\u2028")
    text = f'[users."{quoted}"]\nconcurrent = 7\n[groups."__class__"]\npriority = 2\n'
    policy = read_policy(text)
    assert policy.allowance(person(name))[0].concurrent == 7
    assert policy.allowance(person("a", "__class__"))[0].priority == 2


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("zone = \n", 1, "not TOML"),
        ('zone = "UTC"\n\n[everybody\n', 3, "not TOML"),
        ("[everybody]\nconcurrent = 2\nconcurrent = 3\n", 3, "not TOML"),
        (f"[everybody]\nconcurrent = {'9' * 5000}\n", None, "not TOML"),
        ("a = " + "[" * 5000 + "]" * 5000, None, ""),
        ('\nzone = "Mars/Base"\n', 2, "not a time zone"),
        ("zone = 3\n", 1, "zone has to be a text"),
        ("everyone = {}\n", 1, "the nearest is everybody"),
        ("\n[group.staff]\nconcurrent = 1\n", None, "the nearest is groups"),
        ("[everybody]\n\ntokens_per_dya = 3\n", 3, "the nearest is tokens_per_day"),
        ("[groups.a]\nconcurrent=1\n[groups.b]\nconcurrent=-1\n", 4, "not a limit for concurrent"),
        ("[groups.'a b']\nconcurrent = 1.5\n", 2, "not a limit for concurrent"),
        ("[users.x]\ntokens_per_day = true\n", 2, "not a limit for tokens_per_day"),
        ("[users.x]\ntokens_per_day = false\n", 2, "not a limit for tokens_per_day"),
        ("[users.x]\npriority = 101\n", 2, "not a priority"),
        ("[users.x]\npriority = 0\n", 2, "not a priority"),
        ('[users.x]\nmodels = "smollm2"\n', 2, "has to be a list"),
        ("[users.x]\nmodels = [3]\n", 2, "has to be a list"),
        ('[users.x]\nhours = ["Monday morning"]\n', 2, "Monday morning"),
        ("[users.x]\nhours = ['Mon 25:00-26:00']\n", 2, ""),
        ("\nonly = []\n", 2, "nobody could use"),
        ("only = 'staff'\n", 1, "list of groups"),
        ("only = ['']\n", 1, "list of groups"),
        ("groups = 3\n", 1, "has to be tables"),
        ("[groups]\nstaff = 3\n", 2, "has to be a table"),
        ("everybody = []\n", 1, "has to be a table"),
        ("[users.x]\npaused = true\n", 2, "no limit paused"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_line(text, line, said):
    with pytest.raises(OptionInvalid) as refused:
        read_policy(text, "limits.toml")
    assert refused.value.sentence.startswith("limits.toml")
    assert said in refused.value.sentence
    assert line is None or f"line {line}" in refused.value.sentence
    assert refused.value.next_step
    assert len(str(refused.value)) < 700


def test_an_error_shows_no_control_characters():
    with pytest.raises(OptionInvalid) as refused:
        read_policy('"\\u001b[2J\\u202e" = 1')
    assert str(refused.value).isprintable()


@given(st.text(max_size=300))
@example("[everybody]\nhours = [" + "'Mon 08:00-12:00'," * 100 + "]")
@example("[everybody]\n" + "a" * 5000 + " = 1")
@example("\ud800 = 1")
@example("x = 1979-05-27T07:32:00Z")
def test_any_text_is_a_policy_or_is_refused(text):
    try:
        policy = read_policy(text)
    except OptionInvalid as refused:
        assert len(refused.sentence) < 700
    else:
        assert policy.allowance(person())


@given(
    st.dictionaries(
        st.sampled_from([*LIMITS, "zone", "x"]),
        st.none() | st.integers() | st.floats() | st.booleans() | st.text() | st.lists(st.text()),
    )
)
def test_any_limits_make_an_allowance_or_are_refused(given):
    try:
        limits = read_limits(given)
    except OptionInvalid as refused:
        assert refused.sentence
    else:
        assert set(limits) == set(given) <= set(LIMITS)
        Policy().allowance(person(), limits)


def test_groups_of_a_great_many_lists_are_joined_as_far_as_one_goes():
    text = "".join(
        f"[groups.g{n}]\nmodels = [{', '.join(repr(f'm{n}-{k}') for k in range(40))}]\n"
        for n in range(3)
    )
    allowance, _ = read_policy(text).allowance(person("ann", "g0", "g1", "g2"))
    assert len(allowance.models) == 64


def test_limits_for_a_group_that_looks_misspelled_are_noticed():
    slip = read_policy('only = ["course-a"]\n[groups.cuorse-a]\nconcurrent = 1')
    assert "is course-a meant?" in notices(slip)[0]
    assert notices(read_policy(COURSES)) == notices(Policy()) == []
    capitals = read_policy("[users.Ada]\nconcurrent = 1\n[users.Ben]\n[users.ben]\n")
    assert [each for each in notices(capitals) if "[users.Ada]" in each and "is ada meant?" in each]
    assert len(notices(capitals)) == 1
    # Who is in a group that only leaves out can be in another one, too.
    assert notices(read_policy('only = ["staff"]\n[groups.course-a]\nconcurrent = 1')) == []
