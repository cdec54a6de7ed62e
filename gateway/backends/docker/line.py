"""A way past the engine for a workspace's bytes: a socket of ours, bound into the container, that the agent dials.

An engine copies an attach stream three times.  Where it runs on this machine, the bytes need not pass it: the socket
stands in a folder that is ours alone until the agent has come, which it does before anything else can run in there.
It lets in one and goes.  The attach stays as the lifeline (ADR 0040).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from gateway.backends.docker.attach import Attachment
from gateway.concurrency import first_done

log = logging.getLogger(__name__)
TARGET = "/.doorward-line"
COME_SECONDS = 10.0
"""For an agent that runs already: it comes, or says that it cannot, in milliseconds."""
STALE_SECONDS = 600.0


class Line:
    """One socket that waits for one agent."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        self._path = folder / uuid.uuid4().hex
        try:
            self._listener.bind(str(self._path))
            self._path.chmod(0o666)  # the workspace's user has another id; others do not get into the folder
            self._listener.listen(1)
        except OSError:
            self.close()
            raise

    def mount(self) -> dict[str, Any]:
        return {"Type": "bind", "Source": str(self._path), "Target": TARGET, "ReadOnly": True}

    async def asked(self) -> None:
        """Return when somebody has come: only asked for, so that nobody is lost with a wait that is cancelled."""
        came = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listener, came.set)
        try:
            await came.wait()
        finally:
            loop.remove_reader(self._listener)

    def accept(self) -> socket.socket | None:
        """Whoever came first, if anybody did."""
        try:
            came = self._listener.accept()[0]
        except BlockingIOError:
            return None
        came.setblocking(False)
        return came

    def close(self) -> None:
        self._listener.close()
        self._path.unlink(missing_ok=True)


class Lines:
    """Makes lines until it turns out that this engine's containers cannot reach them: it is tried, not guessed."""

    def __init__(self, state: Path | None) -> None:
        """Below `state`, the gateway's own folder; without one there are none."""
        self._folder = state / "lines" if state else None

    def new(self) -> Line | None:
        if self._folder is None:
            return None
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            _remove_stale(self._folder)
            return Line(self._folder)
        except OSError as error:
            self.are_useless(str(error))
            return None

    def are_useless(self, why: str) -> None:
        self._folder = None
        log.warning("docker_stream_passes_the_engine", extra={"why": why})

    async def taken(self, line: Line, attachment: Attachment) -> socket.socket | None:
        """The agent's end, or None where it cannot be had: the stream is the attachment then."""
        try:
            async with asyncio.timeout(COME_SECONDS):
                await first_done(line.asked(), attachment.first_word())
            came = line.accept()
        except TimeoutError:
            return None
        finally:
            line.close()
        if came is None and not attachment.is_lost:
            self.are_useless("the agent cannot reach the gateway's socket")
        return came


def _remove_stale(folder: Path) -> None:
    """Those of a gateway that was killed: none is needed for longer than its container takes to start."""
    before = time.time() - STALE_SECONDS
    for path in folder.iterdir():
        if path.lstat().st_mtime < before:
            path.unlink(missing_ok=True)
