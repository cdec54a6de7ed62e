"""`doorward grants request`, `approve`, `extend`, `end` and `review`: a grant's life, each step written at the door."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.cli import show
from gateway.cli.grants_door import Conflict, Door, Exists, UnknownGrant, path_of
from gateway.cli.grants_times import WINDOW, add_length, minutes_of, span, time_of, window
from gateway.errors import DoorwardError
from gateway.policy.contract import rfc3339

ATTEMPTS = 10
"""How often a change is tried anew when somebody else wrote between reading and writing."""
APPROVED = ("target", "targets", "starts_at", "ends_at", "reason", "windows", "kind")
"""What an approval is bound to: `data.gateway.grants.essence`.  Policy refuses what is not the same."""

Grant = dict[str, Any]


def add_to(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    requesting = _action(
        actions, "request", "ask for access of PERSON to TARGET; others approve it", _request, "TARGET"
    )
    add_length(requesting)
    requesting.add_argument("--from", dest="start", metavar="TIME", help="when it starts (default: now)")
    requesting.add_argument("--window", action="append", metavar="HOURS", help=f'only then, repeatable: "{WINDOW}"')
    requesting.add_argument("--reason", required=True, help="why, in a sentence")
    requesting.add_argument("--ticket", help="the number in the ticketing system, and the id unless there is another")
    requesting.add_argument("--id", help="default: the ticket's number, else one is made up")
    approving = _action(actions, "approve", "stand by a grant of PERSON's, in your own name", _approve)
    approving.add_argument("--by", required=True, metavar="NAME", help="who approves; never PERSON")
    approving.add_argument("--until", metavar="TIME", help="the approval lasts no longer (default: as the grant)")
    approving.add_argument("--note", help="what there is to say about it")
    _add_if_match(approving)
    extending = _action(actions, "extend", "move the end to later; what others changed meanwhile stays", _extend)
    add_length(extending, required=True, since="from its end as it is")
    extending.add_argument("--approved-by", metavar="NAME", help="who said yes to it, where the grant says so itself")
    _add_if_match(extending)
    ending = _action(actions, "end", "end it now; sessions that stand on it end, and are told why", _end)
    ending.add_argument("--reason", required=True, help="why, in a sentence")
    _add_if_match(ending)
    reviewing = _action(actions, "review", "say that you looked at what PERSON did behind broken glass", _review)
    reviewing.add_argument("--by", required=True, metavar="NAME", help="who reviewed it; never PERSON")
    reviewing.add_argument("--note", help="what was found")
    return [requesting, approving, extending, ending, reviewing]


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    told: str,
    command: Callable[[argparse.Namespace], int],
    second: str = "ID",
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=told, description=told[0].upper() + told[1:] + ".")
    action.add_argument("person", metavar="PERSON")
    action.add_argument(second.lower(), metavar=second)
    action.set_defaults(command=command)
    return action


def _add_if_match(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--if-match", metavar="ETAG", help="only if the grant is still as `doorward grants show` showed it"
    )


def _request(parsed: argparse.Namespace) -> int:
    grant: Grant = {"target": parsed.target, **span(parsed), "reason": parsed.reason}
    if parsed.ticket:
        grant["ticket"] = parsed.ticket
    if parsed.window:
        grant["windows"] = [window(text) for text in parsed.window]
    name = parsed.id or parsed.ticket or f"cli-{secrets.token_hex(4)}"
    try:
        Door.of(parsed).write(path_of("grants", parsed.person, name), grant, only_new=True)
    except Exists as error:
        raise Exists(
            f"--id: {parsed.person} has a grant {name} already, and it stays as it is",
            remedy=f"Choose another --id, or look at it: doorward grants show {parsed.person} {name}",
        ) from error
    show(parsed, {"person": parsed.person, "id": name, **grant},
         f"requested: {name}, {parsed.person} at {grant['target']}, {grant['starts_at']} to {grant['ends_at']}\n"
         f"whoever may approve it runs: doorward grants approve {parsed.person} {name} --by NAME\n"
         f"what it lacks: doorward grants show {parsed.person} {name}")  # fmt: skip
    return 0


def _approve(parsed: argparse.Namespace) -> int:
    door = Door.of(parsed)
    path = path_of("approvals", parsed.person, parsed.id, parsed.by)
    approval: dict[str, Any] = {}
    if parsed.until:
        approval["expires_at"] = rfc3339(time_of("--until", parsed.until))
    if parsed.note:
        approval["note"] = parsed.note
    if parsed.if_match:
        approval["for"] = _as_shown(door, parsed)
    before, tag = door.read(path)
    if door.write(path, approval) == tag and before is not None:
        raise DoorwardError(
            f"{parsed.by} has approved {parsed.id} already, at {before.get('at')}", code="already_approved",
            remedy=f"See what it still lacks: doorward grants show {parsed.person} {parsed.id}",
        )  # fmt: skip
    given: Grant = door.read(path)[0] or {}
    of = given.get("for", {})
    what = of.get("target") or "the targets of its labels"
    show(parsed, {"person": parsed.person, "id": parsed.id, "by": parsed.by, **given},
         f"approved: {parsed.id}, {parsed.person} at {what}, until {of.get('ends_at')}: {of.get('reason')}\n"
         f"it lasts until {given.get('expires_at') or of.get('ends_at')}; "
         f"what the grant still lacks: doorward grants show {parsed.person} {parsed.id}")  # fmt: skip
    return 0


def _as_shown(door: Door, parsed: argparse.Namespace) -> Grant:
    grant, tag = door.read(path_of("grants", parsed.person, parsed.id))
    if grant is None:
        raise UnknownGrant(parsed.person, parsed.id)
    _hold(parsed, tag)
    return {field: grant[field] for field in APPROVED if field in grant}


def _extend(parsed: argparse.Namespace) -> int:
    longer = minutes_of(parsed.minutes) if parsed.minutes is not None else None
    until = time_of("--until", parsed.until) if parsed.until else None
    read: list[datetime] = []

    def later(grant: Grant) -> Grant:
        end = _end_of(grant)
        read.append(end)
        if end != read[0] and longer is not None:
            raise Conflict(f"the end of {parsed.id} was moved meanwhile, to {grant['ends_at']}")
        moved = until if until is not None else end + (longer or timedelta())
        if moved <= end:
            raise DoorwardError(
                f"--until: {parsed.id} lasts until {grant['ends_at']}, which is not earlier", code="not_later",
                remedy="Choose a later time; to end it early: doorward grants end.",
            )  # fmt: skip
        more = {"approved_by": parsed.approved_by} if parsed.approved_by else {}
        return {**grant, "ends_at": rfc3339(moved), **more}

    grant = _changed(parsed, later)
    show(parsed, {"person": parsed.person, "id": parsed.id, **grant},
         f"extended: {parsed.id} until {grant['ends_at']}\n"
         "where others approve it, an approval reaches no further than the end that it was given for: "
         f"doorward grants show {parsed.person} {parsed.id}")  # fmt: skip
    return 0


def _end(parsed: argparse.Namespace) -> int:
    def over(grant: Grant) -> Grant:
        if "ended_at" in grant:
            raise DoorwardError(
                f"{parsed.id} was ended early already, at {grant['ended_at']}", code="grant_over",
                remedy="There is nothing left to do.",
            )  # fmt: skip
        return {**grant, "ended_at": rfc3339(datetime.now(UTC)), "ended_reason": parsed.reason}

    grant = _changed(parsed, over)
    show(parsed, {"person": parsed.person, "id": parsed.id, **grant},
         f"ended: {parsed.id}; sessions that stood on it have been told")  # fmt: skip
    return 0


def _review(parsed: argparse.Namespace) -> int:
    review = {"by": parsed.by, **({"note": parsed.note} if parsed.note else {})}
    Door.of(parsed).write(path_of("reviews", parsed.person, parsed.id), review)
    show(parsed, {"person": parsed.person, "id": parsed.id, **review},
         f"reviewed: {parsed.id} of {parsed.person}, by {parsed.by}")  # fmt: skip
    return 0


def _changed(parsed: argparse.Namespace, change: Callable[[Grant], Grant]) -> Grant:
    """What was written: what is there, with `change`, on the condition that nobody wrote in between; else once more."""
    door, path = Door.of(parsed), path_of("grants", parsed.person, parsed.id)
    for _ in range(ATTEMPTS):
        grant, tag = door.read(path)
        if not isinstance(grant, dict):
            raise UnknownGrant(parsed.person, parsed.id)
        _hold(parsed, tag)
        changed = change(grant)
        try:
            door.write(path, changed, if_match=tag)
        except Conflict:
            continue
        return changed
    raise Conflict(f"{parsed.id} is written by others all the time; {ATTEMPTS} attempts were in vain")


def _hold(parsed: argparse.Namespace, tag: str) -> None:
    # Shells eat the quotes.
    if parsed.if_match and tag.strip('"') != parsed.if_match.strip('"'):
        raise Conflict(f"--if-match: {parsed.id} is no longer what was shown")


def _end_of(grant: Grant) -> datetime:
    try:
        return datetime.fromisoformat(grant["ends_at"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError) as error:
        raise DoorwardError(
            "ends_at: the grant has no end that can be read", code="grant_malformed",
            remedy="Write it anew, under another id.",
        ) from error  # fmt: skip
