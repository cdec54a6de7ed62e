"""What a replay found, counted: who gains, who loses, what changes, by rule, and what could not be asked again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.studies.decisions import Fault, Recorded
from gateway.studies.differences import Difference, Effect

LEFT_OUT = {
    "live": "verdicts on live sessions: their record has no basis, and the sweep asks anew each second",
    "unanswered": "policy gave no answer then: the gateway refused",
    "omitted": "a document was too long for the record",
    "no_basis": "the record does not say what the decision stood on",
    "missing": "a document that the decision stood on is not on record",
    "version": "asked by another version of the contract",
    "unknown": "no decision of this version",
}
"""Why a decision was not asked again."""
NATURAL = frozenset({"live", "unanswered"})
"""Those that take nothing from the report: there is no answer that could have come out otherwise."""
MASKED = "masked"
"""In place of an effect, where the record hides what was asked."""
FAULTS_TOLD = 50


@dataclass(slots=True)
class Entry:
    """Differences of one kind."""

    decisions: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    people: set[str] = field(default_factory=set)
    example: tuple[str, str] = ("", "")
    """Time and id of the first decision."""

    def add(self, found: Difference) -> None:
        self.decisions += 1
        self.people.add(found.person)
        self.rules.update(found.rules)
        this = (found.recorded.time, found.recorded.id)
        self.example = min(self.example, this) if self.example[1] else this


class Tally:
    """Counts, in whatever order decisions come."""

    def __init__(self) -> None:
        self.decisions = 0
        self.asked = 0
        self.effects: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.faults: list[str] = []
        self.fault_count = 0
        self.roots: dict[str, set[str]] = {}
        """By decision: the base documents that are on record of it."""
        self.unrecorded: Mapping[str, list[str]] = {}
        """By decision: what the policies read and no record can hold."""
        self._times: tuple[str, str] = ("", "")
        self._who: dict[tuple[str, str, str], Entry] = {}
        self._rules: dict[tuple[str, str, str], Entry] = {}

    def fault(self, fault: Fault) -> None:
        self.fault_count += 1
        if len(self.faults) < FAULTS_TOLD:
            self.faults.append(str(fault))

    def saw(self, recorded: Recorded, left_out: str) -> None:
        self.decisions += 1
        first, last = self._times
        self._times = (min(first or recorded.time, recorded.time), max(last, recorded.time))
        self.roots.setdefault(recorded.decision, set()).update(name.partition("/")[0] for name in recorded.basis)
        if left_out:
            self.left_out[left_out] += 1

    def compared(self, found: Difference | None) -> None:
        self.asked += 1
        if found is None:
            return
        effect = MASKED if found.is_masked else found.effect.value
        self.effects[effect] += 1
        self._who.setdefault((effect, found.person, found.recorded.target), Entry()).add(found)
        for rule in found.rules:
            self._rules.setdefault((effect, found.recorded.kind, rule), Entry()).add(found)

    def count(self, effects: Iterable[str]) -> int:
        """How many decisions come out otherwise in one of these ways."""
        return sum(self.effects[effect] for effect in effects)

    @property
    def is_whole(self) -> bool:
        """Whether everything that could come out otherwise was asked."""
        return not (self.fault_count or self.unrecorded or self.left_out.keys() - NATURAL)

    def told(self) -> dict[str, Any]:
        """For programs; the same whatever the order was."""
        counts = {effect.value: self.effects[effect.value] for effect in Effect}
        return {
            "first": self._times[0], "last": self._times[1],
            "decisions": self.decisions, "asked": self.asked, "same": self.asked - self.effects.total(),
            **counts, MASKED: self.effects[MASKED],
            "left_out": dict(sorted(self.left_out.items())), "whole": self.is_whole,
            "faults": self.faults, "fault_count": self.fault_count,
            "unrecorded": {decision: list(roots) for decision, roots in sorted(self.unrecorded.items())},
            "who": [self._person(key, entry) for key, entry in _sorted(self._who)],
            "rules": [self._rule(key, entry) for key, entry in _sorted(self._rules)],
        }  # fmt: skip

    def _person(self, key: tuple[str, str, str], entry: Entry) -> dict[str, Any]:
        effect, person, target = key
        return {
            "effect": effect, "person": person, "target": target, "decisions": entry.decisions,
            "rules": [rule for rule, _ in sorted(entry.rules.items(), key=lambda item: (-item[1], item[0]))],
            "example": entry.example[1],
        }  # fmt: skip

    def _rule(self, key: tuple[str, str, str], entry: Entry) -> dict[str, Any]:
        effect, kind, rule = key
        return {
            "effect": effect, "decision": kind, "rule": rule, "decisions": entry.decisions,
            "people": len(entry.people), "example": entry.example[1],
        }  # fmt: skip


def _sorted(entries: Mapping[tuple[str, str, str], Entry]) -> list[tuple[tuple[str, str, str], Entry]]:
    """Gains first, and of each effect the most frequent."""
    order = [*(effect.value for effect in Effect), MASKED]
    return sorted(entries.items(), key=lambda item: (order.index(item[0][0]), -item[1].decisions, item[0]))
