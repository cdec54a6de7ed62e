"""The event loop that the gateway runs on: uvloop's, with one defect of its TLS mended."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop

from gateway.concurrency import cancel_and_wait, to_the_end

TURNS = 3
"""Of the loop, until uvloop awaits the handshake: the task begins, the connection is made, the task hears of that."""


class Loop(uvloop.Loop):
    async def create_connection(self, *args: Any, **given: Any) -> Any:
        """As uvloop's.  A TLS connection over a connected socket (aiohttp's way) may be cancelled at any time.

        uvloop 0.23 closes the socket beneath its TLS when it is cancelled just before it awaits the handshake.  Where
        the server's answer is there by then (a busy loop), TLS goes on to write, and logs `Fatal error on SSL protocol`
        with `the handler is closed`.  So a cancellation is held back until the handshake is awaited: for some turns.
        """
        opening = super().create_connection(*args, **given)
        if not given.get("ssl") or given.get("sock") is None:
            return await opening
        task = asyncio.ensure_future(opening)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await to_the_end(_left(task))
            raise
        return task.result()


async def _left(opening: asyncio.Task[Any]) -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)
    await cancel_and_wait([opening])
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].abort()
