"""The whole story of one connection, asked of policy step by step, without a connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.policy.contract import Decision
from gateway.studies import questions
from gateway.studies.access import first_reason, similar
from gateway.studies.engine import Studied
from gateway.studies.errors import StudyError
from gateway.studies.logins import Doorstep, Login
from gateway.studies.proofs import mapping, named
from gateway.studies.questions import Circumstances
from gateway.studies.requests import SIMPLE, Facts, typical


@dataclass(frozen=True, slots=True)
class Step:
    """One question of the story and what policy said."""

    step: str
    decision: str
    allowed: bool
    question: Mapping[str, Any]
    answer: Any
    reasons: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Story:
    """What would happen.  `steps` end with the first that stops it, but for requests, which are each other's equals."""

    person: str
    target: str
    at: str
    login: Login
    steps: tuple[Step, ...]
    permit: Mapping[str, Any] | None = None
    requests: tuple[Step, ...] = ()
    wanted: tuple[str, ...] = ()
    """The requests that somebody named: with all of them it is allowed; the typical ones are only told."""
    notes: tuple[str, ...] = field(default=())

    @property
    def refused(self) -> Step | None:
        """The step that stops it."""
        wanted = (step for step in self.requests if step.step in self.wanted)
        return next((step for step in (*self.steps, *wanted) if not step.allowed), None)

    @property
    def outcome(self) -> str:
        """`allow`, or `deny:` and the code."""
        refused = self.refused
        return "allow" if refused is None else f"deny:{refused.reasons[0]['code']}"


async def simulate(
    opa: Studied,
    when: Circumstances,
    person: str,
    target: str,
    *,
    proofs: Sequence[str] = (),
    requests: Mapping[str, Facts] | None = None,
) -> Story:
    """`proofs` in their order; without any, the shortest way in that there is for whoever this person is."""
    people, targets = mapping(await opa.read("people")), mapping(await opa.read("targets"))
    doorstep = await Doorstep.of(opa, when)
    entrant = doorstep.entrant(person, target, people.get(person))
    notes = tuple(_unknown("person", person, people) + _unknown("target", target, targets))
    login = await doorstep.walk(entrant, named(proofs, entrant.has)) if proofs else await _best(doorstep, entrant)
    steps = [_entered(login)]
    permit: Mapping[str, Any] | None = None
    if login.identity is not None:
        first = next(iter((requests or {"shell": SIMPLE["shell"]}).values()))
        # Whatever is not a program's begin comes on a channel of its own, after one that is.
        asked = questions.config(when, login.name, login.identity, login.proofs, _opening(first))
        step = _judged("config", Decision.CONFIG, asked, (await opa.ask(Decision.CONFIG, asked)).result)
        steps.append(step)
        permit = mapping(step.answer).get("permit") if step.allowed else None
    judged: tuple[Step, ...] = ()
    if permit is not None:
        judged = await _requests(opa, when, login, permit, requests or typical(targets.get(str(permit.get("target")))))
    return Story(person, target, when.facts("")["now"], login, tuple(steps), permit, judged,
                 tuple(requests or ()), notes)  # fmt: skip


async def _best(doorstep: Doorstep, entrant: Any) -> Login:
    """The first way in, else what became of the first proof there is."""
    [ways] = await doorstep.ways_in([entrant])
    return ways[0] if ways else await doorstep.walk(entrant, entrant.has[:1])


async def _requests(
    opa: Studied, when: Circumstances, login: Login, permit: Mapping[str, Any], requests: Mapping[str, Facts]
) -> tuple[Step, ...]:
    asked = {
        name: questions.authz(when, login.name, mapping(login.identity), permit, request)
        for name, request in requests.items()
    }
    answers = await opa.ask_each(Decision.AUTHZ, list(asked.values()))
    return tuple(
        _judged(name, Decision.AUTHZ, question, answer.result)
        for (name, question), answer in zip(asked.items(), answers, strict=True)
    )


def _entered(login: Login) -> Step:
    reasons = login.tried[-1].reasons if login.tried and login.identity is None else ()
    if login.identity is None and not reasons:
        further = ", ".join(login.methods) or "nothing"
        reasons = (
            {
                "code": "more_proof_needed",
                "message": f"This is not enough to get in; what may come next: {further}.",
                "remedy": "Name further proofs with --proof, in their order.",
            },
        )
    answer = {"outcome": "accept" if login.identity else "reject", "identity": login.identity}
    return Step("authn", Decision.AUTHN, login.identity is not None, login.question, answer, tuple(reasons))


def _judged(name: str, decision: str, question: Mapping[str, Any], answer: Any) -> Step:
    said = mapping(answer)
    allowed = said.get("allow") is True
    return Step(name, decision, allowed, question, answer, () if allowed else (first_reason(said),))


def _opening(request: Facts) -> Facts:
    return request if request.get("kind") in {"shell", "exec", "subsystem"} else {"kind": "session"}


def _unknown(what: str, name: str, known: Mapping[str, Any]) -> list[str]:
    if not name or name in known:
        return []
    near = similar(name, known)
    hint = f"; similar: {', '.join(near)}" if near else ""
    return [f"there is no {what} {name!r} in the data{hint}"]


def expected(text: str) -> str:
    """What `--expect` says, made sure that it says something.  Raises StudyError."""
    if text in ("allow", "deny") or (text.startswith("deny:") and text[5:].replace("_", "").isalnum()):
        return text
    raise StudyError(f"--expect {text!r} is none", remedy="Say allow, deny, or deny:CODE, such as deny:no_grant.")


def meets(outcome: str, expectation: str) -> bool:
    return outcome == expectation or (expectation == "deny" and outcome.startswith("deny:"))
