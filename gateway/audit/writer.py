"""The file that is written, and the way to it: whole batches or nothing, on the disk, over as many files as it takes.

Everything here blocks, and belongs to one thread at a time.  What another program does to the file (logrotate, a hand)
is found before the next batch, which is then refused.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.audit.chain import HEAD_SUFFIX, Head, claimed_head, seal
from gateway.audit.ends import Begun, begun, last_line, parsed_head
from gateway.audit.retention import Removal, removals
from gateway.audit.rotation import Keeping, rotate, settle, sync_folder, write, write_durably
from gateway.errors import AuditUnavailable
from gateway.telemetry import Step

log = logging.getLogger(__name__)

HEAD_BYTES = 127
AGAIN_SECONDS = 60
"""How long after a rotation that failed the next one is tried.  Meanwhile the log goes on in the file that it has."""
IDS = ("time", "session", "gateway", "client", "person", "key_id", "grant", "target", "trace_id")

Entry = tuple[Mapping[str, Any], Mapping[str, Any]]
"""A record, and the documents that it names."""


class Writer:
    """The end of a log.  `head_file` is open and locked: it says who writes, also while the log's own file changes."""

    def __init__(self, path: Path, head_file: int, keeping: Keeping) -> None:
        """Raises AuditUnavailable."""
        self._path = path
        self._head_file = head_file
        self._keeping = keeping
        self._file: int | None = None
        """None: what is on the disk is not known, and has to be looked at."""
        self._size = 0
        self._is_whole = True
        """False: behind `size` may stand a part of a batch that failed."""
        self._first: Begun | None = None
        self._head = Head(0, "")
        self._kept: set[str] = set()
        """Digests of the documents that are in this file, written by us."""
        self._not_before = 0.0
        self._reach()

    def append(self, entries: Sequence[Entry]) -> list[Path] | None:
        """Seal and write all of `entries`, or none.  Raises OSError, ValueError or AuditUnavailable.

        When a file was closed first: the closed files whose removal is now on record, for `retention.tidy`.  Else None.
        """
        if self._file is None:
            self._reach()
        if not self._is_whole:
            self._cut()
        self._look()
        removed = self._rotated() if self._is_due() else None
        assert self._file is not None
        records: list[Entry] = [
            ({"time": now(), "event": Step.SEGMENT, **removal.facts()}, {}) for removal in removed or ()
        ]
        try:
            self._write(self._file, [*records, *entries])
        except BaseException:
            with suppress(OSError):
                self._cut()
            raise
        return None if removed is None else [removal.path for removal in removed]

    def _write(self, file: int, entries: Sequence[Entry]) -> None:
        head, first = self._head, self._first
        lines = bytearray()
        new: set[str] = set()
        for record, documents in entries:
            for digest in documents.keys() - self._kept - new:
                line, head = seal(_data(record, digest, documents[digest]), head)
                lines += line
                new.add(digest)
            line, head = seal(record, head)
            lines += line
            first = first or Begun(self._head.seq + 1, str(record["time"]), self._head.hash)
        write(file, lines)
        os.fdatasync(file)
        # In place and of one length: it needs no new block, so it works where the log itself could be written.
        os.pwrite(self._head_file, json.dumps({"seq": head.seq, "hash": head.hash}).ljust(HEAD_BYTES).encode(), 0)
        self._head, self._first = head, first
        self._size += len(lines)
        self._kept |= new

    def _cut(self) -> None:
        """Half a batch on the disk would break the chain for all that follow.  Raises OSError: it is tried again."""
        assert self._file is not None
        self._is_whole = False
        os.ftruncate(self._file, self._size)
        self._is_whole = True

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    # -- what is on the disk --------------------------------------------------------------------------------------

    def _reach(self) -> None:
        """Open the log, create it, or complete its rotation, and find its end.  Raises AuditUnavailable.

        A last line that a crash cut short is moved aside; a tail that was cut off is refused.
        """
        try:
            claimed = claimed_head(self._path)
            settle(self._path)
        except ValueError as error:
            raise self._not_ours(str(error)) from error
        except OSError as error:
            raise self._unopened(error) from error
        is_new = not self._path.exists()
        if claimed is not None and is_new:
            raise self._not_ours(f"is missing, but had {claimed.seq} records")
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if is_new:
                sync_folder(self._path)
        except OSError as error:
            raise self._unopened(error) from error
        try:
            self._recover(self._file, claimed)
        except BaseException:
            self.close()
            raise

    def _recover(self, file: int, claimed: Head | None) -> None:
        size = os.fstat(file).st_size
        line, torn = last_line(file, size)
        if torn:
            self._set_aside(torn)
            log.warning("audit_torn_record", extra={"file": str(self._path), "bytes": len(torn)})
            size -= len(torn)
            os.ftruncate(file, size)
        try:
            head, first = parsed_head(line), begun(self._path)
        except ValueError as error:
            raise self._not_ours(str(error)) from error
        if claimed is not None and claimed.seq > head.seq:
            raise self._not_ours(f"ends at record {head.seq}, but had {claimed.seq}")
        self._size, self._head, self._first, self._kept = size, head, first, set()
        self._is_whole = True

    def _set_aside(self, torn: bytes) -> None:
        aside = self._path.with_name(self._path.name + ".torn")
        write_durably(aside, os.O_APPEND | os.O_CREAT, torn)

    def _look(self) -> None:
        """Is the file where it was, and as long?  Raises AuditUnavailable when another program was at it."""
        assert self._file is not None
        ours, there = os.fstat(self._file), None
        with suppress(FileNotFoundError):
            there = self._path.stat()
        if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise AuditUnavailable(
                f"the audit log {self._path} was moved or replaced by another program",
                remedy="Put it back under its name, and take it out of logrotate: see audit.rotate_bytes.",
            )
        if ours.st_size != self._size:
            raise self._not_ours(f"was {self._size} bytes long and is {ours.st_size}: another program wrote to it")

    def _is_due(self) -> bool:
        if self._first is None or time.monotonic() < self._not_before:
            return False
        age = datetime.now(UTC) - datetime.fromisoformat(self._first.time).astimezone(UTC)
        return self._keeping.is_due(self._size, age.total_seconds())

    def _rotated(self) -> list[Removal] | None:
        """Go on in a new file, and say what is to be removed; or in this one if that fails."""
        assert self._first is not None
        try:
            rotate(self._path, self._first, self._head, now())
        except (OSError, ValueError) as error:
            log.error("audit_rotation_failed", extra={"file": str(self._path), "error": str(error)})
            self._not_before = time.monotonic() + AGAIN_SECONDS
            self.close()
            self._reach()
            return None
        self.close()
        self._reach()
        return removals(self._path, self._keeping)

    def _unopened(self, error: OSError) -> AuditUnavailable:
        return AuditUnavailable(f"the audit log {self._path} cannot be opened: {error}")

    def _not_ours(self, what: str) -> AuditUnavailable:
        return AuditUnavailable(
            f"the audit log {self._path} {what}",
            remedy=f"Run `doorward audit verify {self._path}`, keep it, its {HEAD_SUFFIX} file and its closed files, "
            "and move them all away.",
        )


def _data(record: Mapping[str, Any], digest: str, value: Any) -> dict[str, Any]:
    """A document, under the ids of the first record that names it."""
    ids = {key: record[key] for key in IDS if key in record}
    return {**ids, "event": Step.DATA, "outcome": "kept", "digest": digest, "value": value}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
