"""Who reaches what: the decisions asked for many people and targets at one moment.

Nothing is read off the data: a grant that policy does not take is none here either.  The data only says whom to ask
about.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.policy.contract import Decision
from gateway.studies import questions
from gateway.studies.engine import Studied
from gateway.studies.errors import StudyError
from gateway.studies.logins import Doorstep, Login
from gateway.studies.proofs import mapping
from gateway.studies.questions import Circumstances
from gateway.studies.requests import SIMPLE, Facts, typical

EVERY_FACTOR = ("publickey", "certificate", "password", "totp", "oidc", "questions")
PLAIN = "no_grant"
"""The code of whoever has nothing to do with a target; every other refusal is a near miss."""
UNDEFINED = {"code": "undefined", "message": "The policy has no answer.", "remedy": "Is it the right folder?"}


@dataclass(frozen=True, slots=True)
class Access:
    """What one person may have at one target."""

    person: str
    target: str
    state: str
    """`allowed`, or the code of the refusal."""
    grant: str = ""
    until: str = ""
    proofs: tuple[str, ...] = ()
    """The chains that lead here, each enough."""
    requests: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    """Of the requests that were asked about, the codes of the others."""
    reasons: tuple[Mapping[str, Any], ...] = ()

    @property
    def allowed(self) -> bool:
        return self.state == "allowed"


Pair = tuple[str, str]


class Survey:
    """Questions about many pairs of a person and a target."""

    def __init__(self, opa: Studied, when: Circumstances, people: Any, targets: Any, grants: Any) -> None:
        self._opa = opa
        self._when = when
        self.people, self.targets, self.grants = mapping(people), mapping(targets), mapping(grants)

    @classmethod
    async def of(cls, opa: Studied, when: Circumstances) -> Survey:
        return cls(opa, when, *[await opa.read(root) for root in ("people", "targets", "grants")])

    def pairs(self, person: str = "", target: str = "") -> list[Pair]:
        """Everybody with a target, one with all targets, or one pair."""
        people = [person] if person else sorted(self.people)
        return [(one, other) for one in people for other in ([target] if target else sorted(self.targets))]

    def granted_pairs(self, person: str = "", target: str = "") -> list[Pair]:
        """Those that some grant is about, whatever becomes of it; one that names no target is about every target."""
        found: set[Pair] = set()
        for one in [person] if person else self.grants:
            for grant in mapping(self.grants.get(one)).values():
                named = mapping(grant).get("target")
                found |= {(one, other) for other in ([named] if isinstance(named, str) else self.targets)}
        return sorted(pair for pair in found if target in ("", pair[1]))

    def know(self, *, person: str = "", target: str = "") -> None:
        """Raises StudyError for somebody, or a target, that is not in the data."""
        for what, name, known in (("person", person, self.people), ("target", target, self.targets)):
            if name and name not in known:
                near = similar(name, known)
                raise StudyError(
                    f"there is no {what} {name!r} in the data",
                    remedy=f"Did you mean {', '.join(near)}?" if near else f"The data has {len(known)} of them.",
                )

    def is_near(self, access: Access) -> bool:
        """Whether somebody who may not enter nearly may: there is a grant, or a reason of their own."""
        if access.allowed:
            return False
        is_granted = (access.person, access.target) in self.granted_pairs(access.person, access.target)
        return is_granted or access.state not in (PLAIN, "person_disabled")

    async def look(self, pairs: Sequence[Pair], requests: Mapping[str, Facts] | None = None) -> list[Access]:
        """One for each pair.  `requests` are asked about in place of typical ones."""
        told = await self._refused_whatever_they_prove(pairs)
        open_pairs = [pair for pair in pairs if pair not in told]
        doorstep = await Doorstep.of(self._opa, self._when)
        entrants = [doorstep.entrant(person, target, self.people.get(person)) for person, target in open_pairs]
        for pair, found in zip(
            open_pairs, await self._entering(open_pairs, await doorstep.ways_in(entrants), requests), strict=True
        ):
            told[pair] = found
        return [told[pair] for pair in pairs]

    async def _refused_whatever_they_prove(self, pairs: Sequence[Pair]) -> dict[Pair, Access]:
        """Those that `config` refuses an identity that has proven everything there is to prove."""
        asked = [
            self._config(pair, {"person": pair[0], "groups": self._groups(pair[0]), "via": list(EVERY_FACTOR)}, ())
            for pair in pairs
        ]
        answers = await self._opa.ask_each(Decision.CONFIG, asked)
        found = {}
        for pair, answer in zip(pairs, answers, strict=True):
            said = mapping(answer.result)
            if said.get("allow") is not True:
                found[pair] = _refused(pair, said)
        return found

    async def _entering(
        self, pairs: Sequence[Pair], logins: Sequence[Sequence[Login]], requests: Mapping[str, Facts] | None
    ) -> list[Access]:
        """What becomes of each at `config`, by each of their logins, and then of their requests."""
        tried = [(pair, login) for pair, ways in zip(pairs, logins, strict=True) for login in ways]
        answers = await self._opa.ask_each(
            Decision.CONFIG, [self._config(pair, mapping(login.identity), login.proofs) for pair, login in tried]
        )
        permits: dict[Pair, list[tuple[Login, Mapping[str, Any]]]] = {pair: [] for pair in pairs}
        refusals: dict[Pair, Access] = {}
        for (pair, login), answer in zip(tried, answers, strict=True):
            said = mapping(answer.result)
            if said.get("allow") is True and mapping(said.get("permit")):
                permits[pair].append((login, said["permit"]))
            else:
                refusals[pair] = _refused(pair, said)
        judged = await self._requests([(pair, *ways[0]) for pair, ways in permits.items() if ways], requests)
        return [
            _allowed(pair, permits[pair], judged[pair]) if permits[pair] else refusals.get(pair, _nobody_enters(pair))
            for pair in pairs
        ]

    async def _requests(
        self, held: Sequence[tuple[Pair, Login, Mapping[str, Any]]], requests: Mapping[str, Facts] | None
    ) -> dict[Pair, dict[str, str]]:
        """By request, the code of its refusal, or nothing where it is allowed."""
        asked = [
            (pair, name, questions.authz(self._when, login.name, mapping(login.identity), permit, request))
            for pair, login, permit in held
            for name, request in (requests or typical(self.targets.get(str(permit.get("target"))))).items()
        ]
        answers = await self._opa.ask_each(Decision.AUTHZ, [question for _, _, question in asked])
        judged: dict[Pair, dict[str, str]] = {pair: {} for pair, _, _ in held}
        for (pair, name, _), answer in zip(asked, answers, strict=True):
            said = mapping(answer.result)
            judged[pair][name] = "" if said.get("allow") is True else str(first_reason(said)["code"])
        return judged

    def _config(self, pair: Pair, identity: Mapping[str, Any], proofs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return questions.config(self._when, questions.login_name(*pair), identity, proofs, SIMPLE["shell"])

    def _groups(self, person: str) -> list[str]:
        groups = mapping(self.people.get(person)).get("groups")
        return [group for group in groups if isinstance(group, str)] if isinstance(groups, list) else []


def similar(name: str, known: Iterable[str]) -> list[str]:
    """A few names that may have been meant."""
    return difflib.get_close_matches(name, list(known), n=3)


def first_reason(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Why not; a refusal without a reason has one of ours."""
    reasons = [reason for reason in said.get("reasons") or () if isinstance(reason, Mapping) and reason.get("code")]
    return reasons[0] if reasons else (UNDEFINED if "allow" not in said else {**UNDEFINED, "code": "unexplained"})


def _refused(pair: Pair, said: Mapping[str, Any]) -> Access:
    reason = first_reason(said)
    return Access(*pair, state=str(reason["code"]), reasons=(reason,))


def _nobody_enters(pair: Pair) -> Access:
    reason = {
        "code": "not_recognised",
        "message": "Nothing that this person could prove opens the door.",
        "remedy": "Look at their keys and chain, and at data.door: docs/authentication.md.",
    }
    return Access(*pair, state="not_recognised", reasons=(reason,))


def _allowed(pair: Pair, ways: Sequence[tuple[Login, Mapping[str, Any]]], judged: Mapping[str, str]) -> Access:
    _, permit = ways[0]
    return Access(
        *pair,
        state="allowed",
        grant=str(permit.get("grant", "")),
        until=str(permit.get("expires_at", "")),
        proofs=tuple(dict.fromkeys(login.chain for login, _ in ways)),
        requests=tuple(name for name, code in judged.items() if not code),
        refused={name: code for name, code in judged.items() if code},
    )
