"""Invites and links: byte for byte the agreed format, and nothing else gets through."""

from __future__ import annotations

import base64
import json
import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmt_jupyter.errors import InviteError, InviteExpired, InviteMalformed, InviteSignatureInvalid
from qmt_jupyter.identity import invite, keys, link, peer_id

VECTORS = json.loads((Path(__file__).parent / "vectors" / "invite_v3.json").read_text())
HOST = keys.Identity(bytes(range(32)))


def made(name="Team GPU", expires_at=4102444800, max_uses=5, **flags):
    return invite.create(
        HOST,
        invite_id=uuid.UUID(VECTORS[0]["invite_id"]),
        name=name,
        expires_at=expires_at,
        max_uses=max_uses,
        **flags,
    )


def text_of(token):
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def resigned(payload):
    return payload + HOST.sign(payload)


@pytest.mark.parametrize("vector", VECTORS)
def test_the_vector_is_written_and_read_byte_for_byte(vector):
    host = keys.Identity(bytes.fromhex(vector["seed"]))
    written = invite.create(
        host,
        invite_id=uuid.UUID(vector["invite_id"]),
        name=vector["name"],
        expires_at=vector["expires_at"],
        max_uses=vector["max_uses"],
        can_invite=bool(vector["flags"] & 1),
        role="client" if vector["flags"] & 2 else "member",
    )
    assert written.token.hex() == vector["wire"] + vector["signature"]
    assert link.write(written) == vector["url"]
    read = link.read(vector["url"])
    assert read.invite == written
    assert read.invite.peer_id == vector["peer_id"]


def test_flags_and_name_survive():
    written = made(name="Größe 🎓", can_invite=True, role="client", expires_at=0, max_uses=0)
    assert invite.from_text(written.token_text()) == written


@pytest.mark.parametrize("bit", range(8))
def test_a_changed_bit_anywhere_is_refused(bit):
    for position in range(len(made().token)):
        token = bytearray(made().token)
        token[position] ^= 1 << bit
        with pytest.raises((InviteSignatureInvalid, InviteMalformed)):
            invite.from_token(bytes(token))


@pytest.mark.parametrize(
    "text",
    [
        "",
        made().token_text() + "=",
        made().token_text() + "A",
        made().token_text()[:-1],
        made().token_text()[:60],
        made().token_text().replace("A", "+", 1),
        " " + made().token_text(),
        made().token_text() + "\n",
        "A" * 5000,
        text_of(made().token + b"\0"),
    ],
)
def test_other_spellings_of_a_token_are_refused(text):
    with pytest.raises(InviteError):
        invite.from_text(text)


def test_a_non_canonical_last_character_is_refused():
    name = next(n for n in ("a", "ab", "abc") if len(made(name=n).token) % 3)
    text = made(name=name).token_text()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]
    assert base64.urlsafe_b64decode(other + "==") == made(name=name).token
    with pytest.raises(InviteMalformed):
        invite.from_text(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: b"\x02" + p[1:],
        lambda p: b"\x04" + p[1:],
        lambda p: p[:17] + b"\x12\x20" + p[19:],
        lambda p: p[:67] + bytes([p[67] | 0x04]) + p[68:],
        lambda p: p[:68] + bytes([p[68] + 1]) + p[69:],
        lambda p: p[:69] + b"\xff" + p[70:],
        lambda p: p + b"x",
    ],
    ids=["version 2", "version 4", "multihash", "unknown flag", "name length", "UTF-8", "trailing"],
)
def test_what_is_signed_but_not_of_the_format_is_refused(change):
    payload = made().token[:-64]
    with pytest.raises(InviteMalformed):
        invite.from_token(resigned(change(payload)))


def test_another_hosts_signature_is_refused():
    payload = made().token[:-64]
    with pytest.raises(InviteSignatureInvalid) as raised:
        invite.from_token(payload + keys.Identity.fresh().sign(payload))
    assert "fresh link" in str(raised.value)


def test_expired_means_later_than_the_moment_it_names():
    limited = made(expires_at=1000)
    limited.require_unexpired(1000.0)
    with pytest.raises(InviteExpired, match=r"expired 1 hours? ago|60 minutes ago"):
        limited.require_unexpired(1000.0 + 3600)
    made(expires_at=0).require_unexpired(1e12)


def test_hints_are_read_and_wrong_ones_dropped():
    hints = link.Hints(
        ("192.0.2.7:4242", "[2001:db8::1]:9"), "https://relay.example/", ("192.0.2.9:47471",)
    )
    assert link.read(link.write(made(), hints)).hints == hints
    bare = link.write(made())
    wrong = (
        "?a=host.example:1&a=1.2.3.4&a=224.0.0.1:5&a=0.0.0.0:1&a=1.2.3.4:99999&r=file:///x&z=%00"
    )
    assert link.read(bare + wrong).hints == link.Hints()
    many = "?" + "&".join(f"a=192.0.2.1:{port}" for port in range(1, 31))
    assert len(link.read(bare + many).hints.addresses) == link.MAX_ADDRESSES
    nodes = "?" + "&".join(f"d=192.0.2.1:{port}&d=lab.example:1" for port in range(1, 15))
    assert link.read(bare + nodes).hints.nodes == tuple(f"192.0.2.1:{port}" for port in range(1, 5))
    assert link.read(bare + "?" + "&".join("a=1" for _ in range(500))).hints == link.Hints()


LINK = link.write(made(), link.Hints(("127.0.0.1:5",)))


# A hundred links a draw: hypothesis takes longer over a draw than a link takes.
@given(st.binary(min_size=2900, max_size=2900))
@settings(max_examples=100)
def test_ten_thousand_mutated_links_raise_nothing_but_an_invite_error(drawn):
    for start in range(0, len(drawn), 29):
        edits = drawn[start + 1 :][: 7 * (1 + drawn[start] % 4)]
        text = LINK
        for kind, at, code in struct.iter_unpack(">BHI", edits):
            at %= len(LINK)
            character = chr(code % (0x110000 if kind & 8 else 0x80))
            if kind % 5 == 0:
                text = text[:at] + character + text[at + 1 :]
            elif kind % 5 == 1:
                text = text[:at] + character + text[at:]
            elif kind % 5 == 2:
                text = text[:at] + text[at + 1 :]
            elif kind % 5 == 3:
                text = text[:at]
            else:
                text = text[:at] + text[at // 2 :]
        try:
            read = link.read(text)
        except InviteError as error:
            assert "\n" not in str(error)
        else:
            assert read.invite == made()


def test_nothing_that_is_printed_shows_the_token():
    url = link.write(made())
    token = made().token_text()
    for shown in (repr(made()), str(made()), repr(link.read(url)), repr(HOST)):
        assert token[:20] not in shown
        assert HOST.seed.hex() not in shown


def test_peer_ids_round_trip():
    assert HOST.peer_id == VECTORS[0]["peer_id"]
    assert peer_id.from_text(HOST.peer_id) == HOST.public_key
    for wrong in (
        "",
        "0",
        "12D3KooW",
        HOST.peer_id + "1",
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
        "z" * 99,
    ):
        with pytest.raises(ValueError):
            peer_id.from_text(wrong)
