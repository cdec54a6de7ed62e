"""What remembers a running sandbox beyond this process: one small file each, so that a later gateway can reap.

The second line: bubblewrap dies with the gateway that started it.  A process is known by its pid, the time it started
and the boot, so a pid that was given to another process is never signalled.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
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


class Records:
    """The records of one gateway instance."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, session: SessionId, pid: int) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._file(session).with_suffix(".new")
        temporary.write_text(json.dumps(asdict(Record(session, pid, _started(pid)))))
        temporary.rename(self._file(session))

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
