"""A door before the real OPA that a test can close: what comes waits at it, or is turned away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.policy.servers import read_request, talking
from tests.stack.opa import Opa
from tests.waiting import until


class Gate:
    """Open at first.  Only decisions on files are stopped: the others keep the session alive."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._refusing = False
        self._waiting = 0

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._refusing = False
        self._open.set()

    def refuse(self) -> None:
        """Hang up on every decision on a file."""
        self._refusing = True

    async def waiting(self) -> None:
        """Return when a decision waits."""
        await until(lambda: self._waiting > 0)

    async def pass_through(self, request: bytes) -> bool:
        if b'"kind": "sftp"' not in request and b'"kind":"sftp"' not in request:
            return True
        self._waiting += 1
        try:
            await self._open.wait()
        finally:
            self._waiting -= 1
        return not self._refusing


@asynccontextmanager
async def delaying(opa: Opa) -> AsyncIterator[tuple[str, Gate]]:
    """Another address of the same OPA: a gateway that asks there can be made to wait."""
    gate = Gate()
    real = urlsplit(opa.url)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(real.hostname, real.port)

        async def answers() -> None:
            while data := await back.read(65536):
                writer.write(data)
                await writer.drain()

        answering = asyncio.ensure_future(answers())
        try:
            while request := await read_request(reader):
                if not await gate.pass_through(request):
                    return
                forth.write(request)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            forth.close()

    async with talking(talk) as url:
        yield url, gate
