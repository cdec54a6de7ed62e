"""Programs that run for the gateway and end with it, even when it is killed.

`setpriv --pdeathsig` asks the kernel to signal the child when the *thread* that started it ends: enter `child` on the
main thread's event loop only.  A child is signalled by pidfd, never by a number that may be another's by now.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.concurrency import to_the_end
from gateway.errors import DoorwardError

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02
KILL_SECONDS = 5.0
LOG_BYTES = 16 * 2**20
TAIL_BYTES = 1500


class ChildUnavailable(DoorwardError):
    """A program that the gateway runs for itself could not be had."""

    code = "embedded_unavailable"
    remedy = "The program's log is in the state directory."


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a child runs as, where this process is root and the child must not be."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Command:
    """What to run.  Its output is appended to `log_file` (0600), which is moved aside at the start when it is large.

    `death_signal` comes when the gateway dies, `stop_signal` when the context is left; KILL after `stop_seconds`.
    """

    name: str
    words: Sequence[str]
    log_file: Path
    account: Account | None = None
    descriptors: Sequence[int] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 5.0


class Child:
    """A running program."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._process = _start(command)
        self.pid = self._process.pid
        self._handle = os.pidfd_open(self.pid)
        self._loop.add_reader(self._handle, self._on_end)

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    async def wait_ended(self) -> int:
        """Return its exit status (negative: by that signal) when it has ended.  Cancelling it changes nothing."""
        await self._ended.wait()
        return int(self._process.returncode)

    async def wait_ready(self, ready: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Poll `ready` until it holds.  Raises ChildUnavailable, with the log's last words, if it ends or is late."""
        name, file = self.command.name, self.command.log_file
        try:
            async with asyncio.timeout(seconds):
                while not await ready():
                    if self.has_ended:
                        raise ChildUnavailable(f"{name} ended while starting: {tail(file)}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise ChildUnavailable(f"{name} did not answer within {seconds:g} s: {tail(file)}") from error

    async def stop(self) -> None:
        """Ask, wait, kill; return when it is gone.  Again is fine."""
        for number, seconds in ((self.command.stop_signal, self.command.stop_seconds), (signal.SIGKILL, KILL_SECONDS)):
            if self.has_ended:
                break
            self._signal(number)
            try:
                async with asyncio.timeout(seconds):
                    await self._ended.wait()
            except TimeoutError:
                log.warning("child_slow", extra={"child": self.command.name, "signal": number.name})
        self._close()

    def _signal(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self._handle, number)
        except ProcessLookupError:
            return

    def _on_end(self) -> None:
        self._loop.remove_reader(self._handle)
        self._process.wait()
        self._ended.set()

    def _close(self) -> None:
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1


@asynccontextmanager
async def child(command: Command, ready: Callable[[], Awaitable[bool]], *, seconds: float = 15) -> AsyncIterator[Child]:
    """A program that is ready while the body runs and gone afterwards.  Raises ChildUnavailable."""
    started = Child(command)
    try:
        await started.wait_ready(ready, seconds)
        yield started
    finally:
        await to_the_end(started.stop())


async def run_once(command: Command, *, seconds: float) -> None:
    """Run a program to its end.  Raises ChildUnavailable, with the log's last words, for any status but 0."""
    started = Child(command)
    try:
        async with asyncio.timeout(seconds):
            status = await started.wait_ended()
    except TimeoutError as error:
        raise ChildUnavailable(f"{command.name} did not end within {seconds:g} s") from error
    finally:
        await to_the_end(started.stop())
    if status != 0:
        raise ChildUnavailable(f"{command.name} failed with status {status}: {tail(command.log_file)}")


def steady_port(file: Path) -> int:
    """A free loopback port, the one noted in `file` where that is free, so that a restart keeps the address."""
    try:
        noted = int(file.read_text())
    except (OSError, ValueError):
        noted = 0
    for port in (noted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found = int(probe.getsockname()[1])
        file.write_text(str(found))
        return found
    raise ChildUnavailable("no loopback port is free")


def tail(file: Path) -> str:
    """The last words of a log, in one line."""
    try:
        words = file.read_bytes()[-TAIL_BYTES:].decode(errors="replace").split()
    except OSError:
        return "(no log)"
    return " ".join(words)[-400:]


def _start(command: Command) -> subprocess.Popen[bytes]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ChildUnavailable("setpriv is not installed", remedy="Install the package `util-linux`.")
    words = [setpriv, f"--pdeathsig={command.death_signal.name}"]
    if command.account is not None:
        account = command.account
        words += [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", "--inh-caps=-all"]
    output = _open_log(command.log_file)
    try:
        return subprocess.Popen(
            [*words, "--", *command.words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=command.descriptors,
            cwd="/",
            start_new_session=True,  # a Ctrl-C at the gateway's terminal is the gateway's to handle
        )
    finally:
        os.close(output)


def _open_log(file: Path) -> int:
    if file.exists() and file.stat().st_size > LOG_BYTES:
        file.rename(file.with_name(file.name + ".1"))
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
