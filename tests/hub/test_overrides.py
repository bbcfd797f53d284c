"""What administrators change holds after a restart, and no file makes the service do more."""

from __future__ import annotations

import json
import stat

import pytest

from qmt_jupyter.errors import HomeNotWritable, OptionInvalid
from qmt_jupyter.hub.overrides import MOST, NONE, Override, Overrides
from qmt_jupyter.hub.policy import read_limits


@pytest.fixture
def path(tmp_path):
    return tmp_path / "hub" / "overrides.json"


def test_a_change_is_there_after_a_restart_for_its_user_alone(path):
    kept = Overrides(path)
    assert kept.of("ann") == NONE
    kept.put("ann", Override(True, {"tokens_per_day": 5, "models": ("a",), "concurrent": None}))
    kept.put("Zoë O'Hara\n<b>\u202e/..", Override(False, {"priority": 2}))
    again = Overrides(path)
    assert again.of("ann") == kept.of("ann")
    assert again.of("ann").paused and again.of("ann").limits["models"] == ("a",)
    assert again.of("Zoë O'Hara\n<b>\u202e/..").limits == {"priority": 2}
    assert again.of("ben") == NONE
    assert again.users() == ["Zoë O'Hara\n<b>\u202e/..", "ann"]


def test_the_file_is_for_the_service_alone(path):
    Overrides(path).put("ann", Override(True))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["overrides.json"]


def test_what_is_taken_back_stays_known_to_the_others(path):
    kept = Overrides(path)
    kept.put("ann", Override(True))
    kept.put("ann", Override())
    assert kept.users() == []
    assert Overrides(path).of("ann").paused is False
    assert [each["user"] for each in kept.changes()] == ["ann"]


def test_a_change_that_cannot_be_written_is_not_made(path, monkeypatch):
    kept = Overrides(path)
    kept.put("ann", Override(True))

    def no_room(*_):
        raise HomeNotWritable("no room")

    monkeypatch.setattr("qmt_jupyter.hub.overrides.write_private", no_room)
    with pytest.raises(HomeNotWritable):
        kept.put("ann", Override(False))
    assert kept.of("ann").paused
    assert Overrides(path).of("ann").paused


def test_the_newer_change_wins_whichever_service_made_it(path, tmp_path):
    here, there = Overrides(path), Overrides(tmp_path / "there.json")
    here.put("ann", Override(True))
    there.put("ann", Override(False, {"concurrent": 3}))
    there.put("ben", Override(True))
    assert here.take(there.changes()) == ["ann", "ben"]
    assert there.take(here.changes()) == []
    assert here.changes() == there.changes()
    assert here.take(there.changes()) == []
    assert Overrides(path).of("ann").limits == {"concurrent": 3}


def test_a_clock_that_is_ahead_does_not_decide_for_ever(path):
    kept = Overrides(path)
    kept.take([{"user": "ann", "paused": True, "limits": None, "at": 2**39}])
    assert kept.of("ann").paused
    kept.put("ann", Override(False))
    assert not kept.of("ann").paused
    kept.take([{"user": "ann", "paused": True, "limits": None, "at": 1.0}])
    assert not kept.of("ann").paused


def test_the_last_moment_that_there_is_does_not_keep_the_service_from_starting(path):
    kept = Overrides(path)
    kept.take([{"user": "ann", "paused": True, "limits": None, "at": 2**40 - 0.0005}])
    kept.put("ann", Override(True, {"concurrent": 1}))
    kept.put("ann", Override(True))
    assert Overrides(path).of("ann") == kept.of("ann")
    assert kept.of("ann").paused


def test_what_would_be_too_much_to_read_again_is_not_written(path, monkeypatch):
    monkeypatch.setattr("qmt_jupyter.hub.overrides._LARGEST_FILE", 64 * 1024)
    kept = Overrides(path)
    kept.put("ann", Override(True))
    limits = {"models": ["x" * 200] * 64}
    users = [{"user": f"u{n}", "paused": True, "limits": limits, "at": 1} for n in range(20)]
    with pytest.raises(OptionInvalid, match="already"):
        kept.take(users)
    for number in range(4):
        kept.put(f"v{number}", Override(limits=read_limits(limits)))
    with pytest.raises(OptionInvalid, match="already"):
        kept.put("one more", Override(limits=read_limits(limits)))
    assert kept.of("one more") == NONE
    assert Overrides(path).changes() == kept.changes()


NONSENSE = [
    3,
    None,
    [],
    {},
    {"user": "", "paused": True, "limits": None, "at": 1},
    {"user": "x" * 256, "paused": True, "limits": None, "at": 1},
    {"user": "\ud800", "paused": True, "limits": None, "at": 1},
    {"user": 3, "paused": True, "limits": None, "at": 1},
    {"user": "ann", "paused": 1, "limits": None, "at": 1},
    {"user": "ann", "paused": True, "limits": [], "at": 1},
    {"user": "ann", "paused": True, "limits": {"tokens_per_day": -1}, "at": 1},
    {"user": "ann", "paused": True, "limits": {"elsewhere": 1}, "at": 1},
    {"user": "ann", "paused": True, "limits": None, "at": True},
    {"user": "ann", "paused": True, "limits": None, "at": -1},
    {"user": "ann", "paused": True, "limits": None, "at": 1e300},
    {"user": "ann", "paused": True, "limits": None, "at": "now"},
    {"user": "ann", "paused": True, "limits": None},
]


@pytest.mark.parametrize("change", NONSENSE)
def test_what_makes_no_sense_is_not_taken_over(path, change):
    kept = Overrides(path)
    assert kept.take([change, {"user": "ben", "paused": True, "limits": None, "at": 1}]) == ["ben"]
    assert kept.of("ann") == NONE


@pytest.mark.parametrize(
    "held",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b'{"version": 2, "users": []}',
        b'{"version": 1}',
        b'{"version": 1, "users": {}}',
        b'{"version": 1, "users": [NaN]}',
        b"[" * 100_000,
        b'{"version": 1, "users": [' + b"9" * 5000 + b"]}",
        b" " * (9 * 1024 * 1024),
        *(json.dumps({"version": 1, "users": [each]}).encode() for each in NONSENSE),
    ],
)
def test_a_damaged_file_is_refused_and_not_forgotten(path, held):
    path.parent.mkdir()
    path.write_bytes(held)
    with pytest.raises(OptionInvalid) as refused:
        Overrides(path)
    assert str(path) in refused.value.sentence
    assert "remove it" in refused.value.next_step
    assert len(str(refused.value)) < 1000 and str(refused.value).isprintable()
    assert path.read_bytes() == held


def test_a_folder_in_its_place_is_refused(path):
    path.mkdir(parents=True)
    with pytest.raises(OptionInvalid):
        Overrides(path)


@pytest.mark.parametrize("user", ["", "x" * 256, "\ud800"])
def test_a_name_that_is_none_is_refused(path, user):
    with pytest.raises(OptionInvalid):
        Overrides(path).put(user, Override(True))
    assert not path.exists()


def test_there_is_an_end_to_how_many_users_are_changed(path):
    kept = Overrides(path)
    users = [{"user": f"u{n}", "paused": True, "limits": None, "at": 1} for n in range(MOST + 5)]
    assert len(kept.take(users)) == MOST
    with pytest.raises(OptionInvalid, match="already"):
        kept.put("one more", Override(True))
    kept.put("u0", Override(False))
    assert len(Overrides(path).changes()) == MOST
