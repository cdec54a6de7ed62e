"""The admin API on a Unix socket (0600): what the operator on this machine may see and do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway import __version__
from gateway.audit.journal import Journal
from gateway.door.http import Refused, served_unix
from gateway.live import Live
from gateway.model import Reason, SessionId
from gateway.telemetry import Step


class Admin:
    """Answers `doorward sessions` and its like."""

    def __init__(self, live: Live, journal: Journal, status: dict[str, Any]) -> None:
        self._live = live
        self._journal = journal
        self._status = status

    @asynccontextmanager
    async def open(self, socket: Path) -> AsyncIterator[None]:
        routes = {
            "/v1/status": self._show_status,
            "/v1/sessions": self._sessions,
            "/v1/sessions/{id}": self._session,
            "/v1/reevaluate": self._reevaluate,
        }
        async with served_unix(routes, socket):
            yield

    async def _show_status(self, _request: web.Request) -> web.Response:
        return web.json_response({**self._status, "version": __version__, "sessions": len(self._live.ids())})

    async def _sessions(self, _request: web.Request) -> web.Response:
        return web.json_response({"sessions": self._live.sessions()})

    async def _session(self, request: web.Request) -> web.Response:
        if request.method != "DELETE":
            raise Refused(405, "invalid_request", "only DELETE is offered for one session")
        session = SessionId(request.match_info["id"])
        reason = Reason(
            code="ended_by_operator", message="an operator ended this session", remedy="Ask the platform team why."
        )
        await self._journal.record(Step.LIVE, "ended by operator", ended=session)
        if not self._live.end(session, reason):
            raise Refused(404, "resource_not_found", f"no live session {session}")
        return web.Response(status=204)

    async def _reevaluate(self, request: web.Request) -> web.Response:
        if request.method != "POST":
            raise Refused(405, "invalid_request", "POST it")
        return web.json_response({"judged": await self._live.reevaluate()})
