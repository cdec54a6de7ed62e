"""The PROXY protocol's header: what is taken, what is refused, and that no bytes at all make it fail otherwise."""

from __future__ import annotations

import random
import socket
import struct

import pytest

from gateway.proxy_header import MAX_BODY, SIGNATURE, BadHeader, Header, parse

PEER, LOCAL = ("192.0.2.7", 40000), ("198.51.100.1", 22)


def proxied(
    peer: tuple[str, int] = PEER, local: tuple[str, int] = LOCAL, tlvs: bytes = b"", command: int = 0x21
) -> bytes:
    """A header as a balancer sends it."""
    kind, family = (socket.AF_INET6, 0x21) if ":" in peer[0] else (socket.AF_INET, 0x11)
    ends = socket.inet_pton(kind, peer[0]) + socket.inet_pton(kind, local[0])
    return with_body(ends + struct.pack("!HH", peer[1], local[1]) + tlvs, command, family)


def with_body(body: bytes, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(body)) + body


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + struct.pack("!H", len(value)) + value


TLVS = tlv(4, bytes(64)) + tlv(0x20, b"\x01\0\0\0\0" + tlv(0x22, b"client")) + tlv(0xEA, b"vpce-1")


def test_a_header_names_both_ends() -> None:
    assert parse(proxied()) == Header(28, PEER, LOCAL)
    assert parse(proxied(("2001:db8::7", 1), ("2001:db8::1", 22))) == Header(
        52, ("2001:db8::7", 1), ("2001:db8::1", 22)
    )
    assert parse(proxied(tlvs=TLVS) + b"SSH-2.0-x\r\n") == Header(28 + len(TLVS), PEER, LOCAL)


def test_an_ipv4_address_in_ipv6_clothes_is_one() -> None:
    header = parse(proxied(("::ffff:192.0.2.7", 1), ("::ffff:192.0.2.1", 22)))
    assert header == Header(52, ("192.0.2.7", 1), ("192.0.2.1", 22))


@pytest.mark.parametrize("family", [0x00, 0x11, 0x31, 0xFF])
def test_a_balancers_own_connection_has_no_other_end(family: int) -> None:
    assert parse(with_body(b"anything", 0x20, family)) == Header(24)
    assert parse(with_body(b"", 0x20, family)) == Header(16)


def test_half_a_header_may_still_become_one() -> None:
    whole = proxied(tlvs=TLVS)
    assert all(parse(whole[:size]) is None for size in range(len(whole)))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 22\r\n", "version 1"),
        (b"PROXY", "version 1"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "no PROXY protocol"),
        (b"\r\n\r\n\x00\r\nQUIX\n", "no PROXY protocol"),
        (proxied(command=0x11), "0x11"),
        (proxied(command=0x22), "0x22"),
        (proxied(command=0x31), "0x31"),
        (with_body(bytes(12), family=0x00), "0x00"),
        (with_body(bytes(12), family=0x12), "0x12"),
        (with_body(bytes(216), family=0x31), "0x31"),
        (with_body(bytes(11)), "too short"),
        (with_body(bytes(35), family=0x21), "too short"),
        (with_body(bytes(12) + b"\x04"), "TLVs"),
        (with_body(bytes(12) + b"\x04\x00\x05abcd"), "TLVs"),
        (SIGNATURE + b"\x21\x11" + struct.pack("!H", MAX_BODY + 1), "larger"),
        (SIGNATURE + b"\x20\x00\xff\xff", "larger"),
    ],
)
def test_what_is_no_header_is_refused_and_told(data: bytes, why: str) -> None:
    with pytest.raises(BadHeader, match=why):
        parse(data)


def test_no_bytes_at_all_make_it_fail_otherwise() -> None:
    dice = random.Random(20)
    seeds = [proxied(), proxied(tlvs=TLVS), proxied(("2001:db8::7", 1), ("::1", 2)), with_body(b"x", 0x20), b"PROXY T"]
    taken = 0
    for _ in range(20_000):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randrange(4)):
            data[dice.randrange(len(data))] = dice.choice([0, 0x11, 0x21, 0xFF, dice.randrange(256)])
        data = data[: dice.randrange(len(data) + 1)] + dice.randbytes(dice.randrange(8))
        try:
            header = parse(bytes(data))
        except BadHeader:
            continue
        if header is not None:
            taken += 1
            assert header.size <= len(data)
            for end in (header.peer, header.local):
                assert end is None or (socket.getaddrinfo(*end, flags=socket.AI_NUMERICHOST) and 0 <= end[1] < 65536)
    assert taken > 100
