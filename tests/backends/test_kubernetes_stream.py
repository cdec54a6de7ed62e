"""Kubernetes' channels over a WebSocket, however they are cut, and what no API server would send."""

from __future__ import annotations

import asyncio
import struct

import pytest

from gateway.backends.kubernetes.stream import PodStream, frame_head
from tests.backends.still import Sink, StillTransport

STDOUT, STDERR, ERROR = b"\x01", b"\x02", b"\x03"


def frame(payload: bytes, kind: int = 0x82) -> bytes:
    """As a server sends it: without a mask."""
    if len(payload) < 126:
        return struct.pack(">BB", kind, len(payload)) + payload
    if len(payload) < 2**16:
        return struct.pack(">BBH", kind, 126, len(payload)) + payload
    return struct.pack(">BBQ", kind, 127, len(payload)) + payload


MESSAGES = (
    frame(STDOUT + b"one")
    + frame(STDERR + b"oops\x1b[2J\nmore")
    + frame(STDOUT)
    + frame(b"")
    + frame(b"", 0x89)
    + frame(STDOUT + b"two" * 100)
    + frame(STDOUT + b"fragmented ", 0x02)
    + frame(b"in ", 0x00)
    + frame(b"", 0x89)
    + frame(b"three", 0x80)
    + frame(STDOUT + b"x" * 70_000)
    + frame(ERROR + b'{"status": "Failure", "message": "no such\\nprogram"}')
)
WRITTEN = b"one" + b"two" * 100 + b"fragmented in three" + b"x" * 70_000


def stream(sink: Sink, *, can_half_close: bool = True) -> tuple[PodStream, StillTransport]:
    transport = StillTransport()
    pod = PodStream(transport, "doorward-1", lambda _error: None, can_half_close)
    pod.connect(lambda: sink)
    return pod, transport


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 64, 1000, 1_000_000])
async def test_messages_come_through_however_they_are_cut(size: int, caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    pod, transport = stream(sink)
    for at in range(0, len(MESSAGES), size):
        pod.data_received(MESSAGES[at : at + size])
    pod.connection_lost(None)

    assert b"".join(sink.chunks) == WRITTEN
    assert transport.written.count(frame_head(0xA, 0)) == 2  # each ping has its answer
    assert not transport.aborted
    said = [(record.msg, getattr(record, "line", getattr(record, "why", ""))) for record in caplog.records]
    assert ("agent_stderr", "'oops\\x1b[2J'") in said
    assert ("pod_stream_ended", "'no such\\nprogram'") in said


@pytest.mark.parametrize(
    "nonsense",
    [frame(b"x", 0x81), frame(b"x", 0xC2), frame(b"x", 0x83), frame(b"y" * 126, 0x89), struct.pack(">BB", 0x82, 0x81)],
    ids=["text", "compressed", "unknown kind", "a long ping", "masked"],
)
async def test_what_no_api_server_sends_is_the_end(nonsense: bytes) -> None:
    sink = Sink()
    pod, transport = stream(sink)
    pod.data_received(nonsense + bytes(10) + frame(STDOUT + b"more"))
    assert pod.is_closing
    await asyncio.sleep(0)
    assert transport.aborted
    assert sink.chunks == []


async def test_a_pause_holds_within_what_was_received() -> None:
    sink = Sink()
    sink.pause_after = 1
    pod, _ = stream(sink)
    pod.data_received(frame(STDOUT + b"first") + frame(STDOUT + b"second"))
    assert sink.chunks == [b"first"]
    assert sink.transport is not None
    sink.transport.resume_reading()
    assert sink.chunks == [b"first", b"second"]


@pytest.mark.parametrize("length", [1, 124, 125, 65_534, 65_535, 65_536])
async def test_what_is_written_is_one_message_to_stdin(length: int) -> None:
    sink = Sink()
    _, transport = stream(sink)
    assert sink.transport is not None
    sink.transport.writelines([b"a" * (length - 1), b"b"])
    sent = b"".join(transport.written)
    assert sent == frame_head(0x2, length + 1) + b"\0" + b"a" * (length - 1) + b"b"
    assert sent[1] & 0x80  # masked, by nothing


@pytest.mark.parametrize("can_half_close", [True, False])
async def test_the_end_of_stdin_is_its_own_where_the_server_knows_that(can_half_close: bool) -> None:
    sink = Sink()
    _, transport = stream(sink, can_half_close=can_half_close)
    assert sink.transport is not None
    sink.transport.write_eof()
    sink.transport.write(b"late")
    await asyncio.sleep(0)
    sent = b"".join(transport.written)
    if can_half_close:
        assert sent == frame_head(0x2, 2) + b"\xff\0"
    assert transport.closed is not can_half_close


@pytest.mark.parametrize("can_half_close", [True, False])
async def test_an_end_without_anybody_to_write_is_that_of_stdin_or_of_all(can_half_close: bool) -> None:
    transport = StillTransport()
    pod = PodStream(transport, "doorward-1", lambda _error: None, can_half_close)
    pod.end()
    await asyncio.sleep(0)
    assert transport.written == ([frame_head(0x2, 2) + b"\xff\0"] if can_half_close else [])
    assert transport.aborted is not can_half_close
    pod.abort()
    pod.end()
    assert len(transport.written) == can_half_close


async def test_a_close_of_the_server_s_is_the_end() -> None:
    sink = Sink()
    pod, transport = stream(sink)
    pod.data_received(frame(b"\x03\xe8", 0x88))
    await asyncio.sleep(0)
    assert transport.closed
    pod.connection_lost(None)
    async with asyncio.timeout(1):
        await sink.lost.wait()
