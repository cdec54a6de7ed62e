"""When the file that is written is closed, and how: a new one takes its place in steps that each can be the last.

1. The new file is written beside it (`audit.jsonl.next`): one record, that its forerunner was closed.  It is the next
   of the chain, so the last hash of one file is the base of the next.
2. The old file gets its name for good (`gateway.audit.segments`).
3. The new one gets the log's.

Each step is on the disk before the next.  A log that stopped after the first has a file too many, which says nothing
that was promised; one that stopped after the second is completed by the third.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.audit.chain import Head, seal
from gateway.audit.ends import Begun, begun, last_line, parsed_head
from gateway.audit.segments import NEXT_SUFFIX, PACKED, closed, name_of
from gateway.settings import AuditSettings
from gateway.telemetry import Step

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Keeping:
    """When a file is closed, and how long it is kept.  None: not for that."""

    rotate_bytes: int | None = None
    rotate_seconds: float | None = None
    pack: bool = False
    keep_segments: int | None = None
    """How many closed files."""
    keep_days: float | None = None
    """How long after the last record of a file."""

    @classmethod
    def of(cls, settings: AuditSettings) -> Keeping:
        return cls(
            settings.rotate_bytes,
            settings.rotate_seconds,
            settings.compress,
            settings.keep_segments,
            settings.keep_days,
        )

    def is_due(self, size: int, age: float) -> bool:
        """Whether a file of so many bytes, whose first record is so many seconds old, is to be closed."""
        by_size = self.rotate_bytes is not None and size >= self.rotate_bytes
        return by_size or (self.rotate_seconds is not None and age >= self.rotate_seconds)


def rotate(path: Path, first: Begun, head: Head, now: str) -> None:
    """Close the file at `path`, whose records go from `first` to `head`, and put a new one in its place.

    Raises OSError; the log is then as it was, or `settle` completes it.
    """
    name = name_of(path, first.seq, first.time)
    for taken in (name, name.with_name(name.name + PACKED)):
        if taken.exists():
            raise FileExistsError(f"there is a file {taken.name} already")
    facts = {"file": name.name, "first_seq": first.seq, "last_seq": head.seq}
    line, _ = seal({"time": now, "event": Step.SEGMENT, "outcome": "closed", **facts}, head)
    following = path.with_name(path.name + NEXT_SUFFIX)
    following.unlink(missing_ok=True)
    write_durably(following, os.O_CREAT | os.O_EXCL, line)
    sync_folder(path)
    os.rename(path, name)
    sync_folder(path)
    os.rename(following, path)
    sync_folder(path)
    log.info("audit_rotated", extra={"file": name.name, "records": head.seq - first.seq + 1})


def settle(path: Path) -> None:
    """Undo or complete a rotation that stopped half-way.  Raises OSError; ValueError where the log is missing."""
    following = path.with_name(path.name + NEXT_SUFFIX)
    if path.exists():
        following.unlink(missing_ok=True)
        return
    segments = closed(path)
    if not segments:
        return
    if not _continues(following, segments[-1].path):
        raise ValueError(f"is missing, and {segments[-1].path.name} is not its last file")
    os.rename(following, path)
    sync_folder(path)


def _continues(following: Path, last: Path) -> bool:
    if last.suffix == PACKED:
        return False  # a file is packed when the next one is in place
    with suppress(FileNotFoundError, ValueError):
        file = os.open(last, os.O_RDONLY | os.O_CLOEXEC)
        try:
            line, _ = last_line(file, os.fstat(file).st_size)
        finally:
            os.close(file)
        first = begun(following)
        return first is not None and first.previous == parsed_head(line).hash
    return False


def sync_folder(path: Path) -> None:
    """Names in the folder of `path` are on the disk."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_durably(path: Path, flags: int, data: bytes | bytearray) -> None:
    """Write to a file of mode 0600, opened with `flags` besides; on the disk when this returns.  Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        write(file, data)
        os.fdatasync(file)
    finally:
        os.close(file)


def write(file: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
