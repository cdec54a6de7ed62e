"""A trace as a tree: every clause and every body that was evaluated, what was asked in it, and where it failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Event = Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Query:
    """One clause, or one body in it."""

    parent: Query | None
    name: str
    file: str
    row: int
    start: int
    says: str = ""
    held: bool = False
    children: list[Query] = field(default_factory=list)
    evals: list[tuple[int, Event]] = field(default_factory=list)
    fails: list[tuple[int, Event]] = field(default_factory=list)

    @property
    def rule(self) -> str:
        query: Query | None = self
        while query is not None and not query.name:
            query = query.parent
        return query.name if query else ""

    @property
    def progress(self) -> tuple[int, int]:
        """How far it got before it failed for good: in lines, then in OPA's own steps."""
        return max((self.place(event) for _, event in self.fails), default=(-1, -1))

    def place(self, event: Event) -> tuple[int, int]:
        index = int(event["Node"].get("index", 0))
        before = {one["Location"]["row"] for _, one in self.evals if int(one["Node"].get("index", 0)) < index}
        return len(before - {event["Location"]["row"]}), index

    @property
    def is_ruled_out(self) -> bool:
        last = [event for _, event in self.fails if self.place(event) == self.progress]
        return bool(last and last[0]["Node"].get("negated"))

    @property
    def fruitless(self) -> list[Query]:
        """The bodies in it, such as a comprehension's, that came to nothing."""
        return [body for body in self.children if not body.name and not body.held and not self.negates(body)]

    def negates(self, body: Query) -> bool:
        before = [one for at, one in self.evals if at < body.start]
        return bool(before and before[-1]["Node"].get("negated"))

    @property
    def is_constant(self) -> bool:
        return all(isinstance(event["Node"].get("terms"), Mapping) and event["Node"]["terms"].get("type") == "boolean"
                   for _, event in self.evals)  # fmt: skip


def read(events: Sequence[Event]) -> list[Query]:
    found: dict[int, Query] = {}
    for at, event in enumerate(events):
        query = found.get(event["QueryID"])
        match event["Op"]:
            case "Enter" if query is None:
                node, location = event["Node"], event["Location"]
                head = node.get("head") if isinstance(node, Mapping) else None
                parent = found.get(event["ParentID"]) if event["ParentID"] != event["QueryID"] else None
                query = Query(parent, _head(head), location["file"], location["row"], at, _says(node))
                found[event["QueryID"]] = query
                if parent is not None:
                    parent.children.append(query)
            case "Eval" if query is not None:
                query.evals.append((at, event))
            case "Fail" if query is not None:
                query.fails.append((at, event))
            case "Exit" if query is not None:
                query.held = True
    return list(found.values())


def above(query: Query) -> Iterator[Query]:
    while query.parent is not None:
        query = query.parent
        yield query


def way(query: Query) -> list[Query]:
    """The clauses that lead to it, from the top."""
    return [one for one in [*above(query)][::-1] if one.name and one.held] + [query]


def levels(query: Query, top: Query) -> int:
    """How many clauses below `top`; 0 where it is not."""
    count = 0
    for one in (query, *above(query)):
        if one is top:
            return count
        count += bool(one.name)
    return 0


def begun(query: Query, at: int, row: int) -> int:
    """When the evaluation of the line began that failed at the event `at`."""
    began = at
    for place, one in reversed(query.evals):
        if place < at:
            if one["Location"]["row"] != row:
                break
            began = place
    return began


def _head(head: Any) -> str:
    if not isinstance(head, Mapping):
        return ""
    return str(head.get("name") or head["ref"][0]["value"])


def _says(node: Any) -> str:
    for one in node.get("annotations") or () if isinstance(node, Mapping) else ():
        if text := one.get("title") or one.get("description"):
            return " ".join(str(text).split())
    return ""
