"""From when to when, and in which hours of the week: what people type, as a grant has it."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.errors import SettingsError
from gateway.policy.contract import rfc3339
from gateway.studies.errors import StudyError
from gateway.studies.moments import moment

MINUTES = 10 * 366 * 24 * 60
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WINDOW = "mon-fri 09:00-17:00 Europe/Berlin"


def add_length(action: argparse.ArgumentParser, *, required: bool = False, since: str = "from its start") -> None:
    """`--minutes` or `--until`."""
    length = action.add_mutually_exclusive_group(required=required)
    default = "" if required else " (default 60)"
    length.add_argument("--minutes", type=float, help=f"how long {since}{default}")
    length.add_argument("--until", metavar="TIME", help="RFC 3339 with a zone, or from now: +2h, +1d12h")


def time_of(option: str, text: str) -> datetime:
    """Raises SettingsError that names the option."""
    try:
        return moment(text)
    except StudyError as error:
        [reason] = error.reasons
        raise SettingsError(f"{option}: {reason.message}", remedy=reason.remedy) from error


def minutes_of(minutes: float) -> timedelta:
    if not 0 < minutes < MINUTES:
        raise SettingsError(
            "--minutes: a number of minutes, more than 0 and less than ten years'", remedy="For example 60."
        )
    return timedelta(minutes=minutes)


def span(parsed: argparse.Namespace) -> dict[str, str]:
    """`starts_at` and `ends_at`, from `--from` (or now) and `--minutes` or `--until`."""
    start = time_of("--from", parsed.start) if parsed.start else datetime.now(UTC)
    minutes = 60 if parsed.minutes is None else parsed.minutes
    end = time_of("--until", parsed.until) if parsed.until else start + minutes_of(minutes)
    return {"starts_at": rfc3339(start), "ends_at": rfc3339(end)}


def window(text: str) -> dict[str, Any]:
    """`mon-fri 09:00-17:00 Europe/Berlin`.  What days, hours and zones there are is policy's to say.

    Raises SettingsError for what has not these three parts.
    """
    parts = text.split()
    hours = parts[1].split("-") if len(parts) == 3 else []
    if len(hours) != 2:
        raise SettingsError(f"--window: {text!r} is not days, hours and a zone", remedy=f'Write it as "{WINDOW}".')
    days = [day for part in parts[0].lower().split(",") for day in _days(part)]
    return {"days": days, "from": hours[0], "to": hours[1], "zone": parts[2]}


def _days(part: str) -> list[str]:
    first, _, last = part.partition("-")
    if first not in DAYS or last not in DAYS:
        return [part]
    start, end = DAYS.index(first), DAYS.index(last)
    return [DAYS[at % 7] for at in range(start, (end if end >= start else end + 7) + 1)]
