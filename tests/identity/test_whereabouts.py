"""A host's signed record of where it is: what is written is read, anything else is refused."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_jupyter.identity import keys, link, whereabouts
from qmt_jupyter.identity.whereabouts import WhereaboutsInvalid

NOW = 1_800_000_000
HOST = keys.Identity(b"h" * 32)
OTHER = keys.Identity(b"o" * 32)
CONTEXT = b"qmt whereabouts 1\0"

usable = st.one_of(
    st.builds("{}:{}".format, st.ip_addresses(v=4), st.integers(1, 65535)),
    st.builds("[{}]:{}".format, st.ip_addresses(v=6), st.integers(1, 65535)),
).filter(lambda text: link.socket_address(text) == text)
relays = st.none() | st.from_regex(
    r"https?://[a-z]{1,20}\.example(:[1-7][0-9]{3})?/", fullmatch=True
)


def record(**changes):
    given = {"sequence": 7, "now": NOW, "addresses": ("192.0.2.1:4000", "[2001:db8::1]:4001")}
    return whereabouts.create(HOST, **{**given, **changes})


def signed(body, identity=HOST):
    return body + identity.sign(CONTEXT + body)


def body_of(made):
    return made.data[: -keys.SIGNATURE_SIZE]


@given(
    st.integers(0, 2**64 - 1),
    st.lists(usable, max_size=8, unique=True),
    relays,
    st.integers(1, 3600),
)
def test_what_is_written_is_read(sequence, addresses, relay, lifetime):
    made = whereabouts.create(
        HOST,
        sequence=sequence,
        now=NOW,
        addresses=tuple(addresses),
        relay=relay,
        lifetime=lifetime,
    )
    assert whereabouts.read(made.data, NOW, host_key=HOST.public_key) == made
    assert (made.addresses, made.relay, made.sequence) == (tuple(addresses), relay, sequence)
    assert made.ends_at == NOW + lifetime


def test_the_largest_record_fits_a_packet_with_room_to_spare():
    addresses = tuple(f"[2001:db8:ffff:ffff:ffff:ffff:ffff:{n:x}]:65535" for n in range(4096, 4104))
    made = record(addresses=addresses, relay=f"https://{'r' * 63}.{'r' * 63}.{'r' * 55}.example/")
    assert len(made.data) == whereabouts.MAX_SIZE <= 1000
    assert whereabouts.read(made.data, NOW) == made


def test_addresses_beyond_the_eighth_are_left_out():
    addresses = tuple(f"192.0.2.{n}:4000" for n in range(1, 20))
    assert record(addresses=addresses).addresses == addresses[:8]


@given(st.data())
def test_one_changed_bit_is_refused(data):
    made = record(relay="https://relay.example/")
    bit = data.draw(st.integers(0, len(made.data) * 8 - 1))
    changed = bytearray(made.data)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WhereaboutsInvalid):
        whereabouts.read(bytes(changed), NOW)


@given(st.data())
def test_a_cut_record_is_refused_and_so_is_a_longer_one(data):
    made = record()
    size = data.draw(st.integers(0, len(made.data) - 1))
    tail = data.draw(st.binary(min_size=1, max_size=600))
    for wrong in (made.data[:size], made.data + tail):
        with pytest.raises(WhereaboutsInvalid):
            whereabouts.read(wrong, NOW)


@given(st.binary(max_size=600))
def test_noise_is_refused(noise):
    for wrong in (noise, b"\1" + noise, signed(b"\1" + HOST.public_key + noise)):
        with pytest.raises(WhereaboutsInvalid):
            whereabouts.read(wrong, NOW)


@given(st.binary(max_size=400))
def test_a_signature_does_not_make_noise_a_record(noise):
    """A host may sign what it likes; what is read is still within the format's bounds."""
    head = struct.pack(">B32sQQH", 1, HOST.public_key, 1, NOW, 1800)
    try:
        read = whereabouts.read(signed(head + noise), NOW)
    except WhereaboutsInvalid:
        return
    assert len(read.addresses) <= 8
    assert all(link.socket_address(address) == address for address in read.addresses)
    assert read.relay is None or link.relay_url(read.relay) == read.relay


def test_a_record_of_another_host_is_refused():
    with pytest.raises(WhereaboutsInvalid, match="another host"):
        whereabouts.read(record().data, NOW, host_key=OTHER.public_key)


def test_a_record_signed_by_another_key_is_refused():
    with pytest.raises(WhereaboutsInvalid, match="signed"):
        whereabouts.read(signed(body_of(record()), OTHER), NOW)


def test_a_signature_of_other_bytes_of_the_host_does_not_count():
    """The host signs invites too; the prefix keeps one signature from standing for another."""
    body = body_of(record())
    with pytest.raises(WhereaboutsInvalid, match="signed"):
        whereabouts.read(body + HOST.sign(body), NOW)


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (NOW + 1801, "over"),
        (NOW + 10**9, "over"),
        (NOW - 301, "future"),
        (0, "future"),
    ],
)
def test_a_record_is_believed_in_its_time_only(now, why):
    made = record()
    with pytest.raises(WhereaboutsInvalid, match=why):
        whereabouts.read(made.data, now)


@pytest.mark.parametrize("now", [NOW, NOW + 1800, NOW - 300])
def test_clocks_may_differ_a_little(now):
    assert whereabouts.read(record().data, now).sequence == 7


def test_no_record_lives_longer_than_an_hour():
    body = bytearray(body_of(record()))
    body[49:51] = struct.pack(">H", 3601)
    with pytest.raises(WhereaboutsInvalid, match="lifetime"):
        whereabouts.read(signed(bytes(body)), NOW)
    with pytest.raises(ValueError, match="lifetime"):
        record(lifetime=3601)


def test_another_version_is_refused():
    with pytest.raises(WhereaboutsInvalid, match="version"):
        whereabouts.read(signed(b"\2" + body_of(record())[1:]), NOW)


@pytest.mark.parametrize(
    "address",
    ["224.0.0.1:4000", "0.0.0.0:4000", "240.0.0.1:4000", "192.0.2.1:0", "[ff02::1]:1"],
)
def test_an_address_that_no_host_has_is_refused(address):
    host, _, port = address.rpartition(":")
    ip = ipaddress.ip_address(host.strip("[]"))
    head = struct.pack(">B32sQQHB", 1, HOST.public_key, 1, NOW, 1800, 1)
    body = head + bytes((ip.version,)) + ip.packed + struct.pack(">H", int(port)) + b"\0"
    with pytest.raises(WhereaboutsInvalid, match="nobody has"):
        whereabouts.read(signed(body), NOW)
    with pytest.raises(ValueError, match="canonical"):
        record(addresses=(address,))


@pytest.mark.parametrize(
    "url",
    ["ftp://relay.example", "http://u:p@relay.example", "http://", "\xff", "https://relay.example"],
)
def test_a_relay_that_is_none_is_refused(url):
    head = struct.pack(">B32sQQHB", 1, HOST.public_key, 1, NOW, 1800, 0)
    text = url.encode("latin-1")
    with pytest.raises(WhereaboutsInvalid, match="relay"):
        whereabouts.read(signed(head + bytes((len(text),)) + text), NOW)
    with pytest.raises(ValueError, match="relay"):
        record(relay=url)


def test_each_host_has_a_key_of_its_own_in_the_dht():
    assert whereabouts.key_of(HOST.public_key) == record().key
    assert len(record().key) == 20
    assert whereabouts.key_of(OTHER.public_key) != record().key
