"""What aiohttp's server lets anybody do: open connections without end, and send a request in an hour.

Each connection has so long for the head of a request, counted from its beginning and from the last answer, which has
to be taken in the same time; a body has its own clock (`http.py`).  And there are so many connections, with a share for
each address.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any, cast

from aiohttp import web

log = logging.getLogger(__name__)

HEAD_SECONDS = 10.0
IDLE_SECONDS = 60.0
CONNECTIONS = 512
CONNECTIONS_OF_ONE = 128


class Guard:
    """A factory of protocols for `loop.create_server`, round aiohttp's own."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self.by_address: Counter[str] = Counter()
        self.by_handler: dict[int, _Guarded] = {}

    def __call__(self) -> asyncio.Protocol:
        return _Guarded(self, self._server())

    @web.middleware
    async def middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Stops the clock while a request is answered.  Goes outermost."""
        guarded = self.by_handler.get(id(request.protocol))
        if guarded is not None:
            guarded.stop_clock()
        try:
            answer: web.StreamResponse = await handler(request)
            return answer
        finally:
            if guarded is not None:
                guarded.start_clock(IDLE_SECONDS)

    def has_room_for(self, address: str) -> bool:
        return self.by_address.total() < CONNECTIONS and self.by_address[address] < CONNECTIONS_OF_ONE


class _Guarded(asyncio.Protocol):
    def __init__(self, guard: Guard, handler: asyncio.Protocol) -> None:
        self._guard = guard
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._address = ""
        self._is_in = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self._guard.has_room_for(self._address):
            log.warning("door_full", extra={"source": self._address})
            self._transport.abort()
            return
        self._is_in = True
        self._guard.by_address[self._address] += 1
        self._guard.by_handler[id(self._handler)] = self
        self.start_clock(HEAD_SECONDS)
        self._handler.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.stop_clock()
        if self._is_in:
            self._guard.by_address -= Counter([self._address])
            del self._guard.by_handler[id(self._handler)]
            self._handler.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._is_in:
            self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        return self._handler.eof_received() if self._is_in else None

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def start_clock(self, seconds: float) -> None:
        self.stop_clock()
        if self._transport is not None and not self._transport.is_closing():
            self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.abort)

    def stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
