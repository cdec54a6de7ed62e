"""What the agent answers, held to what it was asked.

It is the file system, and may lie about files; it cannot answer more than the question, nor another one.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.ssh.sftp.operations import Request
from gateway.ssh.sftp.packets import MAX_HANDLE, MAX_PACKET, Broken, Kind, Packet, Reader, Status, packet, string
from gateway.words import printable

MAX_SAID = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that fits its question: put together anew for the client, but for its handle."""

    kind: Kind
    code: Status = Status.OK
    fields: bytes = b""
    handle: bytes = b""
    """The agent's own handle, which the client never sees."""
    names: tuple[bytes, ...] = ()
    length: int = 0
    """Bytes that were read."""

    @property
    def ok(self) -> bool:
        return self.code is Status.OK

    def encoded(self, number: int) -> bytes:
        return packet(self.kind, number, self.fields)


def reply(received: Packet, asked: Request) -> Reply:
    """Raises Broken for what does not answer `asked`."""
    reader = Reader(received.body)
    if received.kind is Kind.STATUS:
        found = _status(reader, asked)
    elif received.kind is not asked.form.answer:
        raise Broken(f"{received.kind.name} to {asked.form.name}")
    else:
        found = _ANSWERS[received.kind](reader, asked)
    reader.end()
    return found


OK = Reply(Kind.STATUS, fields=Status.OK.to_bytes(4, "big") + string(b"") + string(b""))


def _status(reader: Reader, asked: Request) -> Reply:
    code, said, _language = reader.uint32(), reader.string(), reader.string()
    if code == Status.OK:
        if asked.form.answer is not Kind.STATUS:
            raise Broken(f"a success without an answer to {asked.form.name}")
        return OK
    known = Status(code) if code in set(Status) else Status.FAILURE
    text = printable(said[:MAX_SAID].decode("utf-8", "replace")).encode()
    return Reply(Kind.STATUS, known, known.to_bytes(4, "big") + string(text) + string(b""))


def _handle(reader: Reader, _asked: Request) -> Reply:
    handle = reader.string()
    if not 0 < len(handle) <= MAX_HANDLE:
        raise Broken("a handle that is none")
    return Reply(Kind.HANDLE, handle=handle)


def _data(reader: Reader, asked: Request) -> Reply:
    fields = reader.rest()
    length = len(fields) - 4
    if length < 0 or int.from_bytes(fields[:4], "big") != length or length > asked.parsed.length:
        raise Broken("not the data that was asked for")
    return Reply(Kind.DATA, fields=fields, length=length)


def _name(reader: Reader, asked: Request) -> Reply:
    count = reader.uint32()
    listing = asked.form.name == "readdir"
    if count != 1 and not listing:
        raise Broken(f"{count} names to {asked.form.name}")
    names, fields = [], [count.to_bytes(4, "big")]
    for _ in range(count):
        name, shown, attributes = reader.string(), reader.string(), reader.attributes()
        if b"\0" in name or (listing and (b"/" in name or not name)):
            raise Broken("a name that cannot be one")  # clients make local files of these
        names.append(name)
        fields += [string(name), string(shown), attributes.encoded()]
    return Reply(Kind.NAME, fields=b"".join(fields), names=tuple(names))


def _attributes(reader: Reader, _asked: Request) -> Reply:
    return Reply(Kind.ATTRS, fields=reader.attributes().encoded())


def _extended(reader: Reader, _asked: Request) -> Reply:
    return Reply(Kind.EXTENDED_REPLY, fields=b"".join(reader.uint64().to_bytes(8, "big") for _ in range(11)))


_ANSWERS = {
    Kind.HANDLE: _handle,
    Kind.DATA: _data,
    Kind.NAME: _name,
    Kind.ATTRS: _attributes,
    Kind.EXTENDED_REPLY: _extended,
}


def limits(number: int, handles: int) -> bytes:
    """What a client may ask for at most (OpenSSH's PROTOCOL, section 4.8)."""
    most = (MAX_PACKET, MAX_PACKET - 1024, MAX_PACKET - 1024, handles)
    return packet(Kind.EXTENDED_REPLY, number, b"".join(limit.to_bytes(8, "big") for limit in most))


def version(received: Packet) -> frozenset[bytes]:
    """The extensions that the agent's side has.  Raises Broken."""
    if received.kind is not Kind.VERSION or received.id != 3:
        raise Broken("no version 3 to begin with")
    reader, found = Reader(received.body), set()
    left = len(received.body)
    while left:
        name, text = reader.string(), reader.string()
        left -= 8 + len(name) + len(text)
        found.add(name)
    return frozenset(found)
