"""One bubblewrap and the process it confines: started, held at its last step, released, waited for, killed.

Both are known by pidfd, never by number alone, and neither outlives this process (`--die-with-parent` is a
PR_SET_PDEATHSIG, which belongs to the *thread* that started it: call `start` on the event loop's own thread only).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import signal
import socket
import subprocess
from collections.abc import Sequence

log = logging.getLogger(__name__)

STDERR_BYTES = 16 * 2**10
SETUP_SECONDS = 5.0


class SandboxFailure(Exception):
    """What bubblewrap said when it could not set a workspace up."""


class Confined:
    """A process inside a sandbox.  `gone` is set when it and everything it started have ended."""

    def __init__(self, monitor: subprocess.Popen[bytes], info: int, hold: socket.socket, errors: int) -> None:
        self.gone = asyncio.Event()
        self.pid = 0
        self._monitor = monitor
        self._info = info
        self._hold = hold
        self._loop = asyncio.get_running_loop()
        self._errors = _Errors(self._loop, errors)
        self._monitor_ended = asyncio.Event()
        self._monitor_handle = os.pidfd_open(monitor.pid)
        self._handle = -1
        self._loop.add_reader(self._monitor_handle, self._on_monitor_ended)

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        arguments: Sequence[str],
        program: str,
        *,
        stream: socket.socket,
        descriptors: Sequence[int],
    ) -> Confined:
        """Start bubblewrap by `command`, its `arguments` out of sight of `ps`; it stops before it runs `program`."""
        info, info_inside = os.pipe2(os.O_CLOEXEC)
        errors, errors_inside = os.pipe2(os.O_CLOEXEC)
        hold, hold_inside = socket.socketpair()
        hold.setblocking(False)
        words = os.memfd_create("arguments")
        held = ["--info-fd", str(info_inside), "--block-fd", str(hold_inside.fileno())]
        try:
            os.write(words, b"".join(word.encode() + b"\0" for word in [*held, *arguments]))
            os.lseek(words, 0, os.SEEK_SET)
            monitor = subprocess.Popen(
                [*command, "--args", str(words), "--", program],
                stdin=stream.fileno(),
                stdout=stream.fileno(),
                stderr=errors_inside,
                pass_fds=(words, info_inside, hold_inside.fileno(), *descriptors),
                env={"PATH": os.environ.get("PATH", os.defpath)},
                cwd="/",
                start_new_session=True,  # a Ctrl-C at the gateway's terminal is the gateway's to handle
            )
        except BaseException:
            os.close(info)
            os.close(errors)
            hold.close()
            raise
        finally:
            os.close(words)
            os.close(info_inside)
            os.close(errors_inside)
            hold_inside.close()
        return cls(monitor, info, hold, errors)

    async def wait_held(self) -> None:
        """Return when the process exists, so that limits can be put on it.  Raises SandboxFailure."""
        async with asyncio.timeout(SETUP_SECONDS):
            told = await _read_all(self._loop, self._info)
        try:
            self.pid = int(json.loads(told)["child-pid"])
            self._handle = os.pidfd_open(self.pid)
        except (ValueError, KeyError, ProcessLookupError) as error:
            raise SandboxFailure(await self._words()) from error
        self._loop.add_reader(self._handle, self._on_gone)

    async def explain(self) -> SandboxFailure | None:
        """Why it is dead, if it is: then what was refused meanwhile was refused because of that."""
        ended = select.poll()
        ended.register(self._handle, select.POLLIN)
        return SandboxFailure(await self._words()) if ended.poll(0) else None

    async def release(self) -> None:
        """Let it take the last step; return when the whole sandbox is set up.  Raises SandboxFailure."""
        try:
            async with asyncio.timeout(SETUP_SECONDS):
                await self._loop.sock_sendall(self._hold, b"\0")
                # It reads the byte and closes its end: an orderly end says that everything before that step is done,
                # a reset that it died with the byte unread.
                await self._loop.sock_recv(self._hold, 1)
        except ConnectionError as error:
            raise SandboxFailure(await self._words()) from error

    def kill(self) -> None:
        """End everything inside at once.  Again is fine."""
        for handle in (self._handle, self._monitor_handle):
            if handle >= 0:
                try:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    async def wait_ended(self) -> int:
        """Return when both processes have ended, with the exit status as a shell tells it: 128+n for a signal."""
        await self._monitor_ended.wait()
        if self._handle >= 0:
            await self.gone.wait()
        status = self._monitor.returncode
        return 128 - status if status < 0 else status

    def close(self) -> None:
        """Give descriptors back.  After this `gone` is set, whatever became of the process."""
        for handle in (self._handle, self._monitor_handle):
            if handle >= 0:
                self._loop.remove_reader(handle)
                os.close(handle)
        self._handle = self._monitor_handle = -1
        if self._info >= 0:
            os.close(self._info)
            self._info = -1
        self._hold.close()
        self._errors.close()
        self._monitor.poll()
        self.gone.set()

    def _on_gone(self) -> None:
        self._loop.remove_reader(self._handle)
        self.gone.set()

    def _on_monitor_ended(self) -> None:
        self._loop.remove_reader(self._monitor_handle)
        self._monitor.poll()
        self._monitor_ended.set()

    async def _words(self) -> str:
        self.kill()
        try:
            async with asyncio.timeout(1):
                await self._errors.ended.wait()
        except TimeoutError:
            pass
        return self._errors.text() or "it ended without a word"


class _Errors:
    """The standard error of a workspace's first process: logged, up to a bound; drained beyond it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.ended = asyncio.Event()
        self._loop = loop
        self._descriptor = descriptor
        self._kept = bytearray()
        loop.add_reader(descriptor, self._on_readable)

    def text(self) -> str:
        return self._kept.decode(errors="replace").strip()

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self.ended.set()

    def _on_readable(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        room = STDERR_BYTES - len(self._kept)
        self._kept += data[:room]
        if room > 0:
            log.warning("sandbox_stderr", extra={"text": data[:room].decode(errors="replace")})


async def _read_all(loop: asyncio.AbstractEventLoop, descriptor: int) -> bytes:
    """Everything until the writer's end is closed."""
    os.set_blocking(descriptor, False)
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    parts = bytearray()
    try:
        while True:
            await readable.wait()
            readable.clear()
            try:
                data = os.read(descriptor, 4096)
            except BlockingIOError:  # the loop may have said it twice before it was read once
                continue
            if not data:
                return bytes(parts)
            parts += data
    finally:
        loop.remove_reader(descriptor)
