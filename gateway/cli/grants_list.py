"""`doorward grants list` and `show`: each grant with its state, as policy says it, and why nothing can stand on it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from gateway.cli import settings_of, show, table
from gateway.cli.admin import opa
from gateway.cli.grants_door import UnknownGrant
from gateway.door.etags import etag
from gateway.errors import PolicyUnavailable
from gateway.model import Reason, Value
from gateway.policy.contract import common
from gateway.settings import Settings
from gateway.words import printable

OVERVIEW = "gateway/grants/overview"
State = Literal["requested", "approved", "active", "ended", "expired", "malformed"]
AT_ONCE = 200
"""Grants in one question: while OPA walks them, nobody writes, and who asks next waits for who would."""
WAITING = frozenset({"requested", "approved"})
STATES = ("requested", "approved", "active", "ended", "expired", "malformed", "waiting", "owed")
"""What can be asked for: a state, `waiting` for the two before active, `owed` for a review that is."""


class Listed(Value):
    """One grant at one of its targets, now: a row of `data.gateway.grants.overview`."""

    person: str
    grant: str
    target: str = Field(description="empty where the grant has none that exists")
    state: State
    why: Reason | None = Field(description="why nothing can stand on it now; None where something can")
    until: str = Field(description="when it can no longer be stood on; of one that is not active its end")
    missing: int = Field(description="how many approvals it lacks")
    approvals: tuple[str, ...] = Field(description="whose approvals count now")
    review_owed: bool = Field(description="it was taken by breaking the glass, and nobody else has reviewed it")
    value: JsonValue = Field(description="the grant, as it was written")

    def is_one_of(self, states: Sequence[str]) -> bool:
        return (
            self.state in states
            or ("waiting" in states and self.state in WAITING)
            or ("owed" in states and self.review_owed)
        )


FOUND = TypeAdapter(tuple[Listed, ...])


def add_to(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    listing = actions.add_parser("list", help="all grants, or one person's, and why each is not active")
    listing.add_argument("person", nargs="?")
    listing.add_argument(
        "--state", action="append", choices=STATES, metavar="STATE",
        help=f"only these, can be repeated: {', '.join(STATES)}",
    )  # fmt: skip
    listing.set_defaults(command=_list)
    showing = actions.add_parser("show", help="one grant: its state, what it lacks, and its ETag")
    showing.add_argument("person")
    showing.add_argument("id")
    showing.set_defaults(command=_show)
    return [listing, showing]


def overview(settings: Settings, persons: Sequence[str], **asked: str) -> tuple[Listed, ...]:
    """What policy says of these persons' grants, or of the one `grant` of theirs.  Raises PolicyUnavailable."""
    question = {**common(settings.instance), "persons": list(persons), **asked}
    answer = opa(settings, "POST", OVERVIEW, {"input": question})
    try:
        found = FOUND.validate_python(answer["result"], strict=False)
    except (KeyError, ValidationError) as error:
        raise PolicyUnavailable(
            "this OPA's policy does not say which grants there are in which state",
            code="policy_undefined",
            remedy="Update its policies: data.gateway.grants.overview is not there, or of another version.",
        ) from error
    return tuple(sorted(found, key=lambda row: (row.person, row.grant, row.target)))


def some_at_a_time(grants: Mapping[str, Any], most: int = AT_ONCE) -> Iterator[list[str]]:
    """The persons, so many of them that together they have about `most` grants."""
    persons: list[str] = []
    count = 0
    for person, held in sorted(grants.items()):
        persons.append(person)
        count += len(held) if isinstance(held, dict) else 1
        if count >= most:
            yield persons
            persons, count = [], 0
    if persons:
        yield persons


def _list(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    everybody = some_at_a_time(opa(settings, "GET", "grants").get("result") or {}) if not parsed.person else None
    found = [row for persons in everybody or [[parsed.person]] for row in overview(settings, persons)]
    rows = [row for row in found if not parsed.state or row.is_one_of(parsed.state)]
    heads = ["PERSON", "GRANT", "TARGET", "STATE", "UNTIL", "REASON", "WHY NOT"]
    lines = [
        [row.person, row.grant, row.target or "-", row.state, row.until or "-", _of(row, "reason"), _why_not(row)]
        for row in rows
    ]
    show(parsed, [row.model_dump(mode="json") for row in rows], table(lines, heads) if lines else "no grants")
    return 0


def _show(parsed: argparse.Namespace) -> int:
    rows = overview(settings_of(parsed), [parsed.person], grant=parsed.id)
    if not rows:
        raise UnknownGrant(parsed.person, parsed.id)
    tag = f'"{etag(rows[0].value)}"'
    value = {"etag": tag, "rows": [row.model_dump(mode="json") for row in rows]}
    facts = list(_facts(rows, tag))
    wide = max(len(name) for name, _ in facts)
    lines = [f"{parsed.person} {parsed.id}", *(f"  {name:<{wide}}  {text}" for name, text in facts)]
    show(parsed, value, "\n".join(printable(line) for line in lines))
    return 0


def _facts(rows: Sequence[Listed], tag: str) -> Iterator[tuple[str, str]]:
    for row in rows:
        yield "state", f"{row.state}{f' at {row.target}, until {row.until}' if row.target else ''}"
        if row.approvals or row.missing:
            yield "approvals", f"{', '.join(row.approvals) or 'none'}; {row.missing} more needed"
        if row.why:
            yield "why not", row.why.message
            yield "what to do", row.why.remedy
    if rows[0].review_owed:
        yield "review", "is owed by somebody else"
    value = rows[0].value
    for field, held in value.items() if isinstance(value, dict) else ():
        yield field, held if isinstance(held, str) else _shown(held)
    yield "ETag", tag


def _shown(held: Any) -> str:
    return ", ".join(map(_shown, held)) if isinstance(held, list) else (
        " ".join(f"{key}={_shown(inner)}" for key, inner in held.items()) if isinstance(held, dict) else str(held)
    )  # fmt: skip


def _why_not(row: Listed) -> str:
    said = row.why.message if row.why else ""
    return f"{said} A review is owed.".strip() if row.review_owed else said or "-"


def _of(row: Listed, field: str) -> str:
    return str(row.value.get(field, "?")) if isinstance(row.value, dict) else "?"
