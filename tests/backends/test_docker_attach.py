"""Docker's frames, taken apart: no byte lost, none held longer than it must be, none believed that is not docker's."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiodocker
import pytest
from aiodocker.exceptions import DockerError

from gateway.backends.docker.attach import Attachment, attach
from gateway.backends.docker.engine import connect
from tests.backends.still import Sink, StillTransport
from tests.waiting import SECONDS


def frame(stream: int, payload: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(payload)) + payload


FRAMES = frame(1, b"one") + frame(2, b"oops\x1b[2J\nmore") + frame(1, b"") + frame(1, b"two" * 100) + frame(1, b"three")
STDOUT = b"one" + b"two" * 100 + b"three"


def attached(sink: Sink) -> Attachment:
    attachment = Attachment(StillTransport(), "c0ffee", lambda _error: None)
    attachment.connect(lambda: sink)
    return attachment


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 11, 64, 1000])
async def test_frames_come_through_however_they_are_cut(size: int, caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    attachment = attached(sink)
    for at in range(0, len(FRAMES), size):
        attachment.data_received(FRAMES[at : at + size])
    attachment.connection_lost(None)
    assert b"".join(sink.chunks) == STDOUT
    assert sink.lost.is_set()
    assert [record.line for record in caplog.records] == ["'oops\\x1b[2J'", "'more'"]  # type: ignore[attr-defined]


async def test_a_pause_holds_for_what_has_been_read_already() -> None:
    sink = Sink()
    sink.pause_after = 1
    attachment = attached(sink)
    attachment.data_received(FRAMES)
    attachment.data_received(frame(1, b"four"))
    assert sink.chunks == [b"one"]
    assert sink.transport is not None
    sink.transport.resume_reading()
    assert b"".join(sink.chunks) == STDOUT + b"four"


async def test_a_stream_that_is_not_docker_s_is_cut_off() -> None:
    sink = Sink()
    attachment = attached(sink)
    attachment.data_received(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")
    assert attachment.is_closing
    assert sink.chunks == []


UPGRADED = (
    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)
VERSION = b'{"ApiVersion": "1.41"}'


@asynccontextmanager
async def engine(path: Path, answer: bytes) -> AsyncIterator[aiodocker.Docker]:
    """Something that answers every attach with these bytes at once, echoes one message, and hangs up on EOF."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readuntil(b"\r\n\r\n"):
            if b"/version" in request:
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n" + VERSION
                )
                continue
            writer.write(answer)
            writer.write(frame(1, b"heard " + await reader.read()))
            break
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        closed.set()

    closed = asyncio.Event()

    async with await asyncio.start_unix_server(serve, path):
        async with connect(f"unix://{path}") as docker:
            await docker.version()
            yield docker
        await closed.wait()


async def test_what_comes_together_with_the_upgrade_is_not_lost(tmp_path: Path) -> None:
    sink = Sink()
    async with engine(tmp_path / "engine.sock", UPGRADED + FRAMES) as docker:
        attachment = await attach(docker, "c0ffee")
        transport, _ = attachment.connect(lambda: sink)
        transport.write(b"me")
        transport.write_eof()
        async with asyncio.timeout(SECONDS):
            await sink.lost.wait()
    assert b"".join(sink.chunks) == STDOUT + b"heard me"
    assert transport.is_closing()


async def test_an_attach_that_is_refused_is_an_error(tmp_path: Path) -> None:
    refusal = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with engine(tmp_path / "engine.sock", refusal) as docker:
        with pytest.raises(DockerError):
            await attach(docker, "c0ffee")
