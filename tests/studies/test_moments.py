"""Points in time as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.studies.errors import StudyError
from gateway.studies.moments import moment, span

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("now", NOW),
        ("+2h", NOW + timedelta(hours=2)),
        ("-1d12h", NOW - timedelta(days=1, hours=12)),
        ("+1w", NOW + timedelta(weeks=1)),
        ("2026-11-25T04:00:00+01:00", NOW),
        ("2026-11-25T03:00:00Z", NOW),
        ("2026-11-25 03:00Z", NOW),
        ("1999-12-31T23:59:59.5Z", datetime(1999, 12, 31, 23, 59, 59, 500000, tzinfo=UTC)),
    ],
)
def test_what_is_a_time(text: str, at: datetime) -> None:
    assert moment(text, NOW) == at


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2026-11-25", "2026-11-25T03:00:00", "2026-02-30T00:00:00Z", "2h", "+", "+2", "+9999999d",
     "+999999w", "1800-01-01T00:00:00Z", "2200-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00"],
)  # fmt: skip
def test_what_is_none_is_told_with_what_would_be(text: str) -> None:
    with pytest.raises(StudyError, match="is none") as told:
        moment(text, NOW)
    assert "RFC 3339" in told.value.reasons[0].remedy


def test_lengths_of_time() -> None:
    assert span("7d") == timedelta(days=7)
    assert span("1h30m") == timedelta(minutes=90)
    with pytest.raises(StudyError, match="no length"):
        span("a week")
