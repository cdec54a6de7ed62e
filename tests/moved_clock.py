"""A gateway's clock that stands still until a test moves it: of what policy is told, and of a session's end."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

import pytest


class MovedClock:
    """Every gateway in this process believes it.  Records keep their own time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
        self.to(at)
        clock = self

        class Shown(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return clock.at.astimezone(tz)

        monkeypatch.setattr("gateway.policy.contract.datetime", Shown)
        monkeypatch.setattr("gateway.clocks.datetime", Shown)

    def to(self, at: str) -> None:
        """Show this moment, RFC 3339."""
        self.at = datetime.fromisoformat(at).astimezone(UTC)
