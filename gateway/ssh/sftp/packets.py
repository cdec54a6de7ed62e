"""Packets of SFTP version 3: a stream taken apart, strictly and within bounds, and packets put together."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

MAX_PACKET = 256 * 1024
"""OpenSSH's own bound for one packet, either way."""
MAX_PATH = 4096
"""Linux's PATH_MAX: a longer name cannot be anything's."""
MAX_HANDLE = 256
"""draft-ietf-secsh-filexfer-02 section 6.3."""


class Kind(IntEnum):
    """draft-ietf-secsh-filexfer-02 section 3."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    READLINK = 19
    SYMLINK = 20
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Status(IntEnum):
    """draft-ietf-secsh-filexfer-02 section 7."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    OP_UNSUPPORTED = 8


class Broken(Exception):
    """Not a packet of the protocol.  What follows it cannot be understood either."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet: its kind, its request's id (INIT and VERSION have a version there), and what comes after."""

    kind: Kind
    id: int
    body: bytes


class Splitter:
    """A stream of bytes as packets; keeps at most one packet that is not whole, and what came with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Packet | None:
        """The next whole packet, or None until there is one.  Raises Broken."""
        buffer = self._buffer
        if len(buffer) < 4:
            return None
        length = int.from_bytes(buffer[:4], "big")
        if not 5 <= length <= MAX_PACKET:
            raise Broken(f"a packet of {length} bytes")
        if len(buffer) < 4 + length:
            return None
        kind = _kind(buffer[4])
        packet = Packet(kind, int.from_bytes(buffer[5:9], "big"), bytes(memoryview(buffer)[9 : 4 + length]))
        del buffer[: 4 + length]
        return packet


def _kind(number: int) -> Kind:
    try:
        return Kind(number)
    except ValueError as error:
        raise Broken(f"a packet of unknown kind {number}") from error


class Reader:
    """The body of a packet, field by field.  Every method raises Broken when it is not there."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def uint32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def uint64(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def boolean(self) -> bool:
        return self._take(1) != b"\0"

    def string(self) -> bytes:
        return self._take(self.uint32())

    def rest(self) -> bytes:
        """All that is left, and the end."""
        taken, self._at = self._body[self._at :], len(self._body)
        return taken

    def attributes(self) -> Attributes:
        """draft-ietf-secsh-filexfer-02 section 5.  Extended attributes are checked, and dropped."""
        flags = self.uint32()
        if flags & ~ATTRIBUTES:
            raise Broken(f"attributes {flags:#x}")
        found = Attributes(
            size=self.uint64() if flags & 1 else None,
            owner=(self.uint32(), self.uint32()) if flags & 2 else None,
            mode=self.uint32() if flags & 4 else None,
            times=(self.uint32(), self.uint32()) if flags & 8 else None,
        )
        if flags & EXTENDED_ATTRIBUTES:
            for _ in range(self.uint32()):
                self.string(), self.string()
        return found

    def end(self) -> None:
        if self._at != len(self._body):
            raise Broken("a packet longer than what it says")

    def _take(self, length: int) -> bytes:
        taken = self._body[self._at : self._at + length]
        if len(taken) != length:
            raise Broken("a packet shorter than what it says")
        self._at += length
        return taken


EXTENDED_ATTRIBUTES = 0x80000000
ATTRIBUTES = 0x8000000F


@dataclass(frozen=True, slots=True)
class Attributes:
    """Attributes that were given; None where one was not."""

    size: int | None = None
    owner: tuple[int, int] | None = None
    mode: int | None = None
    times: tuple[int, int] | None = None

    def encoded(self) -> bytes:
        flags, fields = 0, b""
        if self.size is not None:
            flags, fields = flags | 1, fields + self.size.to_bytes(8, "big")
        if self.owner is not None:
            flags, fields = flags | 2, fields + struct.pack(">II", *self.owner)
        if self.mode is not None:
            flags, fields = flags | 4, fields + self.mode.to_bytes(4, "big")
        if self.times is not None:
            flags, fields = flags | 8, fields + struct.pack(">II", *self.times)
        return flags.to_bytes(4, "big") + fields


def string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def packet(kind: Kind, number: int, *fields: bytes) -> bytes:
    """`number` is the id of the request, or the version in INIT and VERSION."""
    length = 5 + sum(map(len, fields))
    return b"".join((struct.pack(">IBI", length, kind, number), *fields))


def status(number: int, code: Status, message: str = "") -> bytes:
    return packet(Kind.STATUS, number, code.to_bytes(4, "big"), string(message.encode()), string(b""))


def name(number: int, value: bytes) -> bytes:
    """A NAME with one name alone, as REALPATH and READLINK are answered."""
    return packet(Kind.NAME, number, (1).to_bytes(4, "big"), string(value), string(value), Attributes().encoded())
