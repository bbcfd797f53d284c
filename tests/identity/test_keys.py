"""Key files, statements, lifetimes and QR codes."""

from __future__ import annotations

import stat
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from qmt_jupyter import settings
from qmt_jupyter.errors import (
    AdmissionRefused,
    HomeNotWritable,
    IdentityDamaged,
    IdentityInUse,
    OptionInvalid,
)
from qmt_jupyter.identity import keys, lifetime, qr, statement

GUEST, ENDPOINT, HOST = (keys.Identity(bytes([n]) * 32) for n in (1, 2, 3))
NOW = 1_800_000_000.0


def shown(**changes):
    given = {
        "identity": GUEST,
        "endpoint_key": ENDPOINT.public_key,
        "host_key": HOST.public_key,
        "now": NOW,
    } | changes
    return statement.create(**given)


def verified(data, **changes):
    given = {"endpoint_key": ENDPOINT.public_key, "host_key": HOST.public_key, "now": NOW}
    return statement.verify(data, **(given | changes))


def test_a_key_file_is_private_and_the_identity_stays(tmp_path):
    path = tmp_path / "new" / "identity.key"
    first = keys.load_or_create(path)
    assert keys.load_or_create(path).public_key == first.public_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_private_file_leaves_the_directory_of_the_user_as_it_is(tmp_path):
    tmp_path.chmod(0o755)
    settings.write_private(tmp_path / "link", b"x")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "link").stat().st_mode) == 0o600
    settings.write_private(tmp_path / "new" / "link", b"x")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    settings.private_directory(tmp_path / "several" / "at" / "once")
    for each in ("several", "several/at", "several/at/once"):
        assert stat.S_IMODE((tmp_path / each).stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b"", b"not hex", b"00" * 31, b"00" * 33, b"\xff\xfe"])
def test_a_damaged_key_file_is_kept_and_named(tmp_path, content):
    path = tmp_path / "identity.key"
    path.write_bytes(content)
    with pytest.raises(IdentityDamaged, match=r"identity\.key does not hold a key"):
        keys.load_or_create(path)
    assert path.read_bytes() == content


def test_a_home_that_cannot_be_written_is_said_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HomeNotWritable, match="Set QMT_HOME"):
        keys.load_or_create(tmp_path / "file" / "identity.key")


def test_two_processes_that_start_at_once_get_one_identity(tmp_path):
    code = (
        "import sys; from pathlib import Path; from qmt_jupyter.identity import keys\n"
        "print(keys.load_or_create(Path(sys.argv[1])).peer_id)"
    )
    path = str(tmp_path / "home" / "identity.key")
    both = [
        subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert len({each.communicate(timeout=30)[0] for each in both}) == 1


def test_a_second_host_on_one_identity_is_refused_and_a_dead_one_frees_it(tmp_path):
    lock = keys.HostLock(tmp_path)
    lock.acquire()
    with pytest.raises(IdentityInUse, match="Another host"):
        keys.HostLock(tmp_path).acquire()
    lock.release()
    lock.release()
    code = (
        "import sys, time; from pathlib import Path; from qmt_jupyter.identity import keys\n"
        "lock = keys.HostLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(IdentityInUse):
        keys.HostLock(tmp_path).acquire()
    other.kill()
    other.communicate()
    lock.acquire()
    lock.release()


def test_a_statement_says_who_speaks():
    assert verified(shown()).guest_id == GUEST.peer_id
    assert len(shown()) == statement.SIZE == 176


@pytest.mark.parametrize(
    ("data", "changes", "said"),
    [
        (shown(), {"endpoint_key": GUEST.public_key}, "another connection"),
        (shown(), {"host_key": GUEST.public_key}, "another host"),
        (shown(), {"now": NOW + 601}, "not valid now"),
        (shown(), {"now": NOW - 301}, "not valid now"),
        (shown()[:-1], {}, "cannot be read"),
        (b"", {}, "cannot be read"),
        (shown()[:-1] + b"\0", {}, "not signed"),
        (shown()[:96] + bytes(8) + shown()[104:], {}, "not signed"),
    ],
)
def test_a_statement_for_anything_else_is_refused(data, changes, said):
    with pytest.raises(AdmissionRefused, match=said):
        verified(data, **changes)


def test_a_statement_that_is_valid_for_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(statement, "LIFETIME", 10_000)
    data = shown()
    with pytest.raises(AdmissionRefused, match="too long"):
        verified(data)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("24h", 86400), ("7d", 604800), (" 7D ", 604800), ("none", None)],
)
def test_lifetimes(text, seconds):
    assert lifetime.parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "7", "7 d", "7days", "-1h", "0s", "1w", "1e3s", "∞", "٣h", "9999d"]
)
def test_a_typo_in_a_lifetime_is_an_error(text):
    with pytest.raises(OptionInvalid, match=r"90s, 15m|Write none"):
        lifetime.parse(text)


def test_a_qr_code_has_its_quiet_zone_everywhere():
    rows = qr.matrix("qmt://mesh/join/" + "A" * 180)
    size = len(rows)
    for i in range(4):
        assert not any(rows[i])
        assert not any(rows[size - 1 - i])
        assert not any(row[i] or row[size - 1 - i] for row in rows)
    assert rows[4][4:11] == [True] * 7, "the finder pattern follows at once"


def test_a_qr_code_brings_its_own_colours_to_a_terminal():
    lines = qr.terminal("qmt://mesh/join/A").splitlines()
    assert all(line.startswith("\x1b[38;5;16;48;5;231m") for line in lines)
    assert all(line.endswith("\x1b[0m") for line in lines)
    assert len({len(line) for line in lines}) == 1


def test_a_qr_code_as_svg_is_whole_and_self_contained():
    text = "qmt://mesh/join/A"
    root = ET.fromstring(qr.svg(text))
    ns = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{ns}rect").get("fill") == "#fff"
    runs = root.find(f"{ns}path").get("d").split("M")[1:]
    dark = sum(int(run.split("h")[1].split("v")[0]) for run in runs)
    assert dark == sum(map(sum, qr.matrix(text)))
    assert "http" not in qr.svg(text).replace("http://www.w3.org/2000/svg", "")
