"""The append-only audit log: JSON lines, hash-chained, fsynced before a step counts as done.

One writer task takes all records that wait, writes and fsyncs them as one batch (group commit), then lets their
callers go on: a hundred sessions cost one fsync, and none goes on unrecorded.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from gateway.audit.chain import canonical, head_file
from gateway.audit.retention import tidy
from gateway.audit.rotation import Keeping
from gateway.audit.writer import Entry, Writer, now
from gateway.concurrency import background, to_the_end
from gateway.errors import AuditUnavailable

log = logging.getLogger(__name__)

NO_DOCUMENTS: Mapping[str, Any] = {}
FOR_EVER = Keeping()


class AuditLog:
    """One open log.  `record` is the only way in."""

    def __init__(self, path: Path, writer: Writer, keeping: Keeping) -> None:
        self._path = path
        self._writer = writer
        self._keeping = keeping
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._pending: set[asyncio.Future[None]] = set()
        self._wake = asyncio.Event()
        self._untidy = asyncio.Event()
        self._removed: list[Path] = []
        """Closed files that are to be removed: it is on record."""
        self._tidying = asyncio.Lock()
        self._stop = threading.Event()
        self.failed = asyncio.Event()
        """Set while the log cannot be written; cleared by the first write that succeeds."""

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, keeping: Keeping = FOR_EVER) -> AsyncIterator[AuditLog]:
        """Open or create `path` (0600) and continue its chain.

        Raises AuditUnavailable when it cannot be written, is in use by another gateway, or its tail is not ours.  A
        last line that a crash cut short is moved to `<name>.torn`, so that nothing is lost.
        """
        with _owned(path) as heads:
            writer = Writer(path, heads, keeping)
            audit = cls(path, writer, keeping)
            try:
                async with background(audit._write_batches()), background(audit._tidy_up()):
                    yield audit
                    await audit._drained()
                    audit._stop.set()
                await audit._tidy(pack=False)
            finally:
                audit._stop.set()
                writer.close()

    async def record(self, event: str, fields: Mapping[str, Any], documents: Mapping[str, Any] = NO_DOCUMENTS) -> None:
        """Append one record; return when it is on the disk.  Raises AuditUnavailable.

        `documents` are what it names by their digests: each stands before it, once in every file, as a record `data`.
        A caller that is cancelled meanwhile still has its record.
        """
        try:
            canonical(fields)
        except (TypeError, ValueError, RecursionError) as error:  # its own fault alone: the batch is others' too
            raise AuditUnavailable("this cannot be put on record") from error
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.add(done)
        done.add_done_callback(self._pending.discard)
        self._waiting.append((({"time": now(), "event": event, **fields}, documents), done))
        self._wake.set()
        await asyncio.shield(done)

    async def _write_batches(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            try:
                removed = await to_the_end(asyncio.to_thread(self._writer.append, [entry for entry, _ in batch]))
            except (OSError, ValueError, AuditUnavailable) as error:
                remedy = {"remedy": error.reasons[0].remedy} if isinstance(error, AuditUnavailable) else {}
                log.error("audit_unwritable", extra={"file": str(self._path), "error": str(error), **remedy})
                self.failed.set()
                _settle(batch, error)
            else:
                self.failed.clear()
                _settle(batch, None)
                if removed is not None:
                    self._removed += removed
                    self._untidy.set()

    async def _tidy_up(self) -> None:
        """Remove and pack closed files, beside the writing: no record waits for it."""
        self._untidy.set()  # what another gateway left
        while True:
            await self._untidy.wait()
            self._untidy.clear()
            await self._tidy(pack=self._keeping.pack)

    async def _tidy(self, *, pack: bool) -> None:
        async with self._tidying:
            removed, self._removed = self._removed, []
            try:
                await to_the_end(asyncio.to_thread(tidy, self._path, removed, pack=pack, stop=self._stop))
            except OSError as error:
                log.error("audit_untidy", extra={"file": str(self._path), "error": str(error)})

    async def _drained(self) -> None:
        while self._pending:
            await asyncio.wait(self._pending)


def _settle(batch: list[tuple[Entry, asyncio.Future[None]]], error: Exception | None) -> None:
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
def _owned(path: Path) -> Iterator[int]:
    """The head file, open and locked: it stays where it is while the log's own file changes its name."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(head_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AuditUnavailable(f"the audit log {path} cannot be opened: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file
    except BlockingIOError as error:
        raise AuditUnavailable(f"the audit log {path} is in use by another gateway") from error
    finally:
        os.close(file)
