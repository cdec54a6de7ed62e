"""The shortest changes that would allow what was refused, each tried on the real policies before it is told.

A candidate that brings another refusal is followed: of it too what might help is tried, up to so many steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.policy.contract import Decision
from gateway.studies.access import first_reason
from gateway.studies.engine import Change, Studied
from gateway.studies.errors import StudyError
from gateway.studies.proofs import mapping
from gateway.studies.register import candidates, why_none
from gateway.studies.remedies import Case, Step, applied, patch, pointer

MOST_STEPS = 3
MOST_TRIES = 60
MOST_PROPOSALS = 3
NOTHING_FITS = "none of the changes that are known for this code fits here"
MALFORMED_TARGETS = "gateway/targets/malformed"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Steps that together turned the refusal into an allow."""

    steps: tuple[str, ...]
    notes: tuple[str, ...]
    data: Sequence[Mapping[str, Any]]
    """JSON Patch (RFC 6902) on the base documents."""
    question: Sequence[Mapping[str, Any]]
    """JSON Patch on the question: what the person brings about."""
    commands: tuple[str, ...]
    outcome: str


@dataclass(frozen=True, slots=True)
class Proposals:
    """What was found, and what was tried in vain."""

    found: tuple[Proposal, ...] = ()
    tried: tuple[str, ...] = ()
    """What did not do, with the refusal that was left."""
    why_none: str = ""


@dataclass(frozen=True, slots=True)
class _State:
    steps: tuple[Step, ...] = ()
    reason: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> tuple[Change, ...]:
        return tuple(change for step in self.steps for change in step.data)

    @property
    def question(self) -> tuple[Change, ...]:
        return tuple(change for step in self.steps for change in step.question)


def outcome_of(decision: str, answer: Any) -> tuple[str, Mapping[str, Any]]:
    """`allow`, of authn `accept` or `continue`; else `deny:CODE`, of live perhaps `warn:CODE`, with its reason."""
    said = mapping(answer)
    if decision == Decision.LIVE:
        sessions = mapping(said.get("sessions"))
        said = next((mapping(one) for one in sessions.values()), {})
        if said.get("verdict") == "keep":
            return "allow", {}
    elif decision == Decision.AUTHN and said.get("outcome") in ("accept", "continue"):
        return str(said["outcome"]), {}
    elif said.get("allow") is True:
        return "allow", {}
    reason = first_reason(said)
    return f"{'warn' if said.get('verdict') == 'warn' else 'deny'}:{reason.get('code')}", reason


def is_refused(outcome: str) -> bool:
    """Whether there is something to turn."""
    return ":" in outcome


async def proposals(
    opa: Studied, data: Mapping[str, Any], decision: str, question: Mapping[str, Any], reason: Mapping[str, Any]
) -> Proposals:
    """The fewest steps that do, at most three such ways."""
    found: list[Proposal] = []
    tried: dict[str, None] = {}
    states, seen, tries = [_State(reason=reason)], {""}, 0
    for _ in range(MOST_STEPS):
        further: list[_State] = []
        for state in states:
            for step in await _candidates(opa, data, decision, question, state):
                new = replace(state, steps=(*state.steps, step))
                key = json.dumps([patch(data, new.data), patch(question, new.question)], sort_keys=True, default=str)
                if key in seen or tries >= MOST_TRIES:
                    continue
                seen.add(key)
                tries += 1
                outcome, left = await _try(opa, decision, question, new)
                if not is_refused(outcome):
                    found.append(_told(data, question, new, outcome))
                else:
                    tried[f"{' and '.join(one.title for one in new.steps)}: {outcome}"] = None
                    further.append(replace(new, reason=left))
        if found or not further:
            break
        states = further
    none = "" if found or tried else why_none(str(reason.get("code")), decision) or NOTHING_FITS
    return Proposals(tuple(found[:MOST_PROPOSALS]), () if found else tuple(tried), none)


async def _candidates(
    opa: Studied, data: Mapping[str, Any], decision: str, question: Mapping[str, Any], state: _State
) -> list[Step]:
    code = str(state.reason.get("code"))
    problems = await _problems(opa) if code == "target_misconfigured" else {}
    case = Case(decision, applied(question, state.question), applied(data, state.data), state.reason)
    about = {case.named} if case.named else {case.target_of(grant) for grant in case.grants.values()}
    case = replace(case, problems=[text for target in sorted(about) for text in problems.get(target, ())])
    return [step for remedy in candidates(code, decision) for step in remedy(case)]


async def _problems(opa: Studied) -> Mapping[str, list[str]]:
    """What the policies say is wrong with targets, where they say it."""
    answer = await opa.ask(MALFORMED_TARGETS, {})
    rows = answer.result if isinstance(answer.result, list) else []
    return {str(row.get("target")): list(map(str, row.get("problems") or ())) for row in map(mapping, rows)}


async def _try(
    opa: Studied, decision: str, question: Mapping[str, Any], state: _State
) -> tuple[str, Mapping[str, Any]]:
    try:
        async with opa.changed(state.data):
            answer = await opa.ask(decision, applied(question, state.question))
    except StudyError as error:
        return "deny:fails", {"code": "fails", "message": str(error)}
    return outcome_of(decision, answer.result)


def _told(data: Mapping[str, Any], question: Mapping[str, Any], state: _State, outcome: str) -> Proposal:
    notes = dict.fromkeys(step.note for step in state.steps if step.note)
    return Proposal(
        tuple(step.title for step in state.steps),
        tuple(notes),
        patch(data, state.data),
        patch(question, state.question),
        tuple(_commands(data, state.data)),
        outcome,
    )


def _commands(data: Mapping[str, Any], changes: Sequence[Change]) -> list[str]:
    """How each change is written: grants and approvals by the grants door, the rest by an administrator of OPA."""
    commands = []
    documents = {"grants": 3, "approvals": 4}
    after = applied(data, changes)
    for path in dict.fromkeys(change.path[: documents.get(change.path[0], 0)] for change in changes):
        if path:
            value = after
            for name in path:
                value = value[name]
            commands.append(f'curl -X PUT -H @door.header "$DOOR/v1/data{pointer(path)}" -d {_quoted(value)}')
    rest = [change for change in changes if change.path[0] not in documents]
    if rest:
        commands.append(
            "curl -X PATCH -H @opa-admin.header -H 'Content-Type: application/json-patch+json' "
            f'"$OPA/v1/data" -d {_quoted(patch(data, rest))}'
        )
    return commands


def _quoted(value: Any) -> str:
    """For a POSIX shell."""
    return "'" + json.dumps(value, ensure_ascii=False).replace("'", "'\\''") + "'"
