"""The grants door: OPA's data API in shape, `/v1/data/grants/<person>/<id>`, judged by policy and recorded.

It exists because OPA alone cannot do it: its authorizer does not see the body of a PUT.  A write is judged by
`data.gateway.admission.decision`, written through to OPA, put on record, and the person's live sessions are judged
again before the answer goes out, so that a 204 to a DELETE means that the sessions were told to end.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from gateway.audit.journal import Journal
from gateway.door.documents import Documents, Intent
from gateway.door.doorman import Doorman
from gateway.door.etags import Conditions, etag
from gateway.door.http import Refused, body_of, served_tcp
from gateway.door.patch import patches
from gateway.door.paths import Path, is_above_documents, is_document, path_of
from gateway.policy.contract import Automation
from gateway.telemetry import Step

PATCH_LIMIT = 2 * 2**20
"""Bytes of a patch: it may hold many documents."""
VERBS = frozenset({"GET", "PUT", "PATCH", "DELETE"})


class GrantsDoor:
    """Answers automation."""

    def __init__(
        self,
        listen: str | None,
        doorman: Doorman,
        documents: Documents,
        journal: Callable[[], Journal],
    ) -> None:
        self._listen = listen
        self._doorman = doorman
        self._documents = documents
        self._journal = journal

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[str, int] | None]:
        """Listen while the body runs; yields the bound address, or None where no door is configured."""
        if self._listen is None:
            yield None
            return
        routes = {"/{path:.*}": self._handle}
        async with served_tcp(routes, self._listen, self._doorman.tls(), "door.listen") as address:
            yield address

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        journal = self._journal()
        with journal.rooted(Step.GRANT):
            client = await self._doorman.known(request, journal, Step.GRANT)
            journal.bind(client=client.name)
            answer = await self._answer(journal, client, request)
            answer.headers["Doorward-Client"] = client.name
            return answer

    async def _answer(self, journal: Journal, client: Automation, request: web.Request) -> web.Response:
        path, asked = path_of(request), _asked(request)
        conditions = Conditions.of(request)
        match request.method:
            case "GET":
                found = await self._documents.read(journal, client, path)
                return _found(path, found, conditions, "pretty" in asked)
            case "PUT":
                value = await body_of(request)
                intents = [Intent(path, "PUT", lambda _: value)]
            case "DELETE":
                intents = [Intent(path, "DELETE", lambda _: None)]
            case "PATCH":
                intents = await _patched(request, path, conditions)
            case verb:
                raise Refused(405, "invalid_request", f"{verb} is not offered here; use GET, PUT, PATCH or DELETE")
        dry_run = "dry-run" in asked
        tags = await self._documents.change(journal, client, intents, conditions, dry_run=dry_run) if intents else []
        answer = web.Response(status=204)
        if is_document(path) and tags and tags[0]:
            answer.etag = tags[0]
        return answer


async def _patched(request: web.Request, path: Path, conditions: Conditions) -> list[Intent]:
    body = await body_of(request, PATCH_LIMIT)
    if is_document(path):
        [patch] = patches(path, body)
        return [Intent(path, "PATCH", patch.apply)]
    if not is_above_documents(path):
        return [Intent(path, "PATCH", lambda _: None)]  # policy says what is wrong with the path
    if conditions != Conditions():
        raise Refused(
            400,
            "invalid_parameter",
            "If-Match and If-None-Match are about one document: in a patch, use the operation test",
        )
    return [Intent(patch.path, "PATCH", patch.apply, patch.index) for patch in patches(path, body)]


def _found(path: Path, found: Any, conditions: Conditions, pretty: bool) -> web.Response:
    # All grants at once are not hashed: that would hold up everybody else.
    tag = etag(found) if found is not None and len(path) > 1 else ""
    if tag and not conditions.holds_none_match(found):
        answer = web.Response(status=304)
    else:
        body = {} if found is None else {"result": found}
        text = json.dumps(body, indent=2 if pretty else None, separators=None if pretty else (",", ":"))
        answer = web.Response(text=text + "\n", content_type="application/json")
    if tag:
        answer.etag = tag
    return answer


def _asked(request: web.Request) -> frozenset[str]:
    """The query parameters that are on: OPA's `pretty`, and `dry-run`."""
    for name, value in request.query.items():
        if name not in ("pretty", "dry-run") or value not in ("", "true", "false"):
            said = f"{name[:100]}={value[:100]}"
            raise Refused(
                400, "invalid_parameter", f"the query parameter {said} is not offered, only pretty and dry-run"
            )
    return frozenset(name for name, value in request.query.items() if value != "false")
