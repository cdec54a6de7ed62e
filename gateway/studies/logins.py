"""How people would get in: policy is asked about one proof after the other, until it accepts or nothing is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.policy.contract import Decision
from gateway.proofs import Attempt
from gateway.studies import questions
from gateway.studies.engine import Studied
from gateway.studies.proofs import Proof, mapping, of_person
from gateway.studies.questions import Circumstances

MOST_FACTORS = 4
OFFER = Attempt(method="none", proven=False)


@dataclass(frozen=True, slots=True)
class Tried:
    """One proof shown, and what policy said of it."""

    proof: str
    assumed: str
    outcome: str
    reasons: tuple[Mapping[str, Any], ...] = ()
    verified_by: str = ""
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Login:
    """A way that led in (`identity` is there) or did not."""

    name: str
    tried: tuple[Tried, ...] = ()
    proofs: tuple[Mapping[str, Any], ...] = ()
    identity: Mapping[str, Any] | None = None
    methods: tuple[str, ...] = ()
    question: Mapping[str, Any] = field(default_factory=dict)
    """The last one that was asked."""

    @property
    def chain(self) -> str:
        """What was proven, in policy's words."""
        via = (self.identity or {}).get("via") or [tried.proof for tried in self.tried]
        return " then ".join(map(str, via)) or "nothing"


@dataclass(frozen=True, slots=True)
class Entrant:
    """Somebody on the way to a target (or to none)."""

    person: str
    target: str = ""
    entry: Any = None
    has: Sequence[Proof] = ()

    @property
    def login(self) -> str:
        return questions.login_name(self.person, self.target)


class Doorstep:
    """Logins under one policy at one moment."""

    def __init__(self, opa: Studied, when: Circumstances, door: Any, authorities: Any) -> None:
        self._opa = opa
        self._when = when
        self._door = mapping(door)
        self._authorities = authorities

    @classmethod
    async def of(cls, opa: Studied, when: Circumstances) -> Doorstep:
        return cls(opa, when, await opa.read("door"), await opa.read("authorities"))

    def entrant(self, person: str, target: str, entry: Any) -> Entrant:
        return Entrant(person, target, entry, of_person(person, entry, self._authorities, self._when.at))

    async def ways_in(self, entrants: Sequence[Entrant]) -> list[list[Login]]:
        """For each, every way that led in, those with the fewest proofs first."""
        found: list[list[Login]] = [[] for _ in entrants]
        states = await self._begun(entrants)
        for number, login in states:
            if login.identity is not None:
                found[number].append(login)
        for _ in range(MOST_FACTORS):
            steps = [
                (number, login, proof)
                for number, login in states
                for proof in entrants[number].has
                if login.identity is None and proof.method in login.methods
            ]
            went = await self._shown([(entrants[number], login, proof) for number, login, proof in steps])
            # Two keys of one person lead to the same place.
            further: dict[tuple[int, tuple[str, ...]], Login] = {}
            for (number, _, _), login in zip(steps, went, strict=True):
                if login.identity is not None:
                    found[number].append(login)
                elif login.tried[-1].outcome == "continue" and len(login.proofs) == len(login.tried):
                    further.setdefault((number, tuple(tried.proof for tried in login.tried)), login)
            states = [(number, login) for (number, _), login in further.items()]
        return [_distinct(logins) for logins in found]

    async def walk(self, entrant: Entrant, proofs: Sequence[Proof]) -> Login:
        """These proofs in this order: what came of it."""
        [(_, login)] = await self._begun([entrant])
        for proof in proofs:
            if login.identity is not None:
                break
            [login] = await self._shown([(entrant, login, proof)])
        return login

    async def _begun(self, entrants: Sequence[Entrant]) -> list[tuple[int, Login]]:
        """Each client first asks what it may do (RFC 4252 section 5.2)."""
        asked = [questions.authn(self._when, entrant.login, _facts(OFFER), ()) for entrant in entrants]
        answers = await self._opa.ask_each(Decision.AUTHN, asked)
        began = []
        for number, (entrant, answer, question) in enumerate(zip(entrants, answers, asked, strict=True)):
            said = mapping(answer.result)
            login = Login(entrant.login, methods=tuple(said.get("methods", ())), question=question)
            if said.get("outcome") == "accept":
                login = replace(login, identity=said.get("identity"), proofs=(_facts(OFFER),))
            began.append((number, login))
        return began

    async def _shown(self, steps: Sequence[tuple[Entrant, Login, Proof]]) -> list[Login]:
        """Where each login is after one more proof, verified where policy asks for that."""
        attempts = [proof.attempt for _, _, proof in steps]
        asked = [self._question(login, attempt) for (_, login, _), attempt in zip(steps, attempts, strict=True)]
        answers = [answer.result for answer in await self._opa.ask_each(Decision.AUTHN, asked)]
        again = [number for number, said in enumerate(answers) if isinstance(said, Mapping) and said.get("verify")]
        for number in again:
            entrant, login, proof = steps[number]
            person = {**mapping(entrant.entry), "name": entrant.person}
            attempts[number] = proof.verified(answers[number]["verify"], person, self._door)
            asked[number] = self._question(login, attempts[number])
        for number, answer in zip(
            again, await self._opa.ask_each(Decision.AUTHN, [asked[number] for number in again]), strict=True
        ):
            answers[number] = answer.result
        return [
            _after(login, proof, attempt, said, question)
            for (_, login, proof), attempt, said, question in zip(steps, attempts, answers, asked, strict=True)
        ]

    def _question(self, login: Login, attempt: Attempt) -> dict[str, Any]:
        return questions.authn(self._when, login.name, _facts(attempt), login.proofs)


def _after(login: Login, proof: Proof, attempt: Attempt, said: Any, question: Mapping[str, Any]) -> Login:
    said = said if isinstance(said, Mapping) else {"outcome": "undefined"}
    outcome = str(said.get("outcome"))
    counts = attempt.proven and outcome in ("accept", "continue")
    assumed = proof.assumed + (f", found so by {attempt.verified_by}" if attempt.verified else "")
    tried = Tried(proof.kind, assumed, outcome, tuple(said.get("reasons") or ()), attempt.verified_by,
                  tuple(said.get("methods") or ()))  # fmt: skip
    return Login(
        login.name,
        (*login.tried, tried),
        (*login.proofs, _facts(attempt)) if counts else login.proofs,
        said.get("identity") if outcome == "accept" else None,
        tuple(said.get("methods") or ()),
        question,
    )


def _facts(attempt: Attempt) -> dict[str, Any]:
    return attempt.model_dump(mode="json")


def _distinct(logins: Iterable[Login]) -> list[Login]:
    """One for each chain and identity: two keys of one person are the same way."""
    found: dict[str, Login] = {}
    for login in logins:
        found.setdefault(f"{login.chain} {sorted((login.identity or {}).get('groups', ()))}", login)
    return list(found.values())
