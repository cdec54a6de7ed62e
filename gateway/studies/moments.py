"""Points in time as people type them: RFC 3339, `now`, or so long from now (`+2h`, `-1d12h`)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from gateway.studies.errors import StudyError

_SPAN = re.compile(r"([+-])((?:\d{1,6}[wdhms])+)")
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def moment(text: str, now: datetime | None = None) -> datetime:
    """The moment, in UTC.  Raises StudyError."""
    now = now or datetime.now(UTC)
    if text == "now":
        return now
    try:
        if found := _SPAN.fullmatch(text):
            return now + (1 if found[1] == "+" else -1) * span(found[2])
        at = datetime.fromisoformat(text).astimezone(UTC) if _has_zone(text) else None
    except (ValueError, OverflowError):
        at = None
    if at is None or not 1900 <= at.year < 2200:
        raise StudyError(
            f"the time {text!r} is none",
            remedy="Write RFC 3339 with a zone, from 1900 to 2199 (2026-11-25T03:00:00Z), `now`, or +2h, -30m, +1d12h.",
        )
    return at


def span(text: str) -> timedelta:
    """A length of time such as `7d` or `1h30m`.  Raises StudyError."""
    if not re.fullmatch(r"(?:\d{1,6}[wdhms])+", text):
        raise StudyError(f"{text!r} is no length of time", remedy="Write for example 7d, 12h or 1h30m.")
    parts = re.findall(r"(\d+)([wdhms])", text)
    return sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())


def since(text: str, now: datetime | None = None) -> datetime:
    """The same, and a bare length of time is so long ago: `7d`.  Raises StudyError."""
    return moment(f"-{text}" if re.fullmatch(r"(?:\d{1,6}[wdhms])+", text) else text, now)


def _has_zone(text: str) -> bool:
    """A date and a time of day with a zone: what has none may mean any of 38 moments."""
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)", text))
