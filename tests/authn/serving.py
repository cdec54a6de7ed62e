"""An HTTP server on loopback whose answers a test decides."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Served:
    """Where it is; `stop` takes it away."""

    url: str
    stop: Callable[[], Awaitable[None]]
    requests: list[web.Request] = field(default_factory=list)


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    runner = web.ServerRunner(web.Server(lambda request: _answered(request)), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    served = Served(f"{'https' if tls else 'http'}://{host}:{port}", runner.cleanup)

    async def _answered(request: web.BaseRequest) -> web.StreamResponse:
        served.requests.append(request)  # type: ignore[arg-type]  # the low-level server's
        return await answer(request)  # type: ignore[arg-type]

    try:
        yield served
    finally:
        await runner.cleanup()


async def never(_request: web.Request) -> web.StreamResponse:
    """The answer of a server that hangs."""
    await asyncio.Event().wait()
    raise AssertionError
