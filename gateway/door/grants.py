"""The grants door: OPA's data API in shape, `/v1/data/grants/<person>/<id>`, judged by policy and recorded.

It exists because OPA alone cannot do it: its authorizer does not see the body of a PUT.  A write is judged by
`data.gateway.admission.decision`, written through to OPA, put on record, and the person's live sessions are judged
again before the answer goes out, so that a 204 to a DELETE means that the sessions were told to end.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from gateway.audit.journal import Journal
from gateway.door.http import Refused, body_of, served_tcp
from gateway.errors import AuditUnavailable, PolicyUnavailable, SettingsError
from gateway.live import Live
from gateway.policy import Policy
from gateway.policy.contract import AdmissionAnswer
from gateway.policy.opa import Opa
from gateway.settings import DoorSettings
from gateway.telemetry import Step

log = logging.getLogger(__name__)

PREFIX = "/v1/data/"
SEGMENT = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,128}")
VERBS = frozenset({"GET", "PUT", "DELETE"})


class GrantsDoor:
    """Answers automation."""

    def __init__(
        self, settings: DoorSettings, policy: Policy, opa: Opa, live: Live, journal: Callable[[], Journal]
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._opa = opa
        self._live = live
        self._journal = journal
        self._clients = {
            name: hashlib.sha256(client.token.read().get_secret_value().encode()).digest()
            for name, client in settings.clients.items()
        }
        self._writing = [asyncio.Lock() for _ in range(64)]
        """One writer at a time for a person, by hash: a client cannot make it grow with names it makes up."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[str, int] | None]:
        """Listen while the body runs; yields the bound address, or None where no door is configured."""
        if self._settings.listen is None:
            yield None
            return
        async with served_tcp({"/{path:.*}": self._handle}, self._settings.listen, _tls(self._settings)) as address:
            yield address

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        journal = self._journal()
        with journal.rooted(Step.GRANT):
            client = await self._authenticated(request, journal)
            journal.bind(client=client)
            path = _path_of(request)
            return await self._judged(request, client, path, journal)

    async def _authenticated(self, request: web.Request, journal: Journal) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        offered = hashlib.sha256(token.strip().encode()).digest()
        for name, known in self._clients.items():
            if scheme.lower() == "bearer" and hmac.compare_digest(offered, known):
                return name
        try:
            await journal.record(Step.GRANT, "refused", verb=request.method, path=request.path, why="unknown token")
        except AuditUnavailable:
            log.error("grant_refusal_unrecorded")
        raise Refused(401, "unauthorized", "no client of the grants door has this token")

    async def _judged(
        self, request: web.Request, client: str, path: Sequence[str], journal: Journal
    ) -> web.StreamResponse:
        verb = request.method
        if verb not in VERBS:
            raise Refused(405, "invalid_request", f"{verb} is not offered here; use GET, PUT or DELETE")
        new = await body_of(request) if verb == "PUT" else None
        async with self._writing[hash(tuple(path[1:2])) % len(self._writing)]:
            old = await self._opa.read(*path) if verb != "GET" and _is_one_grant(path) else None
            answer = await self._policy.admit(journal, client, verb, path, old, new)
            if not answer.allow:
                raise _refusal(answer, path)
            if verb == "GET":
                found = await self._opa.read(*path)
                return web.json_response({} if found is None else {"result": found})
            try:
                async with journal.step(Step.GRANT, verb=verb, path="/".join(path), old=old, new=answer.value):
                    await self._write(verb, path, answer.value)
            finally:
                # Also when only the record of the write failed: the decision is on record, and OPA has the change.
                await self._live.reevaluate(path[1])
        return web.Response(status=204)

    async def _write(self, verb: str, path: Sequence[str], value: Mapping[str, Any] | None) -> None:
        if verb == "DELETE":
            await self._opa.remove(*path)
        elif value is None:
            raise PolicyUnavailable("the policy allowed the grant but did not say what to store")
        else:
            await self._opa.write(*path, value=value)


def _is_one_grant(path: Sequence[str]) -> bool:
    """Whether there is an old value to judge by: nothing else is read for a client before policy has spoken."""
    return len(path) == 3 and path[0] == "grants" and all(SEGMENT.fullmatch(segment) for segment in path[1:])


def _path_of(request: web.Request) -> list[str]:
    if not request.raw_path.startswith(PREFIX):
        raise Refused(404, "resource_not_found", f"only {PREFIX}grants/<person>/<id> is offered here")
    if "?" in request.raw_path:
        raise Refused(400, "invalid_parameter", "query parameters are not offered here")
    # Split before unquoting: a %2F inside a segment stays inside it, and policy sees it.
    return [unquote(segment) for segment in request.raw_path.removeprefix(PREFIX).split("/")]


def _refusal(answer: AdmissionAnswer, path: Sequence[str]) -> Refused:
    said = "; ".join(
        f"{reason.field}: {reason.message}" if reason.field else reason.message for reason in answer.reasons
    )
    if any(reason.field or reason.code == "not_an_object" for reason in answer.reasons):
        return Refused(400, "invalid_parameter", said, answer.reasons)
    return Refused(403, "unauthorized", said or f"policy refused {'/'.join(path)}", answer.reasons)


def _tls(settings: DoorSettings) -> ssl.SSLContext | None:
    if settings.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except OSError as error:
        raise SettingsError(f"door.tls_certificate: {error}") from error
    return context
