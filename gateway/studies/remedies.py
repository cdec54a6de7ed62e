"""What might turn a refusal into an allow: candidates, each to be tried before it is told (see `register`).

A candidate changes the data, as somebody who may could write it, or the question, as the person who asks could bring
it about: another proof, a later hour.  What nobody should do is none: to approve oneself, to overrule somebody's no, to
lift what limits a target, to make up a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.policy.contract import Decision, rfc3339
from gateway.studies.engine import Change
from gateway.studies.proofs import mapping

HOUR = 3600
NAMELESS = "(why)"
SOMEBODY = "(who approves it)"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: in the data, or of the question."""

    title: str
    data: tuple[Change, ...] = ()
    question: tuple[Change, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A refusal: what was asked, of which data, and why not."""

    decision: str
    question: Mapping[str, Any]
    data: Mapping[str, Any]
    reason: Mapping[str, Any]
    problems: Sequence[str] = ()
    """What the policies say is wrong with the target's entry, one text for each fault."""

    def get(self, *path: str) -> Any:
        """What the question holds there."""
        return at(self.question, path)

    def of(self, *path: str) -> Any:
        """What the data hold there."""
        return at(self.data, path)

    @property
    def session(self) -> Mapping[str, Any]:
        """Of `live`, the session that is judged."""
        sessions = self.question.get("sessions")
        return mapping(sessions[0]) if isinstance(sessions, list) and sessions else {}

    @property
    def person(self) -> str:
        found = self.get("identity", "person") or self.session.get("person") or self.login.partition("+")[0]
        return found if isinstance(found, str) else ""

    @property
    def login(self) -> str:
        found = self.get("login", "user")
        return found if isinstance(found, str) else ""

    @property
    def named(self) -> str:
        """The target that it is about, as far as it was named."""
        if self.decision == Decision.LIVE:
            found = self.session.get("target")
        elif self.decision == Decision.AUTHZ:
            found = self.get("permit", "target")
        else:
            _, _, typed = self.login.partition("+")
            found = typed.partition("+")[0] or self.get("request", "target")
        return found if isinstance(found, str) else ""

    @property
    def grant(self) -> str:
        """The grant that the session stands on; none for a permit."""
        found = self.session.get("grant") or self.get("permit", "grant")
        return found if isinstance(found, str) else ""

    @property
    def grants(self) -> Mapping[str, Any]:
        """The grants that it may be about: the session's own, else those of the person at the target that was named."""
        held = mapping(self.of("grants", self.person))
        if self.grant:
            return {self.grant: held[self.grant]} if self.grant in held else {}
        return {name: one for name, one in held.items() if isinstance(one, Mapping) and self._is_meant(one)}

    def _is_meant(self, grant: Mapping[str, Any]) -> bool:
        return not self.named or grant.get("target", self.named) == self.named

    def target_of(self, grant: Mapping[str, Any]) -> str:
        return self.named or str(grant.get("target", ""))

    @property
    def now(self) -> datetime:
        ns = self.question.get("now_ns")
        return (moment_of(ns / 10**9) if isinstance(ns, int) else None) or datetime.now(UTC)

    def later(self, seconds: float) -> str:
        return f"{self.now + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"

    def asked_at(self, moment: datetime) -> tuple[Change, ...]:
        """The question, at that moment."""
        ns = int(moment.timestamp() * 1_000_000) * 1000
        return Change(("now",), rfc3339(moment)), Change(("now_ns",), ns)


Remedy = Callable[[Case], Iterator[Step]]


def moment_of(seconds: float) -> datetime | None:
    """That many seconds after 1970; None where no calendar has it, as of a certificate that is valid for ever."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def at(tree: Any, path: Sequence[str]) -> Any:
    """What stands at the path, or None."""
    for step in path:
        if not isinstance(tree, Mapping) or step not in tree:
            return None
        tree = tree[step]
    return tree


def applied(tree: Mapping[str, Any], changes: Sequence[Change]) -> dict[str, Any]:
    """The tree with the changes made; what they do not touch is shared with the old one."""
    new = dict(tree)
    for change in changes:
        place = new
        for step in change.path[:-1]:
            place[step] = dict(mapping(place.get(step)))
            place = place[step]
        if change.remove:
            place.pop(change.path[-1], None)
        else:
            place[change.path[-1]] = change.value
    return new


def patch(tree: Mapping[str, Any], changes: Sequence[Change]) -> list[dict[str, Any]]:
    """The same as JSON Patch (RFC 6902): where a parent is missing, it is added with what is to be in it."""
    operations: list[dict[str, Any]] = []
    for change in changes:
        path, value = list(change.path), change.value
        if change.remove:
            operations.append({"op": "remove", "path": pointer(path)})
        else:
            while len(path) > 1 and not isinstance(at(tree, path[:-1]), Mapping):
                value = {path.pop(): value}
            operations.append({"op": "add", "path": pointer(path), "value": value})
        tree = applied(tree, [change])
    return operations


def pointer(path: Sequence[str]) -> str:
    """RFC 6901."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in path)
