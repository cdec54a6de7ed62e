"""The question that is explained: read from a file, or from the record of the decision in the audit log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.policy.contract import SCHEMA, Decision
from gateway.policy.questions import QUESTIONS
from gateway.studies.decisions import find
from gateway.studies.errors import StudyError

LARGEST_INPUT = 16 * 2**20
MOST_LEVELS = 100
_BY_FIELD = (
    ("sessions", Decision.LIVE),
    ("attempt", Decision.AUTHN),
    ("permit", Decision.AUTHZ),
    ("action", Decision.ADMIN),
    ("client", Decision.ADMISSION),
    ("request", Decision.CONFIG),
)
_INPUTS = "Take the one of a record (doorward policy explain --decision ID --json), or see docs/reference/input.md."


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, and, of a record, what was answered and on which data."""

    decision: Decision
    question: Mapping[str, Any]
    answer: Any = None
    record: Mapping[str, Any] = field(default_factory=dict)
    basis: Mapping[str, Any] | None = None
    """The data of then, as a tree; None where none is on record."""
    notes: tuple[str, ...] = ()


def of_file(file: Path) -> Asked:
    """A question as the gateway asks it, or a record with one as its `input`.  Raises StudyError."""
    try:
        if file.stat().st_size > LARGEST_INPUT:
            raise ValueError(f"it is longer than {LARGEST_INPUT // 2**20} MiB")
        found = json.loads(file.read_text())
        if _depth(found) > MOST_LEVELS:
            raise ValueError(f"it is nested deeper than {MOST_LEVELS} levels")
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"--input {file}: cannot be read: {error}", remedy=f"It has to be JSON. {_INPUTS}") from error
    question = found.get("input", found) if isinstance(found, dict) else found
    if not isinstance(question, dict):
        raise StudyError(f"--input {file}: it holds no question: it is no object", remedy=_INPUTS)
    decision = next((decision for name, decision in _BY_FIELD if name in question), None)
    if decision is None:
        names = ", ".join(name for name, _ in _BY_FIELD)
        raise StudyError(f"--input {file}: no decision is asked so: it has none of {names}", remedy=_INPUTS)
    if question.get("schema") != SCHEMA:
        raise StudyError(
            f"--input {file}: schema: {json.dumps(question.get('schema'))[:40]} is no version that is known here",
            remedy=f"This Doorward asks by version {SCHEMA}; explain it with the one that asked.",
        )
    try:
        QUESTIONS[decision].model_validate_json(json.dumps(question))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False)]
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise StudyError(
            f"--input {file}: it is no question of {decision}: {'; '.join(faults[:3])}{more}", remedy=_INPUTS
        ) from error
    return Asked(decision, question)


def of_log(log: Path, identity: str) -> Asked:
    """The decision of this id, with the documents that it stood on.  Raises StudyError."""
    found, documents = find(log, identity)
    if found.decision not in [decision.value for decision in Decision]:
        raise StudyError(
            f"--decision {identity}: {found.place} is of {found.decision[:80]}, which is no decision of ours",
            remedy="Run `doorward audit verify`: it says whether the record was changed.",
        )
    return Asked(
        Decision(found.decision),
        found.question,
        found.answer,
        found.record,
        documents if "basis" in found.record else None,
        tuple(f"not on record, and so taken as absent: {name} (too long)" for name in found.omitted),
    )


def _depth(value: Any) -> int:
    """Level by level, so that no depth is too much for it."""
    level, depth = [value], 0
    while level:
        depth += 1
        level = [inner for one in level if isinstance(one, dict | list) for inner in _within(one)]
    return depth


def _within(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
