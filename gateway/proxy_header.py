"""The header of the PROXY protocol, version 2, and nothing else of it: strictly per HAProxy's proxy-protocol.txt.

The one library for it (proxy-protocol on PyPI, last released in 2024) lets struct and UnicodeDecodeError out on short
bodies, takes datagrams and unknown families as streams, and does not bound a header.  The header is 60 lines.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
FIXED = 16
MAX_BODY = 2048
"""Addresses take 36 bytes; the rest are TLVs, which balancers fill with a few hundred at most."""

_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESSES: dict[int, tuple[type[IPv4Address | IPv6Address], struct.Struct]] = {
    _TCP4: (IPv4Address, struct.Struct("!4s4sHH")),
    _TCP6: (IPv6Address, struct.Struct("!16s16sHH")),
}


class BadHeader(Exception):
    """What was sent is no header that we take; the message says why, without quoting it."""


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header of `size` bytes.  Without addresses the balancer speaks for itself (LOCAL), as in a check."""

    size: int
    peer: tuple[str, int] | None = None
    local: tuple[str, int] | None = None


def parse(data: bytes) -> Header | None:
    """The header that `data` starts with; None while it may still become one.  Raises BadHeader."""
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        if data[:5] == b"PROXY":
            raise BadHeader("this is version 1 of the PROXY protocol, and only version 2 is taken")
        raise BadHeader("this is no PROXY protocol header")
    if len(data) < FIXED:
        return None
    command, family, length = data[12], data[13], int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise BadHeader(f"version and command {command:#04x} are unknown")
    if length > MAX_BODY:
        raise BadHeader(f"its body of {length} bytes is larger than {MAX_BODY}")
    if command == _PROXY and family not in _ADDRESSES:
        raise BadHeader(f"address family {family:#04x} is neither TCP over IPv4 nor TCP over IPv6")
    if len(data) < FIXED + length:
        return None
    body = data[FIXED : FIXED + length]
    # What follows LOCAL is to be skipped (section 2.2): it may hold anything.
    return Header(FIXED + length) if command == _LOCAL else _relayed(family, body)


def _relayed(family: int, body: bytes) -> Header:
    address, layout = _ADDRESSES[family]
    if len(body) < layout.size:
        raise BadHeader(f"its body of {len(body)} bytes is too short for two addresses")
    peer, local, peer_port, local_port = layout.unpack_from(body)
    _check_tlvs(body[layout.size :])
    return Header(FIXED + len(body), (_text(address(peer)), peer_port), (_text(address(local)), local_port))


def _text(address: IPv4Address | IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _check_tlvs(rest: bytes) -> None:
    """They are not used, but a header whose parts do not add up is not one to believe."""
    while rest:
        if len(rest) < 3 or len(rest) < 3 + (length := int.from_bytes(rest[1:3], "big")):
            raise BadHeader("its TLVs do not add up")
        rest = rest[3 + length :]
