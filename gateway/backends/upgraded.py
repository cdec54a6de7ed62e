"""An HTTP connection that was upgraded, taken over from aiohttp to be the transport of whoever speaks to the agent.

Nothing is queued, copied or awaited in between but the frame headers, which a `Frames` of each protocol takes out on
the way (half the throughput was lost when a socket pair stood here).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import aiohttp

from gateway.backends import ProtocolFactory

log = logging.getLogger(__name__)
F = TypeVar("F", bound="Frames")
LINE_BYTES = 1000
LINES = 50


def take_over(response: aiohttp.ClientResponse, frames: Callable[[asyncio.Transport, Callable[..., None]], F]) -> F:
    """Give the connection under an answer with status 101 to `frames(transport, lost)`.

    Raises ConnectionError when it has gone meanwhile.
    """
    connection = response.connection
    http = connection.protocol if connection is not None else None
    transport = connection.transport if connection is not None else None
    if http is None or transport is None:
        response.close()
        raise ConnectionError("the upgraded connection was cut off")

    def lost(error: Exception | None) -> None:
        http.connection_lost(error)  # aiohttp counts this connection as open until it hears so
        response.close()

    early = _Early()
    http.set_parser(early, None)  # hands over at once what came together with the answer
    taken = frames(transport, lost)
    transport.set_protocol(taken)
    taken.data_received(bytes(early.received))
    return taken


class _Early:
    """A parser that keeps what it is given."""

    def __init__(self) -> None:
        self.received = bytearray()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.received += data
        return False, b""

    def feed_eof(self) -> None:
        pass


class Frames(asyncio.Protocol):
    """Takes frames apart: stdout to the protocol that `connect` brings, stderr to the log.

    A subclass says in `begin` what a frame's head means, and in `outer` how to write.
    """

    def __init__(self, transport: asyncio.Transport, name: str, lost: Callable[[Exception | None], None]) -> None:
        self.transport = transport
        self.is_lost = False
        self._is_left = False
        self.on_lost: Callable[[], None] = lambda: None
        self._lost = lost
        self._name = name
        self._stderr = _Stderr(name)
        self._inner: asyncio.Protocol | None = None
        self._head = bytearray()
        self._take: Callable[[bytes], None] = self.ignore
        self._rest = 0  # of the current frame
        self._held = b""  # came before there was anyone to have it, or while they had paused
        self._paused = True
        transport.pause_reading()

    def head_bytes(self, head: bytearray) -> int:
        """How long the head is, as far as `head`, its beginning, tells."""
        raise NotImplementedError

    def begin(self, head: bytes) -> tuple[Callable[[bytes], None], int]:
        """Who takes the content of the frame with this head, and how long it is.  Raises ValueError for nonsense."""
        raise NotImplementedError

    def outer(self) -> UpgradedTransport:
        return UpgradedTransport(self.transport, self)

    def connect(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Hand over the stream.  Once."""
        self._inner = factory()
        outer = self.outer()
        self._inner.connection_made(outer)
        self.resume()
        return outer, self._inner

    @property
    def is_closing(self) -> bool:
        return self._is_left or self.transport.is_closing()

    def abort(self) -> None:
        self._leave(self.transport.abort)

    def close(self) -> None:
        self._leave(self.transport.close)

    def _leave(self, how: Callable[[], None]) -> None:
        """A turn later: uvloop's TLS does not take it from within what it is just delivering."""
        self._is_left = True
        asyncio.get_running_loop().call_soon(how)

    def pause(self) -> None:
        self._paused = True
        if not self.is_closing:
            self.transport.pause_reading()

    def resume(self) -> None:
        if not self._paused:
            return
        self._paused = False
        held, self._held = self._held, b""
        self.data_received(held)
        if not self._paused and not self.is_closing:
            self.transport.resume_reading()

    @property
    def is_reading(self) -> bool:
        return not self._paused and not self.is_closing

    def data_received(self, data: bytes) -> None:
        if self._rest >= len(data) and not self._paused:  # the inside of a large frame: as it came
            self._rest -= len(data)
            self._deliver(data)
            return
        at, end = 0, len(data)
        while at < end:
            if self._paused:  # a pause holds from now on, not from the next read on
                self._held += data[at:]
                return
            if self._rest:
                part = data[at : at + self._rest]
                at += len(part)
                self._rest -= len(part)
                self._deliver(part)
            else:
                part = data[at : at + self.head_bytes(self._head) - len(self._head)]
                at += len(part)
                self._head += part
                if len(self._head) == self.head_bytes(self._head) and not self._begin():
                    return

    def _begin(self) -> bool:
        head, self._head = bytes(self._head), bytearray()
        try:
            self._take, self._rest = self.begin(head)
        except ValueError as error:
            log.error("stream_broken", extra={"workspace": self._name, "error": str(error)})
            self.abort()
            return False
        return True

    def _deliver(self, data: bytes) -> None:
        if data and not self.is_closing:
            self._take(data)

    def stdout(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def stderr(self, data: bytes) -> None:
        self._stderr.feed(data)

    def ignore(self, _data: bytes) -> None:
        pass

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._stderr.end()
        self._lost(exc)
        self.on_lost()
        if self._inner is not None:
            self._inner.connection_lost(exc)


class _Stderr:
    """The agent's complaints, one log line each, and no more than a few: what runs inside is not trusted."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._line = b""
        self._lines = 0

    def feed(self, data: bytes) -> None:
        if self._lines >= LINES:
            return
        *lines, self._line = (self._line + data[: LINE_BYTES * LINES]).split(b"\n")
        if len(self._line) > LINE_BYTES:
            lines, self._line = [*lines, self._line], b""
        for line in lines[: LINES - self._lines]:
            self._lines += 1
            text = ascii(line[:LINE_BYTES].decode(errors="replace"))
            log.warning("agent_stderr", extra={"container": self._name, "line": text})

    def end(self) -> None:
        if self._line:
            self.feed(b"\n")


class UpgradedTransport(asyncio.Transport):
    """The runtime's connection, as the agent's client sees it."""

    def __init__(self, raw: asyncio.Transport, frames: Frames) -> None:
        super().__init__(extra={"peername": ("workspace", 0), "sockname": ("workspace", 0)})
        self._raw = raw
        self._frames = frames

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._frames.is_closing:
            self._raw.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        if not self._frames.is_closing:
            self._raw.writelines(list_of_data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._raw.can_write_eof():
            self._raw.write_eof()
        else:
            self._frames.close()  # TLS cannot be half closed: the agent gets its EOF all the same

    def close(self) -> None:
        self._frames.close()

    def abort(self) -> None:
        self._frames.abort()

    def is_closing(self) -> bool:
        return self._frames.is_closing

    def is_reading(self) -> bool:
        return self._frames.is_reading

    def pause_reading(self) -> None:
        self._frames.pause()

    def resume_reading(self) -> None:
        self._frames.resume()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()
