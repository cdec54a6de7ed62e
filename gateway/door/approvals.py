"""Answers to sessions that wait for somebody else: `POST /v1/approvals/<session>`.

`by` is who answers, on the word of whoever may use this API; whether they may is policy's to say.
"""

from __future__ import annotations

from aiohttp import web
from pydantic import Field, ValidationError

from gateway.approvals import Approvals, NobodyWaits
from gateway.door.callers import Action, Caller
from gateway.door.http import Refused, body_of
from gateway.model import Name, SessionId, Value
from gateway.policy.questions import Handled
from gateway.telemetry import Step

STATUS = {"approved": 200, "refused": 200, "waiting": 202}


class Answer(Value):
    approve: bool
    by: Name = Field(max_length=128)


class ApprovalsApi:
    """The two routes of it."""

    def __init__(self, approvals: Approvals) -> None:
        self._approvals = approvals

    async def list(self, _request: web.Request, caller: Caller) -> web.Response:
        await caller.may(Action.WAITING)
        return web.json_response({"waiting": self._approvals.sessions()})

    async def one(self, request: web.Request, caller: Caller) -> web.Response:
        try:
            answer = Answer.model_validate(await body_of(request))
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, item["loc"])) or "the body" for item in error.errors())
            raise Refused(400, "invalid_parameter", f'wrong: {fields}; as {{"approve": true, "by": "erin"}}') from error
        session = SessionId(request.match_info["id"])
        await caller.may(Action.ANSWER, self._waiting(session), by=answer.by)
        word = "yes" if answer.approve else "no"
        await caller.journal.record(Step.APPROVAL, "answer", of=session, by=answer.by, answer=word)
        try:
            answered = await self._approvals.answer(session, answer.by, answer.approve)
        except NobodyWaits as error:
            raise Refused(404, "resource_not_found", error.reasons[0].message, error.reasons) from error
        told = [reason.model_dump(exclude_defaults=True) for reason in answered.reasons]
        body = {"session": session, "outcome": answered.outcome, "reasons": told}
        return web.json_response(body, status=STATUS[answered.outcome])

    def _waiting(self, session: SessionId) -> Handled | None:
        for waiting in self._approvals.sessions():
            if waiting["id"] == session:
                return Handled(**{name: waiting[name] for name in Handled.model_fields})
        return None
