"""Why one decision fell as it did: its rules and conditions in the policies' own words, and what would turn it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.policy.contract import Decision
from gateway.studies.causes import Causes, Condition, Rule
from gateway.studies.engine import Studied
from gateway.studies.errors import StudyError
from gateway.studies.proofs import mapping
from gateway.studies.proposals import Proposals, is_refused, outcome_of, proposals
from gateway.studies.remedies import Case
from gateway.studies.tracing import codes, traced
from gateway.studies.veil import Veil

GRANTS = "gateway/grants/overview"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is to be told of one decision, as its veil lets it."""

    decision: str
    about: str
    at: str
    outcome: str
    reasons: tuple[Mapping[str, Any], ...]
    fired: tuple[Rule, ...]
    failed: tuple[Condition, ...]
    relied_on: Mapping[str, Any] = field(default_factory=dict)
    proposals: Proposals = field(default_factory=Proposals)
    notes: tuple[str, ...] = ()


async def explain(
    opa: Studied, data: Mapping[str, Any], decision: Decision, question: Mapping[str, Any], session: str = ""
) -> tuple[Explanation, Veil]:
    """Of `live`, of the one `session`, else of the first that is not kept.  Raises StudyError.

    Nothing of it is to be shown but through the veil.
    """
    question, others = await _one_session(opa, question, session) if decision == Decision.LIVE else (question, ())
    answer = await opa.evaluate(decision, question)
    outcome, reason = outcome_of(decision, answer)
    denied = is_refused(outcome)
    trace = await traced(opa.policies, data, decision, question, answer)
    causes = Causes(trace, opa.policies, question, decision)
    case = Case(decision, question, data, reason)
    found = Proposals()
    if denied and decision not in (Decision.ADMISSION, Decision.ADMIN):
        found = await proposals(opa, data, decision, question, reason)
    elif denied:
        found = Proposals(why_none="what automation may do and write is said field by field, as each reason tells")
    targets = {**mapping(trace.data.get("targets")), case.named: case.of("targets", case.named)}
    veil = Veil(question, {**trace.data, "targets": targets})
    return Explanation(
        decision,
        _about(case),
        str(question.get("now", "")),
        outcome,
        tuple(_reasons(answer)),
        tuple(causes.fired(codes(answer) if denied else [])),
        tuple(causes.failed()) if denied else (),
        {} if denied else await _relied_on(opa, case, answer),
        found,
        (*others, *trace.notes),
    ), veil


async def _one_session(
    opa: Studied, question: Mapping[str, Any], session: str
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    sessions = [mapping(one) for one in question.get("sessions") or ()]
    if not sessions:
        raise StudyError("sessions: there is none in the question", remedy="Ask about at least one.")
    answer = mapping(await opa.evaluate(Decision.LIVE, question))
    verdicts = mapping(answer.get("sessions"))
    ended = [one for one in sessions if mapping(verdicts.get(str(one.get("id")))).get("verdict") != "keep"]
    if session:
        chosen = next((one for one in sessions if one.get("id") == session), None)
        if chosen is None:
            ids = ", ".join(str(one.get("id")) for one in sessions[:5])
            raise StudyError(f"--session {session}: it is not in the question", remedy=f"Say one of {ids}.")
    else:
        chosen = (ended or sessions)[0]
    others = [str(one.get("id")) for one in ended if one is not chosen]
    notes = (f"also not kept: {', '.join(others[:10])}; see them with --session",) if others else ()
    return {**question, "sessions": [chosen]}, notes


def _about(case: Case) -> str:
    if case.decision == Decision.ADMISSION:
        path = "/".join(map(str, case.get("path") or ()))
        return f"{case.get('verb')} {path} by {case.get('client', 'name')}"
    if case.decision == Decision.ADMIN:
        return f"{case.get('action')} by {case.get('client', 'name')}"
    about = case.login or f"{case.person}+{case.named}"
    kind = case.get("request", "kind") if case.decision == Decision.AUTHZ else None
    session = f", session {case.session['id']}" if case.session.get("id") else ""
    return f"{about}{f', {kind}' if kind else ''}{session}"


def _reasons(answer: Any) -> list[Mapping[str, Any]]:
    said = mapping(answer)
    found = [mapping(one) for one in said.get("reasons") or ()]
    return found + [reason for verdict in mapping(said.get("sessions")).values() for reason in _reasons(verdict)]


async def _relied_on(opa: Studied, case: Case, answer: Any) -> Mapping[str, Any]:
    """Of an allow: the grant, its approvals, and until when; of a login who it is, and what was proven."""
    said = mapping(answer)
    if identity := mapping(said.get("identity")):
        return {name: identity.get(name) for name in ("person", "via", "groups")}
    permit = mapping(said.get("permit"))
    name = case.grant or permit.get("grant")
    target = case.named or permit.get("target")
    grant = case.of("grants", case.person, str(name))
    if not name or grant is None:
        return {}
    found: dict[str, Any] = {"person": case.person, "grant": name, "target": target}
    for row in await _standing(opa, case):
        if row.get("grant") == name and row.get("target") == target:
            found |= {"state": row.get("state"), "until": row.get("until")}
    if permit:
        found |= {"until": permit.get("expires_at")}
    for what in ("approved_by", "kind", "windows"):
        if mapping(grant).get(what) is not None:
            found[what] = mapping(grant)[what]
    if approvals := mapping(case.of("approvals", case.person, str(name))):
        found["approvals"] = sorted(approvals)
    if rota := case.of("targets", str(target), "approval", "on_call"):
        found["on_call"] = rota
    return found


async def _standing(opa: Studied, case: Case) -> list[Mapping[str, Any]]:
    """The state of the person's grants, where the policies have a report of it."""
    try:
        answer = await opa.ask(GRANTS, {**case.question, "person": case.person, "persons": [case.person]})
    except StudyError:
        return []
    return [mapping(row) for row in answer.result] if isinstance(answer.result, list) else []
