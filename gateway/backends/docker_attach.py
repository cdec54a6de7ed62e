"""Docker's attach stream as an asyncio transport.

The engine's HTTP connection itself becomes the transport of whoever speaks to the agent: nothing is queued, copied or
awaited in between but docker's eight-byte frame headers, which are taken out on the way (half the throughput was lost
when a socket pair stood here).
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Iterable
from typing import Any

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError

from gateway.backends import ProtocolFactory
from gateway.backends.docker_engine import url

log = logging.getLogger(__name__)
HEADER = struct.Struct(">BxxxL")
STDOUT = 1
STREAMS = 3  # stdin, stdout, stderr, and the engine's own complaints
LINE_BYTES = 1000
LINES = 50


async def attach(docker: aiodocker.Docker, container: str) -> Attachment:
    """Attach to all three streams of a container.  Raises DockerError, aiohttp's errors and OSError."""
    response = await docker.session.post(
        url(docker, f"containers/{container}/attach"),
        params={"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1"},
        headers={"Connection": "Upgrade", "Upgrade": "tcp"},
        timeout=aiohttp.ClientTimeout(total=None),
        read_until_eof=False,
    )
    connection = response.connection
    if response.status != 101 or connection is None or connection.protocol is None:
        response.close()
        raise DockerError(response.status, "attach did not upgrade the connection")
    http, transport = connection.protocol, connection.transport
    if transport is None:
        response.close()
        raise DockerError(900, "attach was cut off")

    def lost(error: Exception | None) -> None:
        http.connection_lost(error)  # aiohttp counts this connection as open until it hears so
        response.close()

    early = _Early()
    http.set_parser(early, None)  # hands over at once what came together with the engine's answer
    attachment = Attachment(transport, container, lost)
    transport.set_protocol(attachment)
    attachment.data_received(bytes(early.received))
    return attachment


class _Early:
    """What aiohttp gives the bytes after an upgrade to."""

    def __init__(self) -> None:
        self.received = bytearray()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.received += data
        return False, b""

    def feed_eof(self) -> None:
        pass


class Attachment(asyncio.Protocol):
    """Takes the frames apart: stdout to the protocol that `connect` brings, stderr to the log."""

    def __init__(self, transport: asyncio.Transport, container: str, lost: Callable[[Exception | None], None]) -> None:
        self._transport = transport
        self._lost = lost
        self._stderr = _Stderr(container)
        self._inner: asyncio.Protocol | None = None
        self._head = b""
        self._stream = STDOUT
        self._rest = 0  # of the current frame
        self._held = b""  # came before there was anyone to have it, or while they had paused
        self._paused = True
        self.is_lost = False
        transport.pause_reading()

    def connect(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Hand over the stream.  Once."""
        self._inner = factory()
        outer = AttachTransport(self._transport, self)
        self._inner.connection_made(outer)
        self.resume()
        return outer, self._inner

    def abort(self) -> None:
        self._transport.abort()

    def pause(self) -> None:
        self._paused = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._paused:
            return
        self._paused = False
        held, self._held = self._held, b""
        self.data_received(held)
        if not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def is_reading(self) -> bool:
        return not self._paused and not self._transport.is_closing()

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
                missing = HEADER.size - len(self._head)
                self._head += data[at : at + missing]
                at += missing
                if len(self._head) == HEADER.size and not self._begin_frame():
                    return

    def _begin_frame(self) -> bool:
        self._stream, self._rest = HEADER.unpack(self._head)
        self._head = b""
        if self._stream > STREAMS:
            log.error("docker_stream_broken", extra={"stream": self._stream})
            self._transport.abort()
            return False
        return True

    def _deliver(self, data: bytes) -> None:
        if not data or self._transport.is_closing():
            return
        if self._stream != STDOUT:
            self._stderr.feed(data)
        elif self._inner is not None:
            self._inner.data_received(data)

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
        if self._inner is not None:
            self._inner.connection_lost(exc)


class _Stderr:
    """The agent's complaints, one log line each, and no more than a few: what runs inside is not trusted."""

    def __init__(self, container: str) -> None:
        self._container = container
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
            log.warning("agent_stderr", extra={"container": self._container[:12], "line": text})

    def end(self) -> None:
        if self._line:
            self.feed(b"\n")


class AttachTransport(asyncio.Transport):
    """The engine connection's transport, as the agent's client sees it."""

    def __init__(self, raw: asyncio.Transport, attachment: Attachment) -> None:
        super().__init__(extra={"peername": ("docker", 0), "sockname": ("docker", 0)})
        self._raw = raw
        self._attachment = attachment

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._raw.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self._raw.writelines(list_of_data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._raw.can_write_eof():
            self._raw.write_eof()
        else:
            self._raw.close()  # TLS cannot be half closed: the agent gets its EOF all the same

    def close(self) -> None:
        self._raw.close()

    def abort(self) -> None:
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def is_reading(self) -> bool:
        return self._attachment.is_reading

    def pause_reading(self) -> None:
        self._attachment.pause()

    def resume_reading(self) -> None:
        self._attachment.resume()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()
