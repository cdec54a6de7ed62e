"""Ask OPA, parse strictly, fail closed.  The only maker of a Permit.

Every decision is one audit record and one span, with the same decision id, OPA's own decision id, the policy revision
and the whole question, so that it can be asked again under another policy.  Questions hold no secrets: proofs are
named, never shown.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from gateway.audit.journal import Journal
from gateway.errors import Denied, PolicyUnavailable
from gateway.model import Identity, Permit, Reason, Value
from gateway.policy.contract import (
    AdmissionAnswer,
    Attempt,
    AuthnAnswer,
    AuthzAnswer,
    ConfigAnswer,
    Connection,
    Decision,
    Judgement,
    LiveAnswer,
    LiveSession,
    Outcome,
    common,
    rfc3339,
)
from gateway.policy.opa import Opa
from gateway.telemetry import Step

log = logging.getLogger(__name__)
A = TypeVar("A", bound=Value)

UNEXPLAINED = Reason(
    code="unexplained", message="policy refused and gave no reason", remedy="Tell the security team the decision id."
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who stands at the door, before and after authentication."""

    connection: Connection
    login: str
    identity: Identity | None = None

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"connection": self.connection.model_dump(), "login": {"user": self.login}}
        if self.identity is not None:
            facts["identity"] = self.identity.model_dump(mode="json")
        return facts


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of live sessions, by id, and how it was asked."""

    sessions: Mapping[str, Judgement]
    question: Mapping[str, Any]
    facts: Mapping[str, str]

    def record(self, session: LiveSession) -> dict[str, Any]:
        """One session's share: its own question and answer, so that it can be asked again."""
        judgement = self.sessions[session.id].model_dump(mode="json", exclude_defaults=True)
        return {
            "decision": Decision.LIVE.value,
            **self.facts,
            "input": {**self.question, "sessions": [session.model_dump()]},
            "answer": judgement,
        }


class Policy:
    """The decisions, as Python asks for them.  No answer, or one outside the contract, raises PolicyUnavailable."""

    def __init__(self, opa: Opa, instance: str) -> None:
        self._opa = opa
        self._instance = instance

    async def authenticate(
        self, journal: Journal, subject: Subject, attempt: Attempt, proofs: Sequence[Attempt]
    ) -> AuthnAnswer:
        """What the proofs so far are worth.  Only an attempt that is proven may admit anyone."""
        question = {
            **subject.facts(),
            "attempt": attempt.model_dump(mode="json"),
            "proofs": [proof.model_dump(mode="json") for proof in proofs],
        }
        answer, _ = await self._decide(journal, Step.AUTHN, Decision.AUTHN, question, AuthnAnswer)
        return answer

    async def configure(self, journal: Journal, subject: Subject, request: Mapping[str, Any]) -> Permit:
        """The permit of this session.  Raises Denied with Rego's reasons."""
        question = {**subject.facts(), "request": request}
        answer, decision_id = await self._decide(journal, Step.CONFIG, Decision.CONFIG, question, ConfigAnswer)
        if not answer.allow or answer.permit is None:
            raise Denied(answer.reasons or (UNEXPLAINED,), decision_id=decision_id)
        if answer.permit.recording.what or answer.permit.recording.required:
            raise PolicyUnavailable(
                "the permit wants this session recorded, and this gateway cannot record",
                code="recording_unavailable",
                remedy="Tell the security team: the target's `recording` must be empty.",
            )
        return answer.permit

    async def authorize(self, journal: Journal, subject: Subject, permit: Permit, request: Mapping[str, Any]) -> None:
        """Return if this one request is allowed; else raise Denied with Rego's reasons."""
        summary = {"grant": permit.grant, "target": permit.target, "expires_at": rfc3339(permit.expires_at)}
        question = {**subject.facts(), "permit": summary, "request": request}
        answer, decision_id = await self._decide(journal, Step.REQUEST, Decision.AUTHZ, question, AuthzAnswer)
        if not answer.allow:
            raise Denied(answer.reasons or (UNEXPLAINED,), decision_id=decision_id)

    async def admit(
        self, journal: Journal, client: str, verb: str, path: Sequence[str], old: Any, new: Any
    ) -> AdmissionAnswer:
        """Whether an automation may do this to a grant, and what is stored."""
        question = {"client": {"name": client}, "verb": verb, "path": list(path), "old": old, "new": new}
        answer, _ = await self._decide(journal, Step.ADMISSION, Decision.ADMISSION, question, AdmissionAnswer)
        return answer

    async def judge(self, journal: Journal, sessions: Sequence[LiveSession]) -> Judged:
        """Judge all live sessions in one query.  What is put on record is the caller's to say (docs/adr/0004)."""
        question = {**common(self._instance), "sessions": [session.model_dump() for session in sessions]}
        answer, facts = await self._ask(journal, Decision.LIVE, question, LiveAnswer)
        if {session.id for session in sessions} - answer.sessions.keys():
            raise PolicyUnavailable("the policy did not judge every live session", code="policy_malformed")
        return Judged(answer.sessions, question, facts)

    async def _decide(
        self, journal: Journal, step: Step, decision: Decision, question: dict[str, Any], shape: type[A]
    ) -> tuple[A, str]:
        question = {**common(self._instance), **question}
        async with journal.step(step, decision=decision.value) as record:
            # Noted before the question is asked: a decision that could not be had is on record with its question.
            record.note(input=question)
            answer, facts = await self._ask(journal, decision, question, shape, record.traceparent)
            record.note(**facts, **_told(answer))
            return answer, str(facts["decision_id"])

    async def _ask(
        self, journal: Journal, decision: Decision, question: dict[str, Any], shape: type[A], parent: str = ""
    ) -> tuple[A, dict[str, str]]:
        decision_id = str(uuid.uuid4())
        traceparent = parent or journal.traceparent
        headers = {"traceparent": traceparent} if traceparent else {}
        try:
            answer = await self._opa.query(decision, question, headers)
            if not answer.defined:
                raise PolicyUnavailable(f"the policy has no answer: {decision} is undefined", code="policy_undefined")
            parsed = shape.model_validate_json(json.dumps(answer.result))
        except ValidationError as error:
            log.error("policy_malformed", extra={"decision": decision, "error": str(error)})
            refusal = PolicyUnavailable("the policy answered outside its contract", code="policy_malformed")
            refusal.decision_id = decision_id
            raise refusal from error
        except PolicyUnavailable as error:
            log.error("policy_unavailable", extra={"decision": decision, "code": error.reasons[0].code})
            error.decision_id = decision_id
            raise
        return parsed, {
            "decision_id": decision_id,
            "opa_decision_id": answer.decision_id,
            "policy_revision": answer.revision,
        }


def _told(answer: Value) -> dict[str, Any]:
    """The answer as the record keeps it, with an outcome a reader can search for."""
    match answer:
        case AuthnAnswer():
            outcome = answer.outcome.value
        case ConfigAnswer() | AuthzAnswer() | AdmissionAnswer():
            outcome = "allow" if answer.allow else "deny"
        case _:
            outcome = "ok"
    return {"outcome": outcome, "answer": answer.model_dump(mode="json", exclude_defaults=True)}


__all__ = ["Judged", "Outcome", "Policy", "Subject"]
