"""What a client asks: every request of the protocol, parsed whole, as a value that names what it touches.

A request that is not here is refused by name.  What is sent on is put together from what was parsed, so that nothing
passes that was not understood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.ssh.sftp.packets import MAX_HANDLE, MAX_PATH, Broken, Kind, Packet, Reader, packet, string

OPEN_FLAGS = ("read", "write", "append", "create", "truncate", "exclusive")
"""draft-ietf-secsh-filexfer-02 section 6.3, by bit."""
WRITING = frozenset({"write", "append", "create", "truncate"})


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of request: its name to policy and record, and how it reads."""

    name: str
    parse: Callable[[Reader], Parsed]
    answer: Kind = Kind.STATUS
    """What a success is answered with; a failure is always a STATUS."""
    follows: bool = True
    """Whether a link that the (first) path ends in is followed."""
    looks: bool = False
    """Whether it changes nothing and reads no content."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """The fields of a request: `before`, then its handle or its paths, then `after`."""

    paths: tuple[bytes, ...] = ()
    handle: bytes | None = None
    before: bytes = b""
    after: bytes = b""
    facts: Mapping[str, Any] = field(default_factory=dict)
    length: int = 0
    """Bytes to read or to write."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the client."""

    id: int
    kind: Kind
    form: Form
    parsed: Parsed
    size: int

    @property
    def follows(self) -> bool:
        # O_EXCL does not follow a link (open(2)).
        return self.form.follows and "exclusive" not in self.parsed.facts.get("flags", ())

    @property
    def opens(self) -> bool:
        return self.form.answer is Kind.HANDLE

    @property
    def may_write(self) -> bool:
        """Whether it is anything but known to change nothing."""
        if self.form.name == "open":
            return bool(self.parsed.facts["write"])
        return not (self.form.looks or self.form.name in ("close", "read", "opendir"))

    def encoded(self, number: int, *, paths: tuple[bytes, ...] | None = None, handle: bytes = b"") -> bytes:
        """For the agent: with its own number, with paths as judged, and with its own handle."""
        parsed = self.parsed
        named = [string(path) for path in (parsed.paths if paths is None else paths)]
        held = [string(handle)] if parsed.handle is not None else []
        return packet(self.kind, number, parsed.before, *held, *named, parsed.after)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A request that is not offered."""

    id: int
    name: str


def request(received: Packet) -> Request | Unknown:
    """Raises Broken for what is no request, or is not what its kind promises."""
    reader = Reader(received.body)
    before = b""
    if received.kind is Kind.EXTENDED:
        name = reader.string()
        before = string(name)
        form = EXTENSIONS.get(name)
        if form is None:
            return Unknown(received.id, name[:128].decode("ascii", "backslashreplace"))
    else:
        form = FORMS.get(received.kind)
        if form is None:
            raise Broken(f"{received.kind.name} from a client")
    parsed = form.parse(reader)
    reader.end()
    if before:
        parsed = Parsed(parsed.paths, parsed.handle, before + parsed.before, parsed.after, parsed.facts, parsed.length)
    return Request(received.id, received.kind, form, parsed, len(received.body))


def unsuited(asked: Request) -> str:
    """Why it cannot be asked of any file system, if so."""
    parsed = asked.parsed
    if any(b"\0" in path for path in parsed.paths):
        return "a name cannot hold NUL"
    target = len(parsed.before) if asked.kind is Kind.SYMLINK else 0
    if target > MAX_PATH or any(len(path) >= MAX_PATH for path in parsed.paths):
        return "the name is too long"
    return ""


def _path(reader: Reader) -> Parsed:
    return Parsed((reader.string(),))


def _paths(reader: Reader) -> Parsed:
    return Parsed((reader.string(), reader.string()))


def _nothing(_reader: Reader) -> Parsed:
    return Parsed()


def _open(reader: Reader) -> Parsed:
    path, flags = reader.string(), reader.uint32()
    if flags >> len(OPEN_FLAGS):
        raise Broken(f"open with flags {flags:#x}")
    named = [flag for bit, flag in enumerate(OPEN_FLAGS) if flags >> bit & 1]
    after = flags.to_bytes(4, "big") + reader.attributes().encoded()
    # Without `write` the system opens for reading, whatever else is asked.
    facts = {"flags": named, "read": "read" in named or "write" not in named, "write": bool(WRITING & set(named))}
    return Parsed((path,), after=after, facts=facts)


def _with_attributes(reader: Reader) -> Parsed:
    path = reader.string()
    return Parsed((path,), **_attributes(reader))


def _handle_with_attributes(reader: Reader) -> Parsed:
    return Parsed(handle=_held(reader), **_attributes(reader))


def _attributes(reader: Reader) -> dict[str, Any]:
    found = reader.attributes()
    changes = [name for name in ("size", "owner", "mode", "times") if getattr(found, name) is not None]
    return {"after": found.encoded(), "facts": {"changes": changes}}


def _symlink(reader: Reader) -> Parsed:
    # OpenSSH's order, which every client keeps to: first what the link says (PROTOCOL section 4.1).
    target, path = reader.string(), reader.string()
    return Parsed((path,), before=string(target), facts={"target": target.decode("utf-8", "backslashreplace")})


def _held(reader: Reader) -> bytes:
    handle = reader.string()
    if len(handle) > MAX_HANDLE:
        raise Broken("a handle that is too long")
    return handle


def _handle(reader: Reader) -> Parsed:
    return Parsed(handle=_held(reader))


def _read(reader: Reader) -> Parsed:
    handle, offset, length = _held(reader), reader.uint64(), reader.uint32()
    return Parsed(handle=handle, after=offset.to_bytes(8, "big") + length.to_bytes(4, "big"), length=length)


def _write(reader: Reader) -> Parsed:
    handle, after = _held(reader), reader.rest()
    length = len(after) - 12  # the offset, and the length of the data
    if length < 0 or int.from_bytes(after[8:12], "big") != length:
        raise Broken("a write that is not as long as it says")
    return Parsed(handle=handle, after=after, length=length)


FORMS: Mapping[Kind, Form] = {
    Kind.OPEN: Form("open", _open, Kind.HANDLE),
    Kind.CLOSE: Form("close", _handle),
    Kind.READ: Form("read", _read, Kind.DATA),
    Kind.WRITE: Form("write", _write),
    Kind.LSTAT: Form("lstat", _path, Kind.ATTRS, follows=False, looks=True),
    Kind.FSTAT: Form("fstat", _handle, Kind.ATTRS, looks=True),
    Kind.SETSTAT: Form("setstat", _with_attributes),
    Kind.FSETSTAT: Form("fsetstat", _handle_with_attributes),
    Kind.OPENDIR: Form("opendir", _path, Kind.HANDLE),
    Kind.READDIR: Form("readdir", _handle, Kind.NAME, looks=True),
    Kind.REMOVE: Form("remove", _path, follows=False),
    Kind.MKDIR: Form("mkdir", _with_attributes, follows=False),
    Kind.RMDIR: Form("rmdir", _path, follows=False),
    Kind.REALPATH: Form("realpath", _path, Kind.NAME, looks=True),
    Kind.STAT: Form("stat", _path, Kind.ATTRS, looks=True),
    Kind.RENAME: Form("rename", _paths, follows=False),
    Kind.READLINK: Form("readlink", _path, Kind.NAME, follows=False, looks=True),
    Kind.SYMLINK: Form("symlink", _symlink, follows=False),
}

EXTENSIONS: Mapping[bytes, Form] = {
    b"posix-rename@openssh.com": Form("rename", _paths, follows=False),
    b"statvfs@openssh.com": Form("statvfs", _path, Kind.EXTENDED_REPLY, looks=True),
    b"fstatvfs@openssh.com": Form("fstatvfs", _handle, Kind.EXTENDED_REPLY, looks=True),
    b"hardlink@openssh.com": Form("hardlink", _paths, follows=False),
    b"fsync@openssh.com": Form("fsync", _handle),
    b"lsetstat@openssh.com": Form("lsetstat", _with_attributes, follows=False),
    b"limits@openssh.com": Form("limits", _nothing, Kind.EXTENDED_REPLY, looks=True),
    b"expand-path@openssh.com": Form("expand-path", _path, Kind.NAME, looks=True),
}
"""OpenSSH's PROTOCOL, section 4.  Not here, so refused: copy-data, home-directory, users-groups-by-id@openssh.com."""

VERSIONS: Mapping[bytes, bytes] = {name: b"2" if b"statvfs" in name else b"1" for name in EXTENSIONS}

RESOLVE = b"resolve@doorward"
"""Our own, to our agent alone: the canonical name of what a path leads to."""


def _resolve(_reader: Reader) -> Parsed:
    raise Broken("never from a client")


RESOLVING = Form("resolve", _resolve, Kind.NAME)


def resolving(path: bytes, *, follows: bool) -> Request:
    parsed = Parsed((path,), before=string(RESOLVE), after=b"\1" if follows else b"\0")
    return Request(0, Kind.EXTENDED, RESOLVING, parsed, 0)
