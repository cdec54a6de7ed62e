"""A peer gets its share of the loop, and no more; private names of asyncssh 2.24.1, as in raw.py.

asyncssh acts on all that was read before it returns: a quarter of a megabyte of the smallest packets, which cost a peer
nothing, kept every other session waiting for a fifth of a second, again and again.  Here a connection works off what it
was sent in slices, and reads no more meanwhile.
"""

from __future__ import annotations

import time
from typing import Any

from asyncssh.connection import SSHConnection

SLICE_SECONDS = 0.003
STEP = 4096
"""Bytes between two looks at the clock: at worst a hundred packets.  asyncssh copies the rest of what it was given
twice for each packet in it."""
BULK_STEP = 64 * 1024
"""The same while data streams in, which takes the short way (express.py)."""


class Fair(SSHConnection):
    """First among the classes of a connection: whatever comes in passes here before anything else."""

    _bulk = False
    _held: bytes = b""

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        if self._held:
            self._held += data  # it was read before reading was paused
        else:
            self._work_off(data)

    def _work_off(self, data: bytes) -> None:
        ends, at = time.monotonic() + SLICE_SECONDS, 0
        while at < len(data) and self._transport is not None:
            step = BULK_STEP if self._bulk else STEP
            super().data_received(data[at : at + step])
            at += step
            if at < len(data) and time.monotonic() > ends:
                self._hold(data[at:])
                return

    def _hold(self, rest: bytes) -> None:
        if self._transport is not None:
            self._held = rest
            self._transport.pause_reading()
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        rest, self._held = self._held, b""
        if self._transport is None:
            return
        self._work_off(rest)
        if not self._held and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
