"""What a trace means: which rules made the answer, and which conditions of those that would have allowed it failed.

A rule's clause is a query of the trace: it holds when it came to its end, and else it failed at its furthest condition.
From there the cause is followed down: the rules that the condition needed and that failed, or that held under a `not`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.studies.queries import Query, above, begun, levels, read, way
from gateway.studies.sources import Policies
from gateway.studies.terms import UNDEFINED, Scope, rules_in
from gateway.studies.tracing import Trace

DEEP = 12
MOST_CONDITIONS = 24
MOST_RULES = 12
ALIKE = 2
"""How many entries of a loop that failed at the same condition are told."""
_ALLOWS = re.compile(r'"(?:accept|keep)"|"allow":\s*true')
_GIVES = re.compile(r":=\s*([\w.]+|\")")
_ALLOWING = {"allow", "allowed", "permit"}


@dataclass(frozen=True, slots=True)
class Rule:
    """A clause that held."""

    file: str
    line: int
    rule: str
    text: str
    says: str = ""
    """Its title or description, of its annotation."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that did not hold (or, under a `not`, the clause that did)."""

    file: str
    line: int
    rule: str
    text: str
    depth: int
    held: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)
    undefined: tuple[str, ...] = ()


class Causes:
    """One trace, read."""

    def __init__(self, trace: Trace, policies: Policies, question: Mapping[str, Any], decision: str) -> None:
        self._policies = policies
        self._question = question
        self._data = trace.data
        self._queries = read(trace.events)
        self._name = decision.rpartition("/")[2]
        self._told: set[tuple[str, int, str]] = set()

    def fired(self, codes: Sequence[str]) -> list[Rule]:
        """The rules that made the answer: the way to each that words one of `codes`, or the first levels."""
        held = [query for query in self._queries if query.held and query.name]
        ends = [query for query in held if any(f'"{code}"' in self._clause(query) for code in codes)]
        decision = next((query for query in held if query.name == self._name), None)
        ways = [decision] if decision else []
        for end in ends:
            ways += way(end)
        if decision and not ends:
            below = [(levels(query, decision), query) for query in held if not query.is_constant]
            ways += [query for level, query in sorted(below, key=lambda one: one[0]) if 0 < level <= 3]
        return _distinct(Rule(one.file, one.row, one.name, self._line(one), one.says) for one in ways)[:MOST_RULES]

    def failed(self) -> list[Condition]:
        """The conditions at which the clauses failed that would have allowed it, each followed by what it needed."""
        self._told.clear()
        found: list[Condition] = []
        for root in self._roots():
            for condition in self._why(root, 0):
                found.append(condition)
                if len(found) == MOST_CONDITIONS:
                    return found
        return found

    def _roots(self) -> list[Query]:
        failed = [query for query in self._queries if query.name and not query.held]
        allowing = [one for one in failed if _ALLOWS.search(self._clause(one)) or one.name in _ALLOWING]
        roots = [one for one in allowing if not any(outer in allowing for outer in above(one))]
        of_decision = [one for one in roots if one.name == self._name]
        return of_decision or roots or [one for one in failed if one.name == self._name]

    def _why(self, query: Query, depth: int) -> Iterator[Condition]:
        """Where a clause failed, and why there."""
        if depth > DEEP:
            return
        furthest = query.progress
        alike = [(at, event) for at, event in query.fails if query.place(event) == furthest]
        seen: set[str] = set()
        for at, event in alike:
            condition = self._condition(query, event, depth)
            key = str(sorted(condition.values.items(), key=lambda one: one[0]))
            if key in seen or len(seen) == ALIKE:
                continue
            seen.add(key)
            place = (condition.file, condition.line, key)
            if place in self._told:
                continue
            self._told.add(place)
            yield condition
            yield from self._beneath(query, at, event, depth + 1)

    def _beneath(self, query: Query, at: int, event: Mapping[str, Any], depth: int) -> Iterator[Condition]:
        start = begun(query, at, event["Location"]["row"])
        within = [child for child in query.children if start < child.start < at]
        if event["Node"].get("negated"):
            for body in within:
                for rule in (child for child in body.children if child.held and child.name):
                    yield from self._holds(rule, depth)
            return
        held = {child.name: child for child in within if child.held and child.name}
        needed = [child for child in within if not child.held and child.name not in held]
        for rule in held.values() if not needed else ():
            yield from self._gave(rule, depth)
            yield from self._of_each(rule.fruitless, depth)
        if not needed and not held:
            names = {name for one in self._on_line(query, event) for name in rules_in(one["Node"])}
            needed = list(self._known(names, query))
        yield from self._of_each(needed, depth)

    def _of_each(self, failed: Iterable[Query], depth: int) -> Iterator[Condition]:
        """Of several clauses of one rule those that got furthest."""
        by_name: dict[str, list[Query]] = {}
        for one in failed:
            by_name.setdefault(one.name or f"{one.file}:{one.row}", []).append(one)
        for every in by_name.values():
            # In a chain of `else`, what ruled an earlier one out says less than what a later one lacked.
            is_chain = any(self._line(one).startswith(("else", "} else")) for one in every)
            clauses = [one for one in every if not (is_chain and one.is_ruled_out)] or every
            furthest = max(one.progress[0] for one in clauses)
            for clause in [one for one in clauses if one.progress[0] == furthest][: ALIKE + 1]:
                yield from self._why(clause, depth)

    def _known(self, names: set[str], of: Query) -> Iterator[Query]:
        """Rules that were asked before: those that failed, and of those that held the bodies in them that did not."""
        around = [of, *above(of)]
        known = [query for query in self._queries if query.name in names and query not in around]
        held = {query.name for query in known if query.held}
        for query in known:
            if query.name not in held:
                yield query
            elif query.held:
                yield from query.fruitless

    def _gave(self, query: Query, depth: int) -> Iterator[Condition]:
        """The clause that gave another value than the one that is wanted, and the one that it has it from."""
        found = _GIVES.search(self._line(query))
        place = (query.file, query.row, "gave")
        if found is None or place in self._told or depth > DEEP:
            return
        self._told.add(place)
        scope = query.evals[-1:] and self._condition(query, query.evals[-1][1], depth)
        values = scope.values if scope else {}
        yield Condition(query.file, query.row, query.rule, self._line(query), depth, held=True, values=values)
        name = found[1].rpartition(".")[2]
        for child in [child for child in query.children if child.held and child.name == name][:1]:
            yield from self._gave(child, depth + 1)

    def _holds(self, query: Query, depth: int) -> Iterator[Condition]:
        """A clause that held where it should not have: where it is, and what in it did not hold."""
        place = (query.file, query.row, "holds")
        if depth > DEEP or place in self._told:
            return
        self._told.add(place)
        yield Condition(query.file, query.row, query.rule, self._line(query), depth, held=True)
        for _, event in query.evals:
            if event["Node"].get("negated"):
                for body in (child for child in query.children if not child.name and not child.held):
                    yield from self._why(body, depth + 1)
                return
        further = [child for child in query.children if child.held and child.name]
        if len(further) == 1:
            yield from self._holds(further[0], depth + 1)

    def _condition(self, query: Query, event: Mapping[str, Any], depth: int) -> Condition:
        location = event["Location"]
        scope = Scope(event, self._question, self._data)
        line = self._on_line(query, event)
        for one in line:
            scope.learn(one["Node"])
        told = dict(pair for one in [*line, event] for pair in scope.told(one["Node"]))
        text = self._policies.line(location["file"], location["row"])
        shown = {name: value for name, value in told.items() if value is not UNDEFINED}
        undefined = tuple(name for name, value in told.items() if value is UNDEFINED)
        return Condition(location["file"], location["row"], query.rule, text, depth, False, shown, undefined)

    def _on_line(self, query: Query, event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """What OPA made of the same line: it takes `f(input.x) == 1` apart."""
        row = event["Location"]["row"]
        return [one for _, one in query.evals if one["Location"]["row"] == row]

    def _line(self, query: Query) -> str:
        return self._policies.line(query.file, query.row)

    def _clause(self, query: Query) -> str:
        """The whole clause as it is written: up to an empty line, or the next alternative."""
        lines = self._policies.files.get(query.file, b"").decode(errors="replace").splitlines()[query.row - 1 :]
        text = lines[:1]
        for line in lines[1:]:
            if not line.strip() or line.startswith(("else", "} else")):
                break
            text.append(line)
        return "\n".join(text)


def _distinct(rules: Iterable[Rule]) -> list[Rule]:
    return list({(rule.file, rule.line, rule.rule): rule for rule in rules}.values())
