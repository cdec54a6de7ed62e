"""Candidates where it is the grant that lacks: there is none, or its time, its approval, its form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from gateway.studies.engine import Change
from gateway.studies.proofs import mapping
from gateway.studies.remedies import HOUR, NAMELESS, SOMEBODY, Case, Step

ESSENCE = ("target", "targets", "starts_at", "ends_at", "reason", "windows", "kind")
"""What an approval is bound to (`essence` in policies/gateway/grants/approvals.rego)."""
MOST_TARGETS = 3
_SHOWN = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)(?:\.\d+)?(?: UTC|Z)")


def new(case: Case) -> Iterator[Step]:
    """A grant of an hour, for the target that was named, or else for each of the first; never in place of another."""
    if case.grant in case.grants:
        return
    known = sorted(mapping(case.of("targets")))
    for target in [case.named] if case.named else known[:MOST_TARGETS]:
        if target in known:
            name = case.grant or _free(mapping(case.of("grants", case.person)))
            yield Step(
                f"a grant for {case.person} on {target}, for an hour",
                (Change(("grants", case.person, name), whole(case, target)),),
                note=_to_fill_in(case, target),
            )


def whole(case: Case, target: str) -> dict[str, Any]:
    """A grant from now on, as long as the target takes and at most an hour."""
    longest = case.of("targets", target, "max_grant_seconds")
    seconds = min(HOUR, longest) if isinstance(longest, int) and longest > 0 else HOUR
    grant = {"target": target, "starts_at": case.later(0), "ends_at": case.later(seconds), "reason": NAMELESS}
    return grant if case.of("targets", target, "approval") is not None else {**grant, "approved_by": SOMEBODY}


def _to_fill_in(case: Case, target: str) -> str:
    if case.of("targets", target, "approval") is not None:
        return "Fill in the reason."
    return f"Fill in the reason, and approved_by with who did: never {case.person}."


def _free(taken: Mapping[str, Any]) -> str:
    return next(name for number in range(1, len(taken) + 2) if (name := f"new-{number}") not in taken)


def extend(case: Case) -> Iterator[Step]:
    """A later end of the grant, if its target takes one of that length."""
    for name, grant in _latest(case, "ends_at"):
        until = case.session.get("expires_at") if case.reason.get("code") == "grant_ends_soon" else case.later(HOUR)
        longest = case.of("targets", case.target_of(grant), "max_grant_seconds")
        starts, ends = _moment(grant.get("starts_at")), _moment(until)
        if starts and ends and isinstance(longest, int) and (ends - starts).total_seconds() <= longest:
            yield Step(
                f"extend the grant {name} to {until}",
                (Change(("grants", case.person, name, "ends_at"), until),),
                note="Whoever approved it approves the longer time too.",
            )


def start_now(case: Case) -> Iterator[Step]:
    for name, grant in _latest(case, "starts_at"):
        starts = _moment(grant.get("starts_at"))
        if starts and starts > case.now:
            yield Step(
                f"let the grant {name} start now",
                (Change(("grants", case.person, name, "starts_at"), case.later(0)),),
                note="Whoever approved it approves the earlier time too.",
            )


def wait(case: Case) -> Iterator[Step]:
    """The moments that the reason names: nothing has to be changed then."""
    for date, time in _SHOWN.findall(str(case.reason.get("message", ""))):
        moment = _moment(f"{date}T{time}" + (":00Z" if time.count(":") == 1 else "Z"))
        if moment and moment > case.now:
            yield Step(f"wait until {moment:%Y-%m-%d %H:%M:%S} UTC", question=case.asked_at(moment))


def open_window(case: Case) -> Iterator[Step]:
    """One more window, around now."""
    hour = case.now.hour
    window = {
        "days": [f"{case.now:%a}".lower()], "from": f"{hour:02d}:00", "to": f"{hour + 1:02d}:00", "zone": "UTC",
    }  # fmt: skip
    for name, grant in _latest(case, "ends_at"):
        if isinstance(windows := grant.get("windows"), list):
            yield Step(
                f"one more window for the grant {name}: {window['days'][0]} {window['from']} to {window['to']} UTC",
                (Change(("grants", case.person, name, "windows"), [*windows, window]),),
                note="Whoever approved it approves these hours too.",
            )


def approve(case: Case) -> Iterator[Step]:
    """The approvals that the target asks for, by people who may; else who approved it, in the grant itself."""
    for name, grant in case.grants.items():
        if not isinstance(grant, Mapping):
            continue
        asked = case.of("targets", case.target_of(grant), "approval")
        if asked is None:
            yield Step(
                f"say who approved the grant {name}",
                (Change(("grants", case.person, name, "approved_by"), SOMEBODY),),
                note=f"Fill in who did: never {case.person}.",
            )
            continue
        given = mapping(case.of("approvals", case.person, name))
        # Those who have not spoken first; of the others the approval may be over, or of an older grant.
        approvers = sorted(_approvers(case, mapping(asked)), key=lambda who: (who in given, who))
        for count in range(1, len(approvers) + 1):
            changes = [_approval(case, name, grant, approver) for approver in approvers[:count]]
            yield Step(
                f"{count} approvals of the grant {name}: by {', '.join(approvers[:count])}"
                if count > 1
                else f"the approval of the grant {name} by {approvers[0]}",
                tuple(changes),
                note="Only they can give it, after they looked at the grant.",
            )


def _approval(case: Case, name: str, grant: Mapping[str, Any], approver: str) -> Change:
    essence = {field: grant[field] for field in ESSENCE if field in grant}
    return Change(("approvals", case.person, name, approver), {"at": case.later(-1), "for": essence})


def _approvers(case: Case, asked: Mapping[str, Any]) -> Iterator[str]:
    listed = mapping(asked.get("by"))
    for name, entry in mapping(case.of("people")).items():
        groups = mapping(entry).get("groups")
        is_one = name in (listed.get("people") or ()) or any(
            group in (listed.get("groups") or ()) for group in (groups if isinstance(groups, list) else ())
        )
        if is_one and mapping(entry).get("disabled", False) is False and name.lower() != case.person.lower():
            yield name


def mend(case: Case) -> Iterator[Step]:
    """The grant with what is missing or cannot be read put right: as little as makes it whole."""
    held = case.of("grants", case.person, case.grant)
    pattern = whole(case, case.named)
    kept = {key: value for key, value in mapping(held).items() if isinstance(value, str) and value.strip()}
    times = {field: pattern[field] for field in ("starts_at", "ends_at")}
    for mended in ({**pattern, **kept}, {**pattern, **kept, **times}, pattern):
        yield Step(
            f"write the grant {case.grant} anew, whole",
            (Change(("grants", case.person, case.grant), mended),),
            note="Look at each field: what could not be read is made up here.",
        )


def retarget(case: Case) -> Iterator[Step]:
    held = case.of("grants", case.person, case.grant)
    if isinstance(held, Mapping) and isinstance(held.get("target"), str):
        yield Step(
            f"let the grant {case.grant} be for {case.named} again",
            (Change(("grants", case.person, case.grant, "target"), case.named),),
        )
    else:
        yield from mend(case)


def _latest(case: Case, field: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The grants, the one whose moment is latest first."""
    grants = [(name, grant) for name, grant in case.grants.items() if isinstance(grant, Mapping)]
    return sorted(grants, key=lambda one: str(one[1].get(field)), reverse=True)[:2]


def _moment(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found.astimezone(UTC) if found.tzinfo else None
