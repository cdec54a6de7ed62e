"""What a replay found, for people: on a terminal, and as Markdown for a comment on the change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.cli import table
from gateway.studies.tally import LEFT_OUT
from gateway.words import printable

Found = Mapping[str, Any]

WORDS = {"gains": "gains", "loses": "loses", "changes": "changed", "masked": "cannot be told"}
SHOWN = 30
LONGEST = 120


def text(found: Found) -> str:
    """For a terminal."""
    lines = [_summary(found)]
    for heads, rows, hidden in (_who(found), _rules(found)):
        if rows:
            lines += ["", table(rows, heads), *([f"and {hidden} more; --json has all"] if hidden else [])]
    return "\n".join([*lines, *(f"note: {printable(note)}" for note in _notes(found))])


def markdown(found: Found) -> str:
    """For a comment: nothing in it is taken for Markdown, a mention or a link, whatever somebody called themselves."""
    lines = [
        f"### Policy replay: {'within the threshold' if found['met'] else 'more than the threshold allows'}",
        "",
        _summary(found),
    ]
    for heads, rows, hidden in (_who(found), _rules(found)):
        if rows:
            lines += ["", _row(heads), _row(["---"] * len(heads))]
            lines += [_row([row[0], *map(_code, row[1:])]) for row in rows]
            lines += ["", f"and {hidden} more"] if hidden else []
    notes = [f"- {_plain(note)}" for note in _notes(found)]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _summary(found: Found) -> str:
    first, last = printable(found["first"][:19]), printable(found["last"][:19])
    span = f", {first}Z to {last}Z" if first else ""
    return (
        f"{found['decisions']} decisions{span}: {found['asked']} asked again, {found['same']} the same, "
        f"{found['gains']} gain, {found['loses']} lose, {found['changes']} changed"
    )


def _who(found: Found) -> tuple[list[str], list[list[str]], int]:
    rows = [
        [
            WORDS[one["effect"]], one["person"], one["target"] or "-", str(one["decisions"]), _some(one["rules"]),
            one["example"],
        ]
        for one in found["who"]
    ]  # fmt: skip
    return ["EFFECT", "PERSON", "TARGET", "DECISIONS", "BY", "EXAMPLE"], rows[:SHOWN], max(0, len(rows) - SHOWN)


def _rules(found: Found) -> tuple[list[str], list[list[str]], int]:
    rows = [
        [WORDS[one["effect"]], one["decision"], one["rule"], str(one["decisions"]), str(one["people"]), one["example"]]
        for one in found["rules"]
    ]
    return ["EFFECT", "DECISION", "RULE", "DECISIONS", "PEOPLE", "EXAMPLE"], rows[:SHOWN], max(0, len(rows) - SHOWN)


def _some(rules: list[str]) -> str:
    return "; ".join(rules[:3]) + (f"; {len(rules) - 3} more" if len(rules) > 3 else "")


def _notes(found: Found) -> Iterator[str]:
    for reason, number in found["left_out"].items():
        yield f"{number} not asked again ({reason}): {LEFT_OUT[reason]}"
    for decision, roots in found["unrecorded"].items():
        yield (
            f"{decision} reads {', '.join(roots)}, which is on no record: it was taken to be empty; "
            "name a file with --data to ask with it"
        )
    if found["fault_count"]:
        yield f"{found['fault_count']} records could not be read; the first: {found['faults'][0]}"
    if found["masked"]:
        yield (
            f"{found['masked']} cannot be told: what was asked is hidden in the record, "
            "and the policies judge what is left of it otherwise"
        )


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(word: str) -> str:
    shown = _plain(word)
    return f"`{shown}`" if shown else "-"


def _plain(word: str) -> str:
    shown = printable(word)
    shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."
    return shown.replace("`", "'").replace("|", "\\|")
