"""Recorded decisions asked again: under the policies of a study, on the documents that each stood on.

Some hundreds go into one question, grouped by the documents, and each is evaluated where these are all the data there
is.  One that fails is found by halves, and hides none of the others.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.policy.contract import Decision
from gateway.studies.decisions import Recorded
from gateway.studies.documents import Documents
from gateway.studies.engine import Studied
from gateway.studies.errors import PolicyFailed

BATCH = 400
MOST_FAILURES = 1000
"""After so many the policies are broken, and to ask on would take hours."""
ROOT = re.compile(r"(?!gateway$|system$|studies$)[A-Za-z0-9_-]{1,100}")
"""A base document; nothing that is recorded stands in for a rule."""

_RULE = """
answers_{number}[key] := answer if {{
	some world in input.worlds
	some key, question in world.questions
	answer := data.{path} with input as question{documents}
}}
"""

Standing = tuple[str, tuple[str, ...]]
"""A decision's path, and the roots of the documents that it stood on."""


@dataclass(frozen=True, slots=True)
class Rejudged:
    """What a recorded decision comes to now."""

    recorded: Recorded
    result: Any = None
    """None where the rule is undefined."""
    failure: str = ""
    """OPA's words, where it failed."""


class Rejudge:
    """Asks again.  Without `documents` on whatever data the OPA holds."""

    def __init__(self, opa: Studied, documents: Documents | None) -> None:
        self._opa = opa
        self._documents = documents
        self._rules: dict[Standing, str] = {}
        self._teaching = asyncio.Lock()
        self._failures = 0

    async def each(self, decisions: Sequence[Recorded]) -> list[Rejudged]:
        """In their order.  Raises StudyError where OPA cannot be asked, Missing where a document is not on record."""
        groups: dict[Standing, list[int]] = {}
        worlds = [self._world(recorded) for recorded in decisions]
        for number, (recorded, world) in enumerate(zip(decisions, worlds, strict=True)):
            groups.setdefault((recorded.decision, tuple(sorted(world))), []).append(number)
        found: dict[int, Rejudged] = {}
        await self._teach(groups)
        for standing, numbers in groups.items():
            for first in range(0, len(numbers), BATCH):
                part = {number: decisions[number] for number in numbers[first : first + BATCH]}
                found |= await self._asked(self._rules[standing], part, {number: worlds[number] for number in part})
        return [found[number] for number in range(len(decisions))]

    def _world(self, recorded: Recorded) -> dict[str, Any]:
        return {} if self._documents is None else self._documents.tree(recorded.basis)

    async def _asked(
        self, rule: str, part: Mapping[int, Recorded], worlds: Mapping[int, Mapping[str, Any]]
    ) -> dict[int, Rejudged]:
        question = {"worlds": _grouped(part, worlds)}
        try:
            answers = await self._opa.evaluate(rule, question)
        except PolicyFailed as error:
            if len(part) > 1:
                half = len(part) // 2
                numbers = list(part)
                found: dict[int, Rejudged] = {}
                for some in (numbers[:half], numbers[half:]):
                    found |= await self._asked(rule, {number: part[number] for number in some}, worlds)
                return found
            self._failures += 1
            if self._failures > MOST_FAILURES:
                raise
            return {number: Rejudged(recorded, failure=str(error)) for number, recorded in part.items()}
        return {number: Rejudged(recorded, answers.get(str(number))) for number, recorded in part.items()}

    async def _teach(self, standings: Iterable[Standing]) -> None:
        """A rule for each that has none yet, all in one module: OPA compiles everything anew for each module."""
        async with self._teaching:
            new = [standing for standing in standings if standing not in self._rules]
            if not new:
                return
            name = f"m{len(self._rules)}"
            rules = "".join(_rule(number, *standing) for number, standing in enumerate(new))
            await self._opa.teach(f"studies/rejudging/{name}", f"package studies.rejudging.{name}\n{rules}")
            self._rules |= {one: f"studies/rejudging/{name}/answers_{number}" for number, one in enumerate(new)}


def _rule(number: int, decision: str, roots: tuple[str, ...]) -> str:
    path = Decision(decision).value.replace("/", ".")
    documents = "".join(f" with data[{json.dumps(root)}] as world.documents[{json.dumps(root)}]" for root in roots)
    return _RULE.format(number=number, path=path, documents=documents)


def _grouped(part: Mapping[int, Recorded], worlds: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The questions by what they stood on: each document goes over once for all decisions that share all of theirs."""
    groups: dict[frozenset[tuple[str, str]], dict[str, Any]] = {}
    for number, recorded in part.items():
        key = frozenset((path, digest) for path, digest in recorded.basis.items() if digest is not None)
        group = groups.setdefault(key, {"documents": worlds[number], "questions": {}})
        group["questions"][str(number)] = recorded.question
    return list(groups.values())
