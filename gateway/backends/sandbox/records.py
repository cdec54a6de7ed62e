"""What remembers a running sandbox beyond this process: one small file each, so that a later gateway can reap.

The second line: bubblewrap dies with the gateway that started it.  A process is known by its pid, the time it started
and the boot, so a pid that was given to another process is never signalled.

`orphans` finds the one thing without a record: when the outer bubblewrap is killed in the instant between making the
inner one and letting it go on (bubblewrap 0.8), the inner one waits for ever.  It has not started anything.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import quote

from gateway.model import SessionId

log = logging.getLogger(__name__)

KILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Record:
    session: SessionId
    pid: int
    started: str
    started_for: str = ""
    """Where that was another session than the one whose it is."""

    @property
    def owner(self) -> SessionId:
        """Whom it was started for: its cgroup's name."""
        return SessionId(self.started_for) or self.session

    def end(self) -> bool:
        """Kill it if it is still the same process; whether it has ended.  Blocks."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if _started(self.pid) != self.started:  # looked at with the handle held, so it is this process or none
                return True
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            ended = select.poll()
            ended.register(handle, select.POLLIN)
            if ended.poll(KILL_SECONDS * 1000):
                return True
            log.error("sandbox_not_killed", extra={"session": self.session, "pid": self.pid})
            return False
        except ProcessLookupError:
            return True
        finally:
            os.close(handle)


def orphans(program: str) -> list[int]:
    """Handles (pidfds, the caller's to close) of inner bubblewraps before `program` that nobody will let go on."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _is_waiting(entry, program):
            try:
                handle = os.pidfd_open(int(entry.name))
            except ProcessLookupError:
                continue
            if _is_waiting(entry, program) and not _is_bubblewrap(_parent(entry), program):
                found.append(handle)
            else:
                os.close(handle)
    return found


def end_orphans(program: str) -> int:
    """Kill them; how many there were.  Blocks."""
    handles = orphans(program)
    for handle in handles:
        with suppress(ProcessLookupError, PermissionError):  # another account's is its own to end
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
    return len(handles)


def _is_waiting(entry: Path, program: str) -> bool:
    """Whether it is a bubblewrap that is the first process of a namespace below ours."""
    return _is_bubblewrap(entry, program) and _status(entry, "NSpid").split()[1:] == ["1"]


def _is_bubblewrap(entry: Path, program: str) -> bool:
    try:
        words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return False
    return words[0].rpartition(b"/")[2] == b"bwrap" and words[-2:] == [b"--", program.encode()]


def _parent(entry: Path) -> Path:
    return entry.parent / (_status(entry, "PPid") or "0")


def _status(entry: Path, name: str) -> str:
    try:
        lines = (entry / "status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")), "")


class Records:
    """The records of one gateway instance."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, session: SessionId, pid: int) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write(Record(session, pid, _started(pid)))

    def rebind(self, before: SessionId, session: SessionId) -> Record:
        """Make the record of `before` that of `session`; what is then on the disk.  Raises OSError or ValueError."""
        found = Record(**json.loads(self._file(before).read_text()))
        self._write(replace(found, session=session, started_for=found.owner))
        self.remove(before)
        return Record(**json.loads(self._file(session).read_text()))

    def _write(self, record: Record) -> None:
        temporary = self._file(record.session).with_suffix(".new")
        temporary.write_text(json.dumps(asdict(record)))
        temporary.rename(self._file(record.session))

    def remove(self, session: SessionId) -> None:
        self._file(session).unlink(missing_ok=True)

    def all(self) -> Iterator[Record]:
        for file in sorted(self._directory.glob("*.json")):
            try:
                yield Record(**json.loads(file.read_text()))
            except FileNotFoundError:
                continue
            except (ValueError, TypeError):
                log.error("sandbox_record_unreadable", extra={"file": str(file)})

    def _file(self, session: SessionId) -> Path:
        return self._directory / f"{quote(session, safe='')}.json"


def _started(pid: int) -> str:
    """The boot and the start time of `pid`; empty when there is none."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{after_name[19]}"
