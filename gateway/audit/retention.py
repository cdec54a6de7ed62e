"""What becomes of closed files: packed, and in the end removed, whole and oldest first.

A removal is on record before it happens, with the last record's number and hash: from there the rest of the chain can
still be proven.  It is recorded in the file that is written, so the record outlives what it tells of.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

from gateway.audit.ends import CHUNK_BYTES, begun
from gateway.audit.rotation import Keeping, sync_folder
from gateway.audit.segments import PACKED, Segment, closed, names

log = logging.getLogger(__name__)

PART = ".part"


@dataclass(frozen=True, slots=True)
class Removal:
    """A closed file that is to be removed."""

    path: Path
    first: int
    last: int
    hash: str
    """Of its last record."""

    def facts(self) -> dict[str, Any]:
        file = self.path.name.removesuffix(PACKED)
        numbers = {"first_seq": self.first, "last_seq": self.last, "last_hash": self.hash}
        return {"outcome": "removed", "file": file, **numbers}


def removals(path: Path, keeping: Keeping) -> list[Removal]:
    """The closed files that are no longer kept, oldest first.

    A file is removed when the one after it can vouch for where it ended; a damaged one is kept, and all after it.
    """
    if keeping.keep_segments is None and keeping.keep_days is None:
        return []
    segments = closed(path)
    found: list[Removal] = []
    for segment, following in zip(segments, [*(later.path for later in segments[1:]), path], strict=True):
        try:
            after = begun(following)
        except FileNotFoundError:
            break  # just packed or removed: the next rotation sees to it
        except (OSError, ValueError) as error:
            log.error("audit_segment_unreadable", extra={"file": following.name, "error": str(error)})
            break
        if after is None or not _is_over(keeping, len(segments) - len(found), after.time):
            break
        found.append(Removal(segment.path, segment.first, after.seq - 1, after.previous))
    return found


def _is_over(keeping: Keeping, left: int, ended: str) -> bool:
    if keeping.keep_segments is not None and left > keeping.keep_segments:
        return True
    if keeping.keep_days is None:
        return False
    return datetime.fromisoformat(ended).astimezone(UTC) < datetime.now(UTC) - timedelta(days=keeping.keep_days)


def tidy(path: Path, removed: list[Path], *, pack: bool, stop: Event) -> None:
    """Remove what is recorded as removed, then pack what is not packed yet, until `stop`.  Raises OSError."""
    for part in path.parent.glob("*" + PART):
        if names(path).fullmatch(part.name.removesuffix(PART)):
            part.unlink(missing_ok=True)  # of a packing that stopped half-way
    for file in removed:
        plain = file.with_name(file.name.removesuffix(PACKED))
        for one in (plain, plain.with_name(plain.name + PACKED)):
            one.unlink(missing_ok=True)
        log.info("audit_segment_removed", extra={"file": plain.name})
    if removed:
        sync_folder(path)
    for segment in closed(path) if pack else []:
        if not segment.is_packed and not stop.is_set():
            _pack(segment, stop)


def _pack(segment: Segment, stop: Event) -> None:
    """Put a packed copy, read back and found to be the same, in its place."""
    packed = segment.path.with_name(segment.path.name + PACKED)
    part = packed.with_name(packed.name + PART)
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    digest = hashlib.sha256()
    with (
        open(file, "wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as out,
        segment.path.open("rb") as lines,
    ):
        while chunk := lines.read(CHUNK_BYTES):
            if stop.is_set():
                return
            digest.update(chunk)
            out.write(chunk)
        out.close()
        raw.flush()
        os.fsync(file)
    back = hashlib.sha256()
    with gzip.open(part) as lines:
        while chunk := lines.read(CHUNK_BYTES):
            back.update(chunk)
    if back.digest() != digest.digest():
        raise OSError(f"{part.name} is not what was written to it")
    os.rename(part, packed)
    sync_folder(packed)
    segment.path.unlink()
