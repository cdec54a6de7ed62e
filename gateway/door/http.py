"""What the grants door and the admin socket share: aiohttp.web, errors in OPA's own shape, bounded bodies."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.errors import DoorwardError, SettingsError
from gateway.model import Reason

BODY_LIMIT = 64 * 1024
DEPTH_LIMIT = 32


class Refused(Exception):
    """An answer that is not 2xx, in the shape of OPA's API errors (REST API documentation, "Errors")."""

    def __init__(self, status: int, code: str, message: str, errors: Sequence[Reason] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "code": code,
            "message": message,
            **({"errors": [error.model_dump(exclude_defaults=True) for error in errors]} if errors else {}),
        }


@web.middleware
async def errors_as_json(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
    except Refused as refused:
        return web.json_response(refused.body, status=refused.status)
    except DoorwardError as error:
        body = Refused(503, "internal_error", error.reasons[0].message, error.reasons).body
        return web.json_response(body, status=503)
    except web.HTTPException as error:
        return web.json_response({"code": "invalid_request", "message": error.reason}, status=error.status)
    return answer


async def body_of(request: web.Request) -> Any:
    """The JSON body.  Raises Refused with what is wrong with it."""
    try:
        body = json.loads(await request.read(), parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "invalid_parameter", f"the body is not JSON: {error}") from error
    if _depth(body) > DEPTH_LIMIT:
        raise Refused(400, "invalid_parameter", f"the body is nested more than {DEPTH_LIMIT} deep")
    return body


def _depth(value: Any) -> int:
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


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999: nothing behind us could write it down
        raise ValueError(f"the number {text[:20]} is too large")
    return number


@asynccontextmanager
async def served_tcp(
    routes: Mapping[str, Any], listen: str, tls: ssl.SSLContext | None
) -> AsyncIterator[tuple[str, int]]:
    """Serve catch-all `routes` (path pattern to handler) on host:port; yields the bound address."""
    host, _, port = listen.rpartition(":")
    async with _runner(routes) as runner:
        site = web.TCPSite(runner, host.strip("[]"), int(port), ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise SettingsError(f"door.listen: cannot listen on {listen}: {error}") from error
        yield runner.addresses[0][:2]


@asynccontextmanager
async def served_unix(routes: Mapping[str, Any], path: Path) -> AsyncIterator[None]:
    """Serve on a Unix socket that only this user can open."""
    async with _runner(routes) as runner:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        site = web.UnixSite(runner, str(path))
        try:
            await site.start()
        except OSError as error:
            raise SettingsError(f"the admin socket {path} cannot be made: {error}") from error
        path.chmod(0o600)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@asynccontextmanager
async def _runner(routes: Mapping[str, Any]) -> AsyncIterator[web.AppRunner]:
    app = web.Application(middlewares=[errors_as_json], client_max_size=BODY_LIMIT)
    for pattern, handler in routes.items():
        app.router.add_route("*", pattern, handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2, handler_cancellation=False)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()
