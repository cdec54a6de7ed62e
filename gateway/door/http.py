"""What the grants door and the admin API share: aiohttp.web, errors in OPA's own shape, bounded bodies."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.door.guard import Guard
from gateway.errors import DoorwardError, SettingsError
from gateway.model import Reason
from gateway.sections import A_FREE_ADDRESS

server_log = logging.getLogger(f"{__name__}.server")
"""Where aiohttp tells of what went wrong before there was a request, and of bugs."""

BODY_LIMIT = 64 * 1024
BODY_SECONDS = 10.0
"""How long a body may take: who sends slower is no client of ours."""
DEPTH_LIMIT = 32
HANDSHAKE_SECONDS = 10.0


class Refused(Exception):
    """An answer that is not 2xx, in the shape of OPA's API errors (REST API documentation, "Errors")."""

    def __init__(self, status: int, code: str, message: str, errors: Sequence[Reason | Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.errors = [
            error.model_dump(exclude_defaults=True) if isinstance(error, Reason) else error for error in errors
        ]
        self.body = {"code": code, "message": message, **({"errors": self.errors} if errors else {})}


@web.middleware
async def errors_as_json(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
    except Refused as refused:
        if refused.status == 304:  # it has no body
            return web.Response(status=304)
        return web.json_response(refused.body, status=refused.status)
    except DoorwardError as error:
        body = Refused(503, "internal_error", error.reasons[0].message, error.reasons).body
        return web.json_response(body, status=503)
    except web.HTTPException as error:
        return web.json_response({"code": "invalid_request", "message": error.reason}, status=error.status)
    return answer


async def body_of(request: web.Request, limit: int = BODY_LIMIT) -> Any:
    """The JSON body of at most `limit` bytes.  Raises Refused with what is wrong with it."""
    text = await _bytes_of(request, limit)
    try:
        body = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_name_twice)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "invalid_parameter", f"the body is not JSON: {error}") from error
    if depth(body) > DEPTH_LIMIT:
        raise Refused(400, "invalid_parameter", f"the body is nested more than {DEPTH_LIMIT} deep")
    return body


async def _bytes_of(request: web.Request, limit: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise Refused(413, "invalid_request", f"the body is larger than {limit} bytes")
    except TimeoutError as error:
        raise Refused(408, "invalid_request", f"the body did not arrive within {BODY_SECONDS:g} seconds") from error
    return bytes(body)


def depth(value: Any) -> int:
    """How deep lists and objects are nested; 1 for a plain value."""
    deep = 0
    level = [value]
    while level:
        deep += 1
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return deep


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Which of the two counts differs from one reader to the next, so what was approved may not be what is stored.
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:100]!r} is there twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999: nothing behind us could write it down
        raise ValueError(f"the number {text[:20]} is too large")
    return number


@asynccontextmanager
async def served_tcp(
    routes: Mapping[str, Any], listen: str, tls: ssl.SSLContext | None, setting: str
) -> AsyncIterator[tuple[str, int]]:
    """Serve catch-all `routes` (path pattern to handler) on host:port, guarded; yields the bound address.

    Raises SettingsError that names the `setting`.
    """
    host, _, port = listen.rpartition(":")
    async with _runner(routes) as (_, guard):
        more: dict[str, Any] = {} if tls is None else {"ssl": tls, "ssl_handshake_timeout": HANDSHAKE_SECONDS}
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(guard, host.strip("[]"), int(port), backlog=128, **more)
        except OSError as error:
            raise SettingsError(f"{setting}: cannot listen on {listen}: {error}", remedy=A_FREE_ADDRESS) from error
        try:
            yield server.sockets[0].getsockname()[:2]
        finally:
            server.close()


@asynccontextmanager
async def served_unix(routes: Mapping[str, Any], path: Path) -> AsyncIterator[None]:
    """Serve on a Unix socket that only this user can open."""
    async with _runner(routes) as (runner, _):
        await asyncio.to_thread(path.unlink, missing_ok=True)
        site = web.UnixSite(runner, str(path))
        try:
            await site.start()
        except OSError as error:
            raise SettingsError(
                f"the admin socket {path} cannot be made: {error}",
                remedy="It is in state_dir: name a folder of this user's own, by a path of 96 bytes at most.",
            ) from error
        path.chmod(0o600)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _without_what_was_sent(record: logging.LogRecord) -> bool:
    # The text of such an error is a piece of the request: of its Authorization header, perhaps.
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.msg, record.args, record.levelno, record.levelname = "request_malformed", (), logging.INFO, "INFO"
        record.exc_info = None
    return True


server_log.addFilter(_without_what_was_sent)


@asynccontextmanager
async def _runner(routes: Mapping[str, Any]) -> AsyncIterator[tuple[web.AppRunner, Guard]]:
    guard: Guard | None = None

    @web.middleware
    async def clocked(request: web.Request, handler: Any) -> web.StreamResponse:
        assert guard is not None
        return await guard.middleware(request, handler)

    app = web.Application(middlewares=[clocked, errors_as_json], client_max_size=BODY_LIMIT)
    for pattern, handler in routes.items():
        app.router.add_route("*", pattern, handler)
    runner = web.AppRunner(app, access_log=None, logger=server_log, shutdown_timeout=2, handler_cancellation=False)
    await runner.setup()
    assert runner.server is not None
    guard = Guard(runner.server)
    try:
        yield runner, guard
    finally:
        await runner.cleanup()
