"""What a conversation did, noted and put on record a moment later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.errors import DoorwardError
from gateway.ssh.sftp.handles import Handle
from gateway.ssh.sftp.ledger import BATCH_SECONDS, MAX_BACKLOG, Ledger
from gateway.ssh.sftp.line import Line
from gateway.ssh.sftp.operations import Request


class Recorder:
    """`on_room` is called when a batch is on the disk, `on_failure` when one cannot be written."""

    def __init__(self, line: Line, on_room: Callable[[], None], on_failure: Callable[[DoorwardError], None]) -> None:
        self.ledger = Ledger()
        self._line = line
        self._on_room = on_room
        self._on_failure = on_failure
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._failed = False

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for the disk that no more should be done."""
        return self.ledger.backlog >= MAX_BACKLOG

    def note(self, asked: Request, outcome: str, handle: Handle | None, paths: tuple[bytes, ...], **facts: Any) -> None:
        """`paths` as the client wrote them, where they are not known better."""
        for key, path in zip(("path", "to"), paths, strict=False):
            facts[key] = shown(path)
        if handle is not None:
            facts["path"] = handle.path
            if asked.form.name == "close" and handle.operation == "open":
                facts |= {"bytes_read": handle.bytes_read, "bytes_written": handle.bytes_written}
        if flags := asked.parsed.facts.get("flags"):
            facts["flags"] = ",".join(flags)
        self.ledger.note(asked.form.name, outcome, looks=asked.form.looks, **facts)
        self._soon()

    def refused(self, name: str) -> None:
        """An extension that is not offered.  Its name is the client's: it is shown, and nothing is counted by it."""
        self.ledger.note("extension", "refused", looks=True, name=name)
        self._soon()

    def cut(self, handle: Handle) -> None:
        """An open file whose channel has gone."""
        if handle.operation == "open":
            read, written = handle.bytes_read, handle.bytes_written
            self.ledger.note("close", "cut", path=handle.path, bytes_read=read, bytes_written=written)

    def end(self) -> None:
        """Nothing more will be noted: what waits is put on record now, or is in the session's last record."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._flush()

    def _soon(self) -> None:
        if self.ledger.is_due:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self._ended:
            self._flush()

    def _flush(self) -> None:
        """Taken in this very turn: an entry is in a batch or in the session's last record, and never in both.

        After a batch that could not be written nothing is taken any more: whoever reads the last record then must not
        find that a second try, as vain, has just taken it out.
        """
        taken = [] if self._failed else self.ledger.take()
        if taken and not self._line.start(self._write(taken)):
            self.ledger.written(taken, failed=True)

    async def _write(self, taken: list[dict[str, Any]]) -> None:
        try:
            await self._line.record(taken)
        except DoorwardError as error:
            self._failed = True
            self.ledger.written(taken, failed=True)
            self._on_failure(error)
            return
        self.ledger.written(taken)
        self._on_room()


def shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
