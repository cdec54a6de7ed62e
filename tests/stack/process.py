"""Background processes that are ended by us and only by us: recorded with their start time, signalled by pidfd."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import random
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from tests.stack import StackError

PIDS = "pids.json"
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Running:
    """A process by what cannot be reused: its pid together with its start time and the boot."""

    name: str
    pid: int
    started: str
    log: str
    stop_signal: int = signal.SIGTERM

    def is_alive(self) -> bool:
        return _identity(self.pid) == self.started

    def end(self, seconds: float = 20) -> None:
        """Ask, wait, then kill.  Returns when it is gone; does nothing if it is, or if the pid is another's now."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.is_alive():  # checked after the handle is held: from here on it cannot become another's
                signal.pidfd_send_signal(handle, self.stop_signal)
                if not _ended(handle, seconds):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    _ended(handle, 5)
        finally:
            os.close(handle)
            with contextlib.suppress(ChildProcessError):  # reap it where it is our child
                os.waitpid(self.pid, os.WNOHANG)


@dataclass
class Processes:
    """The processes of one directory.  `attached`: they end with this process even if it is killed."""

    directory: Path
    attached: bool = True
    running: list[Running] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._file.exists():
            self.running = [Running(**entry) for entry in json.loads(self._file.read_text())]

    @property
    def _file(self) -> Path:
        return self.directory / PIDS

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: Path | None = None,
        stop_signal: int = signal.SIGTERM,
    ) -> Running:
        """Start in the background, output to `<name>.log` in the directory (0600: some tools print their tokens)."""
        log = self.directory / f"{name}.log"
        attached = self.attached and threading.current_thread() is threading.main_thread()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
                preexec_fn=partial(_end_with_parent, stop_signal) if attached else None,
                user=user,
                group=user,
                extra_groups=None if user is None else (),
            )
        finally:
            os.close(descriptor)
        running = Running(name, child.pid, _identity(child.pid), str(log), int(stop_signal))
        child.returncode = 0  # `Running` waits for it; this only keeps Popen from warning about a running child
        self.running.append(running)
        self._record()
        return running

    def end(self) -> None:
        """End all, the last started first."""
        while self.running:
            self.running[-1].end()
            self.running.pop()
            self._record()

    def _record(self) -> None:
        text = json.dumps([asdict(entry) for entry in self.running], indent=1)
        temporary = self._file.with_suffix(".new")
        temporary.write_text(text)
        temporary.rename(self._file)


def wait_until(check: Callable[[], bool], running: Running, *, seconds: float = 30) -> None:
    """Poll `check` until it holds.  Raises StackError with the log's end if the process ends or time runs out."""
    deadline = time.monotonic() + seconds
    while not check():
        if not running.is_alive() or time.monotonic() > deadline:
            said = Path(running.log).read_text(errors="replace")[-2000:]
            what = "did not answer" if running.is_alive() else "ended at once"
            raise StackError(f"{running.name} {what}; the end of its log:\n{said}")
        time.sleep(0.03)


_given: set[int] = set()


def free_port() -> int:
    """A loopback TCP port that is free, and that nobody takes who did not choose it.

    The kernel gives ports of `ip_local_port_range` to every connection that goes out and to every listener on port 0:
    one of those would be taken before whoever asked for it listens there, or listens there again.
    """
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    outside = [port for port in (*range(10_000, first), *range(last + 1, 65_536)) if port not in _given]
    while True:
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", random.choice(outside or [0])))
            except OSError:  # somebody chose it
                continue
            port: int = listener.getsockname()[1]
        _given.add(port)
        return port


def unprivileged(name: str) -> str | None:
    """Whom a server runs as that should not be, or refuses to be, root: `name`; None where this process is not root."""
    if os.geteuid() != 0:
        return None
    return name if name in {entry.pw_name for entry in pwd.getpwall()} else "nobody"


def write_secret(path: Path, value: str) -> Path:
    """A file only its owner can read, from its first byte on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(value)
    return path


def _identity(pid: int) -> str:
    """Start time in clock ticks, and the boot they count from; empty for a process that is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    state, started = stat[0], stat[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "" if state in "ZX" else f"{boot}:{started}"


def _ended(handle: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _end_with_parent(stop_signal: int) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, stop_signal)
