"""How an error reads at a terminal: code, one sentence, the remedy, and the ids that support asks for."""

from __future__ import annotations

import unicodedata

from gateway.errors import DoorwardError


def explained(error: DoorwardError, session: str, *, lines: bool = True) -> str:
    """`error` for a person; `lines=False` for places that have room for one line only."""
    said = []
    for reason in error.reasons:
        said.append(f"doorward: {reason.code}: {reason.message}")
        if reason.remedy:
            said.append(f"doorward: what to do: {reason.remedy}")
    said += [f"doorward: {line}" for line in error.lines if lines]
    decision = f"decision {error.decision_id}, " if error.decision_id else ""
    said.append(f"doorward: {decision}session {session}")
    shown = [printable(line) for line in said]
    return "\n".join(shown) if lines else " | ".join(line.removeprefix("doorward: ") for line in shown)


def printable(text: str) -> str:
    """One line that a terminal shows and does not obey: policy data may quote what a person typed."""
    return "".join(char if unicodedata.category(char)[0] != "C" else "?" for char in text)
