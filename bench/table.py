"""What is printed: one line for each number, with its goal where it has one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bench.samples import Samples


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    value: str
    goal: str = ""
    holds: bool | None = None
    """None where there is no goal."""


def milliseconds(found: Samples) -> str:
    return f"median {found.median * 1000:.0f} ms, p95 {found.percentile(95) * 1000:.0f} ms (n={len(found.values)})"


def ratio(what: str, ours: Samples, theirs: Samples, goal: float | None = None) -> Row:
    """Of the medians."""
    value = ours.median / theirs.median
    return Row(what, f"{value:.2f} x", f"<= {goal:g} x" if goal else "", value <= goal if goal else None)


def table(rows: Iterable[Row]) -> str:
    """Markdown, which reads as well in a terminal."""
    cells = [("what", "measured", "goal", "holds"), *((row.what, row.value, row.goal, _word(row)) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _word(row: Row) -> str:
    return {None: "", True: "yes", False: "NO"}[row.holds]
