"""What is different between the answer on record and another one to the same question.

Nothing that is told here holds a value out of a document or a question but numbers and moments: a report goes where the
record does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Any

from gateway.masks import HIDDEN, WITHHELD
from gateway.policy.contract import (
    AdminAnswer,
    AdmissionAnswer,
    Answer,
    AuthnAnswer,
    AuthzAnswer,
    ConfigAnswer,
    Decision,
)
from gateway.studies.decisions import Recorded
from gateway.studies.rejudging import Rejudged

SHAPES: Mapping[str, type[Answer]] = {
    Decision.AUTHN: AuthnAnswer,
    Decision.CONFIG: ConfigAnswer,
    Decision.AUTHZ: AuthzAnswer,
    Decision.ADMISSION: AdmissionAnswer,
    Decision.ADMIN: AdminAnswer,
}
"""The decisions that can be asked again: those with a basis."""

RANKS = {"reject": 0, "continue": 1, "accept": 2}
NOT_TOLD: frozenset[str] = frozenset({"message", "remedy"})


class Effect(StrEnum):
    GAINS = "gains"
    LOSES = "loses"
    CHANGES = "changes"


@dataclass(frozen=True, slots=True)
class Difference:
    """How one decision comes out otherwise."""

    recorded: Recorded
    effect: Effect
    rules: tuple[str, ...]
    """By what: the code that refused, or refuses now; or each field that is other, and how."""
    person: str
    is_masked: bool
    """What was asked was hidden in the record: the same policy may judge it otherwise."""


@dataclass(frozen=True, slots=True)
class _Judged:
    rank: int
    codes: tuple[str, ...]
    answer: Mapping[str, Any] | None


def difference(rejudged: Rejudged) -> Difference | None:
    """None where the decision comes out the same."""
    recorded = rejudged.recorded
    before, after = _recorded(recorded), _rejudged(rejudged)
    if after.answer is not None and before.answer is not None and alike(before.answer, after.answer):
        return None
    if after.rank > before.rank:
        effect, rules = Effect.GAINS, before.codes[:1] or (_outcomes(before, after),)
    elif after.rank < before.rank:
        effect, rules = Effect.LOSES, after.codes[:1] or (_outcomes(before, after),)
    elif after.answer is None or before.answer is None:
        effect, rules = Effect.CHANGES, (_to(before.codes, after.codes),)
    else:
        effect, rules = Effect.CHANGES, tuple(sorted(set(_fields(before, after)))) or ("other",)
    return Difference(recorded, effect, rules, _person(recorded, after.answer), _is_masked(recorded.question))


def _recorded(recorded: Recorded) -> _Judged:
    answer = recorded.answer
    # An answer that the gateway could not keep was a refusal, whatever it said.
    rank = 0 if answer is None or recorded.outcome not in ("allow", "deny", *RANKS) else _rank(answer)
    return _Judged(rank, recorded.reasons, answer)


def _rejudged(rejudged: Rejudged) -> _Judged:
    if rejudged.failure:
        return _Judged(0, ("policy_failed",), None)
    if rejudged.result is None:
        return _Judged(0, ("policy_undefined",), None)
    try:
        parsed = SHAPES[rejudged.recorded.decision].model_validate_json(json.dumps(rejudged.result))
    except (ValueError, RecursionError):
        return _Judged(0, ("policy_malformed",), None)
    answer = parsed.model_dump(mode="json", exclude_defaults=True)
    codes = tuple(str(reason["code"]) for reason in answer.get("reasons", ()))
    return _Judged(_rank(answer), codes, answer)


def _rank(answer: Mapping[str, Any]) -> int:
    return RANKS.get(str(answer.get("outcome")), 0) if "outcome" in answer else 2 * (answer.get("allow") is True)


def alike(recorded: Any, found: Any) -> bool:
    """Whether they are the same as far as the record shows: what is hidden in it may have been anything."""
    if isinstance(recorded, str) and isinstance(found, str) and (HIDDEN in recorded or WITHHELD in recorded):
        return _fits(recorded, found)
    if isinstance(recorded, dict) and isinstance(found, dict):
        return recorded.keys() == found.keys() and all(alike(value, found[name]) for name, value in recorded.items())
    if isinstance(recorded, list) and isinstance(found, list):
        return len(recorded) == len(found) and all(map(alike, recorded, found))
    return bool(recorded == found) and isinstance(recorded, bool) == isinstance(found, bool)


def _fits(recorded: str, found: str) -> bool:
    """Whether the parts that are shown stand in it, in their order."""
    first, *rest = recorded.replace(WITHHELD, HIDDEN).split(HIDDEN)
    if not found.startswith(first):
        return False
    place = len(first)
    for part in rest[:-1]:
        place = found.find(part, place) + len(part)
        if place < len(part):
            return False
    return len(found) - place >= len(rest[-1]) and found.endswith(rest[-1])


def _fields(before: _Judged, after: _Judged) -> Iterator[str]:
    """Each part of the answer that is other, in words."""
    if before.codes != after.codes:
        yield _to(before.codes, after.codes)
    for field, how in _changes("", before.answer, after.answer):
        if before.codes == after.codes or not field.startswith("reasons"):
            yield f"{field}: {how}"


def _outcomes(before: _Judged, after: _Judged) -> str:
    first, then = (str((one.answer or {}).get("outcome", "no reason given")) for one in (before, after))
    return first if first == then else f"{first} → {then}"


def _to(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    return f"{', '.join(before) or 'no reason'} → {', '.join(after) or 'no reason'}"


def _changes(path: str, before: Any, after: Any) -> Iterator[tuple[str, str]]:
    if alike(before, after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            below = f"{path}.{name}" if path else str(name)
            if name not in before or name not in after:
                yield below, "new" if name in after else "gone"
            elif name != "code":
                yield from _changes(below, before[name], after[name])
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield path, "more" if len(after) > len(before) else "fewer"
        else:
            for one, other in zip_longest(before, after):
                yield from _changes(path, one, other)
    else:
        yield path, _how(path, before, after)


def _how(path: str, before: Any, after: Any) -> str:
    if isinstance(before, bool) or isinstance(after, bool):
        return f"{json.dumps(after)} now" if isinstance(after, bool) else "other"
    if isinstance(before, int | float) and isinstance(after, int | float):
        return "more" if after > before else "less"
    if path.endswith("_at") and isinstance(before, str) and isinstance(after, str):
        return "later" if after > before else "earlier"
    return "other words" if path.rpartition(".")[2] in NOT_TOLD else "other"


def _person(recorded: Recorded, answer: Mapping[str, Any] | None) -> str:
    """Whom it is about, by a name that policy knows; what was typed and is nobody's name may be a secret."""
    known = ((answer or {}).get("identity") or {}).get("person")
    if known or recorded.kind != "authn" or recorded.basis.get(f"people/{recorded.person}"):
        return str(known or recorded.person)
    return "somebody unknown"


def _is_masked(value: Any) -> bool:
    match value:
        case str():
            return HIDDEN in value or WITHHELD in value
        case Mapping():
            return any(map(_is_masked, value.values()))
        case list():
            return any(map(_is_masked, value))
    return False
