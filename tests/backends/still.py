"""A transport on which nothing happens by itself, and a protocol that keeps what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from gateway.backends.upgraded import UpgradedTransport


class StillTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False
        self.closed = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        for data in list_of_data:
            self.write(data)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.aborted or self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


class Sink(asyncio.Protocol):
    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self.pause_after = 0
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, UpgradedTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data)
        if len(self.chunks) == self.pause_after and self.transport:
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
