"""The append-only audit log: one JSONL file, hash-chained, fsynced before a step counts as done.

One writer task takes all records that wait, writes and fsyncs them as one batch (group commit), then lets their
callers go on: a hundred sessions cost one fsync, and none goes on unrecorded.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.audit.chain import GENESIS, HEAD_SUFFIX, Head, canonical, claimed_head, head_file, seal
from gateway.concurrency import background
from gateway.errors import AuditUnavailable

log = logging.getLogger(__name__)

CHUNK_BYTES = 2**20
HEAD_BYTES = 127


class AuditLog:
    """One open log.  `record` is the only way in."""

    def __init__(self, path: Path, file: int, head_file: int) -> None:
        self._path = path
        self._file = file
        self._head_file = head_file
        self._head: Head | None = _recover(path, file)
        """The last record; None when a write has failed half-way, and the file has to be asked."""
        self._waiting: list[tuple[Mapping[str, Any], asyncio.Future[None]]] = []
        self._pending: set[asyncio.Future[None]] = set()
        self._wake = asyncio.Event()
        self.failed = asyncio.Event()
        """Set while the log cannot be written; cleared by the first write that succeeds."""

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[AuditLog]:
        """Open or create `path` (0600) and continue its chain.

        Raises AuditUnavailable when it cannot be written, is in use by another gateway, or its tail is not ours.  A
        last line that a crash cut short is moved to `<name>.torn`, so that nothing is lost.
        """
        with _opened(path) as file, _opened(head_file(path)) as heads:
            audit = cls(path, file, heads)
            async with background(audit._write_batches()):
                yield audit
                await audit._drained()

    async def record(self, event: str, fields: Mapping[str, Any]) -> None:
        """Append one record; return when it is on the disk.  Raises AuditUnavailable.

        A caller that is cancelled meanwhile still has its record.
        """
        try:
            canonical(fields)
        except (TypeError, ValueError, RecursionError) as error:  # its own fault alone: the batch is others' too
            raise AuditUnavailable("this cannot be put on record") from error
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.add(done)
        done.add_done_callback(self._pending.discard)
        self._waiting.append(({"time": _now(), "event": event, **fields}, done))
        self._wake.set()
        await asyncio.shield(done)

    async def _write_batches(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            try:
                self._head = await asyncio.shield(asyncio.to_thread(self._append, [record for record, _ in batch]))
            except (OSError, ValueError, AuditUnavailable) as error:
                self._head = None
                log.error("audit_unwritable", extra={"file": str(self._path), "error": str(error)})
                self.failed.set()
                _settle(batch, error)
            else:
                self.failed.clear()
                _settle(batch, None)

    def _append(self, records: Sequence[Mapping[str, Any]]) -> Head:
        """Seal and write all of `records`, or none."""
        head = self._head or _recover(self._path, self._file)
        lines = bytearray()
        for record in records:
            line, head = seal(record, head)
            lines += line
        start = os.fstat(self._file).st_size
        try:
            _write(self._file, lines)
            os.fdatasync(self._file)
            # In place and of one length: it needs no new block, so it works where the log itself could be written.
            os.pwrite(self._head_file, json.dumps({"seq": head.seq, "hash": head.hash}).ljust(HEAD_BYTES).encode(), 0)
        except OSError:
            # Half a batch on the disk would break the chain for all that follow.
            os.ftruncate(self._file, start)
            raise
        return head

    async def _drained(self) -> None:
        while self._pending:
            await asyncio.wait(self._pending)


def _settle(batch: list[tuple[Mapping[str, Any], asyncio.Future[None]]], error: Exception | None) -> None:
    for _, done in batch:
        if done.done():
            continue  # its caller was cancelled
        if error is None:
            done.set_result(None)
        else:
            refusal = AuditUnavailable("the audit log cannot be written")
            refusal.__cause__ = error
            done.set_exception(refusal)
            done.exception()  # its caller may have been cancelled


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        append = 0 if path.suffix == HEAD_SUFFIX else os.O_APPEND
        file = os.open(path, os.O_RDWR | append | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AuditUnavailable(f"the audit log {path} cannot be opened: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file
    except BlockingIOError as error:
        raise AuditUnavailable(f"the audit log {path} is in use by another gateway") from error
    finally:
        os.close(file)


def _write(file: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _recover(path: Path, file: int) -> Head:
    """The last record.  A last line that a crash cut short is moved aside; a tail that was cut off is refused."""
    size = os.fstat(file).st_size
    line, torn = _last_line(file, size)
    if torn:
        path.with_name(path.name + ".torn").write_bytes(torn)
        log.warning("audit_torn_record", extra={"file": str(path), "bytes": len(torn)})
        os.ftruncate(file, size - len(torn))
    head = Head(0, GENESIS)
    if line:
        try:
            last = json.loads(line)
            head = Head(int(last["seq"]), str(last["hash"]))
        except (ValueError, KeyError, TypeError) as error:
            raise _not_ours(path, "does not end in a record") from error
    try:
        claimed = claimed_head(path)
    except ValueError as error:
        raise _not_ours(path, "has a head file that cannot be read") from error
    if claimed is not None and claimed.seq > head.seq:
        raise _not_ours(path, f"ends at record {head.seq}, but had {claimed.seq}")
    return head


def _last_line(file: int, size: int) -> tuple[bytes, bytes]:
    """The last whole line, and what stands behind it."""
    tail, start = b"", size
    while start > 0:
        length = min(CHUNK_BYTES, start)
        start -= length
        tail = os.pread(file, length, start) + tail
        if tail.count(b"\n") >= 2:
            break
    whole, newline, torn = tail.rpartition(b"\n")
    return (whole.rpartition(b"\n")[2], torn) if newline else (b"", tail)


def _not_ours(path: Path, what: str) -> AuditUnavailable:
    return AuditUnavailable(
        f"the audit log {path} {what}",
        remedy=f"Run `doorward audit verify {path}`, keep it and its {HEAD_SUFFIX} file, and move both away.",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
