"""The admin API: who is inside, and showing them out.

It is on a Unix socket (0600) for the operator, and over TCP for automation, with the same routes.  Whoever comes to the
socket may; of a client over TCP policy says what it may (`callers.py`), and each of its calls is a record and a span.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway import __version__
from gateway.approvals import Approvals
from gateway.audit.journal import Journal
from gateway.door.approvals import ApprovalsApi
from gateway.door.callers import Action, Caller, Operator, Program
from gateway.door.doorman import Doorman
from gateway.door.http import Refused, served_tcp, served_unix
from gateway.errors import AuditUnavailable
from gateway.live import Live
from gateway.model import Reason, SessionId
from gateway.policy import Policy
from gateway.policy.questions import Handled
from gateway.telemetry import Step
from gateway.verdicts import LiveEntry

log = logging.getLogger(__name__)

MOST_LETTERS = 300

Greet = Callable[[web.Request, Journal], Awaitable[Caller]]
Handler = Callable[[web.Request, Caller], Awaitable[web.Response]]


class Admin:
    """Answers `doorward sessions` and its like."""

    def __init__(
        self,
        live: Live,
        approvals: Approvals,
        policy: Policy,
        doorman: Doorman,
        journal: Callable[[], Journal],
        status: Mapping[str, Any],
    ) -> None:
        self._live = live
        self._approvals = ApprovalsApi(approvals)
        self._policy = policy
        self._doorman = doorman
        self._journal = journal
        self._status = status

    @asynccontextmanager
    async def open(self, path: Path) -> AsyncIterator[None]:
        """Serve the operator while the body runs."""
        async with served_unix(self._routes(self._operator), path):
            yield

    @asynccontextmanager
    async def open_tcp(self, listen: str | None) -> AsyncIterator[tuple[str, int] | None]:
        """Serve automation while the body runs; yields the bound address, or None where none is configured."""
        if listen is None:
            yield None
            return
        routes = self._routes(self._program)
        async with served_tcp(routes, listen, self._doorman.tls(), "door.admin_listen") as address:
            yield address

    def _routes(self, greet: Greet) -> dict[str, Any]:
        offered: Mapping[str, tuple[str, Handler]] = {
            "/v1/status": ("GET", self._show_status),
            "/v1/sessions": ("GET", self._sessions),
            "/v1/sessions/{id}": ("DELETE", self._end),
            "/v1/reevaluate": ("POST", self._reevaluate),
            "/v1/approvals": ("GET", self._approvals.list),
            "/v1/approvals/{id}": ("POST", self._approvals.one),
        }
        return {pattern: self._answering(greet, *what) for pattern, what in offered.items()}

    def _answering(self, greet: Greet, method: str, handler: Handler) -> Any:
        async def answer(request: web.Request) -> web.Response:
            journal = self._journal()
            with journal.rooted(Step.ADMIN):
                caller = await greet(request, journal)
                if request.method != method:
                    raise Refused(405, "invalid_request", f"{request.method} is not offered here; use {method}")
                answered = await handler(request, caller)
                answered.headers["Doorward-Client"] = caller.name
                return answered

        return answer

    async def _operator(self, request: web.Request, journal: Journal) -> Caller:
        return Operator(journal, request)

    async def _program(self, request: web.Request, journal: Journal) -> Caller:
        return Program(journal, self._policy, await self._doorman.known(request, journal, Step.ADMIN))

    async def _show_status(self, _request: web.Request, caller: Caller) -> web.Response:
        await caller.may(Action.STATUS)
        status = {key: value() if callable(value) else value for key, value in self._status.items()}
        return web.json_response({**status, "version": __version__, "sessions": len(self._live.ids())})

    async def _sessions(self, _request: web.Request, caller: Caller) -> web.Response:
        await caller.may(Action.LIST)
        return web.json_response({"sessions": self._live.sessions()})

    async def _reevaluate(self, request: web.Request, caller: Caller) -> web.Response:
        person = _said(request, "person")
        await caller.may(Action.REEVALUATE)
        return web.json_response({"judged": await self._live.reevaluate(person or None)})

    async def _end(self, request: web.Request, caller: Caller) -> web.Response:
        session = SessionId(request.match_info["id"])
        why = _said(request, "reason")
        entry = self._live.entry(session)
        await caller.may(Action.END, _handled(entry), reason=why)
        if entry is None:
            message = f"no live session {session}"
            gone = Reason(code="no_session", message=message, remedy="`doorward sessions` lists those that live.")
            raise Refused(404, "resource_not_found", message, [gone])
        # From here to the end no turn of the loop: of two who end it, one did.
        outcome = "ended before" if entry.ended.done() else "ended by word"
        entry.end([_ending(caller, why)])
        try:
            await caller.journal.record(Step.LIVE, outcome, ended=session)
        except AuditUnavailable:  # that it was to end is on record
            log.error("end_unrecorded", extra={"session": session})
        return web.Response(status=204)


def _handled(entry: LiveEntry | None) -> Handled | None:
    if entry is None:
        return None
    holder = entry.holder
    return Handled(id=holder.session, person=holder.person, grant=holder.grant, target=holder.target)


def _said(request: web.Request, parameter: str) -> str:
    """The only query parameter there is, or nothing.  Raises Refused."""
    for name in request.query:
        if name != parameter:
            raise Refused(
                400, "invalid_parameter", f"the query parameter {name[:100]} is not offered, only {parameter}"
            )
    said = request.query.getall(parameter, [""])
    if len(said) > 1 or len(said[0]) > MOST_LETTERS or not said[0].isprintable():
        raise Refused(400, "invalid_parameter", f"{parameter}: one line of at most {MOST_LETTERS} letters")
    return said[0].strip()


def _ending(caller: Caller, why: str) -> Reason:
    said = f"{caller.words} ended this session" + (f": {why}" if why else "")
    return Reason(code=caller.code, message=said[:500], remedy="Ask the platform team why.")
