"""Ask OPA, parse strictly, fail closed.  The only maker of a Permit.

Every decision is one audit record and one span, with the same decision id, OPA's own decision id, the policy revision,
the whole question and the documents that it may have read, so that it can be asked again under another policy.
Questions hold no secrets: proofs are named, never shown.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from opentelemetry.metrics import Meter

from gateway.audit.basis import Basis
from gateway.audit.journal import Journal
from gateway.errors import Denied, PolicyUnavailable
from gateway.metrics import UNMETERED, Metric
from gateway.model import Desk, Permit, Reason, Value
from gateway.obligations import PERMIT, kinds_for
from gateway.policy.census import Census
from gateway.policy.contract import (
    AdminAnswer,
    AdmissionAnswer,
    AuthnAnswer,
    AuthzAnswer,
    Automation,
    ConfigAnswer,
    Decision,
    LiveSession,
    Outcome,
    common,
    rfc3339,
)
from gateway.policy.judged import Judged, Judgements, usable
from gateway.policy.keeping import conceal, keepable, no_recorder, standing_for
from gateway.policy.opa import Opa
from gateway.policy.questions import fitting
from gateway.policy.reading import basis_of, check_version, outcome_of
from gateway.policy.subject import Subject, permit_question, shown
from gateway.proofs import Attempt
from gateway.telemetry import Step
from gateway.turns import Turns

log = logging.getLogger(__name__)
AT_ONCE = 16
"""Questions under way, but for those about live sessions: more would wait for each other within their deadlines."""
TURN_SECONDS = 10.0
A = TypeVar("A", bound=Value)

UNEXPLAINED = Reason(
    code="unexplained", message="policy refused and gave no reason", remedy="Tell the security team the decision id."
)


@dataclass(frozen=True, slots=True)
class Configured:
    """What a session may be, or why there is none; and what the door itself can tell."""

    desk: Desk
    permit: Permit | None
    refusal: Denied
    """Where there is no permit."""
    request: Mapping[str, Any]
    """What it was asked for."""

    def granted(self) -> Permit:
        """The permit.  Raises the refusal where there is none."""
        if self.permit is None:
            raise self.refusal
        return self.permit


class Policy:
    """The decisions, as Python asks for them.  No answer, or one outside the contract, raises PolicyUnavailable."""

    def __init__(
        self,
        opa: Opa,
        instance: str,
        hooks: Collection[str] = (),
        census: Census | None = None,
        meter: Meter = UNMETERED,
    ) -> None:
        """`hooks` are the webhooks that an answer can name; `census` are the sessions that a question tells of.

        An answer that cannot be used is counted on `meter`.
        """
        self._opa = opa
        self._instance = instance
        self._turns = Turns(AT_ONCE)
        self._hooks = hooks
        self._census = census or Census()
        self._count = meter.create_counter(Metric.UNUSABLE, description="answers of policy that could not be used")

    async def authenticate(
        self, journal: Journal, subject: Subject, attempt: Attempt, proofs: Sequence[Attempt]
    ) -> AuthnAnswer:
        """What the proofs so far are worth.  Only an attempt that is proven may admit anyone."""
        question = {
            **subject.facts(),
            "attempt": attempt.model_dump(mode="json"),
            "proofs": shown(proofs),
        }
        answer, _ = await self._decide(journal, Step.AUTHN, Decision.AUTHN, question, AuthnAnswer)
        return answer

    async def configure(self, journal: Journal, subject: Subject, request: Mapping[str, Any]) -> Configured:
        """The permit of this session, or Rego's reasons why there is none."""
        question = permit_question(subject, request, self._census)
        answer, decision_id = await self._decide(
            journal, Step.CONFIG, Decision.CONFIG, question, ConfigAnswer, self._can_keep_permit
        )
        return self._configured(answer, decision_id, request)

    async def reconsider(
        self, journal: Journal, subject: Subject, request: Mapping[str, Any], before: Configured
    ) -> Configured | None:
        """Ask again, as a sweep does: None, and nothing on record, while the permit is what it was (docs/adr/0004)."""
        question = {**common(self._instance), **permit_question(subject, request, self._census)}
        answer, _, _ = await self._ask(journal, Decision.CONFIG, question, ConfigAnswer)
        if answer.allow and answer.permit == before.permit:
            return None
        return await self.configure(journal, subject, request)

    def _configured(self, answer: ConfigAnswer, decision_id: str, request: Mapping[str, Any]) -> Configured:
        refusal = Denied(answer.reasons or (UNEXPLAINED,), decision_id=decision_id)
        refusal.lines = [f"{choice.login}   {choice.label}" for choice in answer.desk.choices]
        if not answer.allow or answer.permit is None:
            return Configured(answer.desk, None, refusal, request)
        return Configured(answer.desk, answer.permit, refusal, request)

    async def authorize(
        self,
        journal: Journal,
        subject: Subject,
        permit: Permit,
        request: Mapping[str, Any],
    ) -> Sequence[Any]:
        """Return if this one request is allowed; else raise Denied with Rego's reasons.

        What is returned are its obligations, all of them such as go with the request (`obligations.kinds_for`), and
        those of the permit that are kept where this request is.
        """
        forced = permit.workspace.force_command
        summary = {
            "grant": permit.grant,
            "target": permit.target,
            "expires_at": rfc3339(permit.expires_at),
            **({"force_command": forced} if forced is not None else {}),
        }
        question = {**subject.facts(), "permit": summary, "request": request}

        fitting = kinds_for(request, forced=forced is not None)
        standing = standing_for(request, permit)

        def can_keep(answer: AuthzAnswer) -> None:
            if answer.allow:
                keepable(answer.obligations, fitting, self._hooks)
                keepable(standing, fitting, self._hooks)

        answer, decision_id = await self._decide(journal, Step.REQUEST, Decision.AUTHZ, question, AuthzAnswer, can_keep)
        if not answer.allow:
            raise Denied(answer.reasons or (UNEXPLAINED,), decision_id=decision_id)
        return (*standing, *answer.obligations)

    async def admit(
        self, journal: Journal, client: Automation, verb: str, path: Sequence[str], old: Any, new: Any
    ) -> AdmissionAnswer:
        """Whether an automation may do this to a document, and what is stored."""
        known = client.model_dump(mode="json", exclude_defaults=True)
        question = {"client": known, "verb": verb, "path": list(path), "old": old, "new": new}
        answer, _ = await self._decide(journal, Step.ADMISSION, Decision.ADMISSION, question, AdmissionAnswer)
        return answer

    async def manage(
        self,
        journal: Journal,
        client: Automation,
        action: str,
        session: Mapping[str, str] | None,
        reason: str = "",
        by: str = "",
    ) -> AdminAnswer:
        """Whether an automation may do this at the admin API, to `session` where it is about one."""
        known = client.model_dump(mode="json", exclude_defaults=True)
        question = {"client": known, "action": action, "session": session, "reason": reason, "by": by}
        answer, _ = await self._decide(journal, Step.ADMIN, Decision.ADMIN, question, AdminAnswer)
        return answer

    async def judge(self, journal: Journal, sessions: Sequence[LiveSession]) -> Judged:
        """Judge live sessions in one query; who is not in its result, was not judged.

        What is put on record is the caller's to say (docs/adr/0004).
        """
        question = {**common(self._instance), "sessions": [session.model_dump() for session in sessions]}
        answer, facts, _ = await self._ask(journal, Decision.LIVE, question, Judgements)
        judged = Judged(usable(answer, sessions), question, facts)
        if len(judged.sessions) < len(sessions):
            error = judged.unjudged
            self._unusable(Decision.LIVE, error, facts["decision_id"])
            if not judged.sessions:
                raise error
        return judged

    def _can_keep_permit(self, answer: ConfigAnswer) -> None:
        if not answer.allow or answer.permit is None:
            return
        if answer.permit.recording.what or answer.permit.recording.required:
            raise no_recorder("Tell the security team: the target's `recording` must be empty.")
        keepable(answer.permit.obligations, PERMIT, self._hooks)

    async def _decide(
        self,
        journal: Journal,
        step: Step,
        decision: Decision,
        question: dict[str, Any],
        shape: type[A],
        can_keep: Callable[[A], None] = lambda _: None,
    ) -> tuple[A, str]:
        """`can_keep` raises PolicyUnavailable for an answer on conditions that this gateway cannot keep."""
        question = {**common(self._instance), **question}
        async with journal.step(step, decision=decision.value) as record:
            # Noted before the question is asked: a decision that could not be had is on record with its question.
            record.note(input=question)
            async with self._turn(journal, decision):
                question |= common(self._instance)  # asked now: a grant may have ended while the turn was waited for
                record.note(input=question)
                answer, facts, record.basis = await self._ask(journal, decision, question, shape, record.traceparent)
            record.note(**facts, answer=answer.model_dump(mode="json", exclude_defaults=True))
            try:
                conceal(journal, record, answer)  # before anything of this very step is on record
                can_keep(answer)
            except PolicyUnavailable as error:
                self._unusable(decision, error, facts["decision_id"])
                raise
            record.note(outcome=outcome_of(answer))
            return answer, facts["decision_id"]

    @asynccontextmanager
    async def _turn(self, journal: Journal, decision: Decision) -> AsyncIterator[None]:
        """A crowd at the door waits here, in turn by person, and not within the deadline of its questions."""
        asks = journal.ids.get("person") or journal.ids.get("session") or "automation"
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    await turn.enter_async_context(self._turns.turn(asks))
            except TimeoutError as error:
                refusal = PolicyUnavailable("too many wait for the policy engine", code="policy_timeout")
                self._unusable(decision, refusal, "")
                raise refusal from error
            yield

    async def _ask(
        self, journal: Journal, decision: Decision, question: dict[str, Any], shape: type[A], parent: str = ""
    ) -> tuple[A, dict[str, str], Basis]:
        decision_id = str(uuid.uuid4())
        traceparent = parent or journal.traceparent
        headers = {"traceparent": traceparent} if traceparent else {}
        try:
            answer = await self._opa.query(decision.asked_at, fitting(decision, question), headers)
            if not answer.defined:
                raise PolicyUnavailable(f"the policy has no answer: {decision} is undefined", code="policy_undefined")
            basis = basis_of(answer.result)
            check_version(answer.result)
            parsed = shape.model_validate_json(json.dumps(answer.result))
        except (ValueError, RecursionError) as error:  # a ValidationError is a ValueError
            refusal = PolicyUnavailable("the policy answered outside its contract", code="policy_malformed")
            self._unusable(decision, refusal, decision_id, str(error))
            raise refusal from error
        except PolicyUnavailable as error:
            self._unusable(decision, error, decision_id)
            raise
        facts = {
            "decision_id": decision_id,
            "opa_decision_id": answer.decision_id,
            "policy_revision": answer.revision,
        }
        return parsed, facts, basis

    def _unusable(self, decision: Decision, error: PolicyUnavailable, decision_id: str, why: str = "") -> None:
        """Say it to the operator, and let the error name the decision."""
        code = error.reasons[0].code
        log.error("policy_unavailable", extra={"decision": decision, "code": code, "error": why or str(error)})
        self._count.add(1, {"decision": decision.value, "failure": code})
        error.decision_id = decision_id


__all__ = ["Configured", "Judged", "Outcome", "Policy", "Subject"]
