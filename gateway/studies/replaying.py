"""Yesterday's decisions under other policies: each asked again as it was asked then, and what comes out otherwise.

Every decision is asked alone, with its own question and its own documents.  What follows from it is not played on: who
is refused at login made the requests of that session all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.assets import folder
from gateway.concurrency import each
from gateway.policy.contract import SCHEMA, rfc3339
from gateway.studies.decisions import DecisionLog, Fault, Recorded, opened
from gateway.studies.deps import roots
from gateway.studies.differences import SHAPES, difference
from gateway.studies.engine import Studied
from gateway.studies.rejudging import BATCH, ROOT, Rejudge
from gateway.studies.sources import Policies, read_policies
from gateway.studies.tally import Tally

Progress = Callable[[int], None]
"""Told how many decisions of the log were gone through."""


@dataclass(frozen=True, slots=True)
class Span:
    """From when on, and until when."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, time: str) -> bool:
        return (self.since is None or time >= rfc3339(self.since)) and (
            self.until is None or time < rfc3339(self.until)
        )


async def replay(
    opa: Studied, log: Path, span: Span, *, on_record: bool = True, progress: Progress = lambda _: None
) -> Tally:
    """Ask the decisions of `span` again: on the documents on record, or else on what the OPA holds.

    Raises StudyError where the log cannot be read, or the policies fail for very many.
    """
    tally = Tally()
    with opened(log, span.since) as decisions:
        chunks = _chunks(decisions, span, tally, on_record, progress)
        rejudge = Rejudge(opa, decisions.documents if on_record else None)

        async def worker(_: int) -> None:
            # One shared iterator: while OPA evaluates for one, another reads, asks or compares.
            for chunk in chunks:
                for rejudged in await rejudge.each(chunk):
                    tally.compared(difference(rejudged))

        await each(worker, range((os.cpu_count() or 1) + 1), at_once=(os.cpu_count() or 1) + 1)
    return tally


def unrecorded(policies: Policies, tally: Tally) -> dict[str, list[str]]:
    """By decision what the policies may read and is on no record: it was taken to be empty, and may not have been.

    Raises StudyError.
    """
    asked = [decision for decision in SHAPES if decision in tally.roots]
    read = dict(zip(asked, roots(policies, [_query(decision) for decision in asked]), strict=True))
    beyond = {decision: read[decision] - tally.roots[decision] for decision in asked}
    if any(beyond.values()):
        # What is absent is not always named: our own policies say what a record can hold.
        ours = read_policies(folder("policies"))
        queries = [f"data.gateway.basis.{decision.split('/')[1]}_documents" for decision in asked]
        for decision, known in zip(asked, roots(ours, queries), strict=True):
            beyond[decision] -= known
    return {decision: sorted(missing) for decision, missing in beyond.items() if missing}


def count(log: Path, since: datetime | None) -> int:
    """How many decisions there are to be gone through, about; fast."""
    with opened(log, since) as decisions:
        return sum(1 for _ in decisions.lines())


def _chunks(
    decisions: DecisionLog, span: Span, tally: Tally, on_record: bool, progress: Progress
) -> Iterator[list[Recorded]]:
    """What is to be asked again, some hundreds at a time; the rest is counted."""
    chunk: list[Recorded] = []
    seen = 0
    for found in decisions:
        if isinstance(found, Fault):
            tally.fault(found)
            continue
        seen += 1
        if span.holds(found.time):
            why_not = _left_out(decisions, found, on_record)
            tally.saw(found, why_not)
            if not why_not:
                chunk.append(found)
        if len(chunk) == BATCH:
            yield chunk
            chunk = []
        if seen % BATCH == 0:
            progress(seen)
    yield chunk
    progress(seen)


def _left_out(decisions: DecisionLog, found: Recorded, on_record: bool) -> str:
    """Why it is not asked again; empty where it is."""
    if found.kind == "live":
        return "live"
    if found.decision not in SHAPES:
        return "unknown"
    if found.question.get("schema") != SCHEMA:
        return "version"
    if found.answer is None:
        return "unanswered"
    if not on_record:
        return ""
    if found.omitted:
        return "omitted"
    if not found.basis or not all(ROOT.fullmatch(name.partition("/")[0]) for name in found.basis):
        return "no_basis"
    return "" if decisions.documents.holds(found.basis) else "missing"


def _query(decision: str) -> str:
    return f"data.{decision.replace('/', '.')}"
