"""Which decisions are on record of a person, a target, a reason, an outcome, a time."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.policy.contract import rfc3339
from gateway.studies.decisions import Fault, Recorded, opened

_DECISION = b'"decision":'


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for: all of what is said."""

    person: str = ""
    target: str = ""
    reason: str = ""
    outcome: str = ""
    kind: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def may_match(self) -> Callable[[bytes], bool]:
        """What a line has to hold: most are not worth being parsed."""
        # At the grants door the target is a path, and on record its parts.
        words = [self.person, *self.target.split("/"), self.reason]
        needles = [_DECISION, *map(_as_written, filter(None, words))]
        return lambda line: all(needle in line for needle in needles)

    def matches(self, found: Recorded) -> bool:
        return (
            self.person in ("", found.person)
            and self.target in ("", found.target)
            and self.outcome in ("", found.outcome)
            and self.kind in ("", found.kind)
            and (not self.reason or self.reason in found.reasons)
            and (self.since is None or found.time >= rfc3339(self.since))
            and (self.until is None or found.time < rfc3339(self.until))
        )


@dataclass(frozen=True, slots=True)
class Hits:
    """The newest of what was found, newest last; how many there were; and what could not be read."""

    decisions: list[dict[str, Any]]
    count: int
    faults: list[str]


def search(log: Path, wanted: Search, limit: int) -> Hits:
    """Raises StudyError where the log cannot be read."""
    newest: deque[dict[str, Any]] = deque(maxlen=limit)
    faults: list[str] = []
    count = 0
    with opened(log, wanted.since) as decisions:
        for found in decisions.some(wanted.may_match(), with_documents=False):
            if isinstance(found, Fault):
                faults.append(str(found))
            elif wanted.matches(found):
                newest.append(told(found))
                count += 1
    return Hits(list(newest), count, faults)


def told(found: Recorded) -> dict[str, Any]:
    """One decision in short: no word of what somebody typed but their name."""
    return {
        "time": found.time, "id": found.id, "decision": found.kind, "person": found.person, "target": found.target,
        "request": found.request, "outcome": found.outcome, "reasons": list(found.reasons),
        "session": str(found.record.get("session", "")), "place": found.place,
        "policy_revision": str(found.record.get("policy_revision", "")),
    }  # fmt: skip


def _as_written(word: str) -> bytes:
    """As the log writes it within quotes."""
    return json.dumps(word, ensure_ascii=False)[1:-1].encode("utf-8", "backslashreplace")
