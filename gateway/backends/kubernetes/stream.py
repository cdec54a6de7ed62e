"""The streams of a pod's container as asyncio transports: Kubernetes' channels over a WebSocket.

A message is a binary frame whose first byte is its channel
(https://kubernetes.io/docs/reference/using-api/websockets/).  `v5.channel.k8s.io` can close one of them, so stdin can
be half closed; an API server without it (before 1.30) takes `v4`, where the end of stdin is the end of all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import struct
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp

from gateway.backends.upgraded import Frames, UpgradedTransport, take_over

log = logging.getLogger(__name__)
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR = range(4)
CLOSE_CHANNEL = 255
CONTINUATION, BINARY, CLOSE, PING = 0x0, 0x2, 0x8, 0x9
PONG = 0xA
FINAL = 0x80
MASKED = 0x80
MAX_CONTROL = 125
MAX_WORDS = 4096
_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


async def upgrade(session: aiohttp.ClientSession, url: str, headers: dict[str, str], name: str) -> PodStream:
    """Open a WebSocket (RFC 6455) and take it over.  Raises aiohttp's errors and OSError.

    aiohttp's own WebSocket would queue and copy every message, and await each that is sent.
    """
    key = base64.b64encode(os.urandom(16))
    response = await session.get(
        url,
        headers={
            **headers,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": key.decode(),
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Protocol": ", ".join(PROTOCOLS),
        },
        timeout=aiohttp.ClientTimeout(total=None),
        read_until_eof=False,
    )
    chosen = response.headers.get("Sec-WebSocket-Protocol", "")
    accept = base64.b64encode(hashlib.sha1(key + _ACCEPT, usedforsecurity=False).digest()).decode()
    if response.status != 101:
        words = (await response.text())[:MAX_WORDS]
        raise aiohttp.ClientResponseError(
            response.request_info, response.history, status=response.status, message=words, headers=response.headers
        )
    if chosen not in PROTOCOLS or response.headers.get("Sec-WebSocket-Accept") != accept:
        response.close()
        raise ConnectionError("the API server did not agree to the channel protocol")
    return take_over(response, lambda transport, lost: PodStream(transport, name, lost, chosen == PROTOCOLS[0]))


class PodStream(Frames):
    """One exec or attach."""

    def __init__(self, transport: Any, name: str, lost: Callable[[Exception | None], None], can_half_close: bool):
        super().__init__(transport, name, lost)
        self.can_half_close = can_half_close
        self._fragmented: Callable[[bytes], None] = self.ignore
        self._words = b""

    def outer(self) -> UpgradedTransport:
        return _WebSocketTransport(self.transport, self)

    def end(self) -> None:
        """Stdin is at its end.  Unlike an abort this also reaches a container that the runtime has yet to join to it.

        By `v4` it is an abort.
        """
        if not self.can_half_close:
            self.abort()
        elif not self.is_closing:
            self.transport.write(frame_head(BINARY, 2) + bytes((CLOSE_CHANNEL, STDIN)))

    def head_bytes(self, head: bytearray) -> int:
        if len(head) < 2:
            return 2
        kind, length = head[0] & 0x0F, head[1] & 0x7F
        extended = {126: 4, 127: 10}.get(length, 2)
        # The channel is the first byte of a message: one that has it, and so one byte at least, brings it along.
        has_channel = kind == BINARY and length > 0
        return extended + has_channel

    def begin(self, head: bytes) -> tuple[Callable[[bytes], None], int]:
        kind, length = head[0] & 0x0F, head[1] & 0x7F
        at = 2
        if length == 126:
            (length,), at = struct.unpack_from(">H", head, 2), 4
        elif length == 127:
            (length,), at = struct.unpack_from(">Q", head, 2), 10
        if head[0] & 0x70 or head[1] & MASKED:
            raise ValueError("a frame with flags that nobody agreed to")
        if kind == BINARY:
            take = self._of_channel(head[at]) if length else self.ignore
            self._fragmented = self.ignore if head[0] & FINAL else take
            return take, max(0, length - 1)
        if kind == CONTINUATION:
            return self._fragmented, length
        if kind in (CLOSE, PING, PONG) and length <= MAX_CONTROL:
            if kind == CLOSE:
                self.close()
            elif kind == PING:
                self._pong(length)
            return self.ignore, length
        raise ValueError(f"a frame of kind {kind} with {length} bytes")

    def _pong(self, _length: int) -> None:
        """RFC 6455 section 5.5.3 wants the ping's data back; Kubernetes' are empty, and no server compares."""
        self.transport.write(frame_head(PONG, 0))

    def _of_channel(self, channel: int) -> Callable[[bytes], None]:
        if channel == STDOUT:
            return self.stdout
        if channel == STDERR:
            return self.stderr
        if channel == ERROR:
            self._words = b""
            return self._error
        return self.ignore

    def _error(self, data: bytes) -> None:
        """A `Status` when the command has ended, or could not start."""
        self._words = (self._words + data)[:MAX_WORDS]
        try:
            status = json.loads(self._words)
        except ValueError:
            return  # the rest is to come
        if isinstance(status, dict) and status.get("status") != "Success":
            text = ascii(str(status.get("message"))[:500])
            log.warning("pod_stream_ended", extra={"workspace": self._name, "why": text})


class _WebSocketTransport(UpgradedTransport):
    def __init__(self, raw: Any, stream: PodStream) -> None:
        super().__init__(raw, stream)
        self._stream = stream
        self._ended = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if len(data) and not self._ended and not self._stream.is_closing:
            self._raw.writelines((frame_head(BINARY, len(data) + 1) + bytes((STDIN,)), data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if not self._stream.can_half_close:
            self.close()
        elif not self._ended:
            self._ended = True
            self._stream.end()

    def close(self) -> None:
        if not self._stream.is_closing:
            self._raw.write(frame_head(CLOSE, 0))
        self._stream.close()


def frame_head(kind: int, length: int) -> bytes:
    """Head of a client's frame.  A client has to mask (RFC 6455 section 5.3) against proxies that a browser's script
    could confuse; there is none here, so the mask is zero, and what is sent goes out as it is."""
    if length < 126:
        head = struct.pack(">BB", FINAL | kind, MASKED | length)
    elif length < 2**16:
        head = struct.pack(">BBH", FINAL | kind, MASKED | 126, length)
    else:
        head = struct.pack(">BBQ", FINAL | kind, MASKED | 127, length)
    return head + bytes(4)
