"""The clocks of a session: its grant's end, its longest duration, its longest idleness; each warns before it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from gateway.concurrency import first_done
from gateway.errors import SessionEnded
from gateway.model import Permit, Reason

GRANT_ENDS = Reason(code="grant_ended", message="the grant ends", remedy="Ask for a new grant to go on.")
CONNECT_AGAIN = "Connect again to go on; your grant still stands."


class Clocks:
    """Made when the session starts; `now` is the start of its longest duration."""

    def __init__(self, permit: Permit, idle_seconds: Callable[[], float], warn: Callable[[str], None]) -> None:
        self._permit = permit
        self._idle_seconds = idle_seconds
        self._warn = warn

    async def wait_over(self) -> None:
        """Never returns; raises SessionEnded when the first clock runs out."""
        limits = self._permit.session
        grant_seconds = (self._permit.expires_at - datetime.now(UTC)).total_seconds()
        end = self._permit.ending or GRANT_ENDS
        await first_done(
            self._deadline(grant_seconds, end.code, end.message, end.remedy),
            self._deadline(limits.max_seconds, "max_duration", "the session's longest duration", CONNECT_AGAIN),
            self._idle(limits.idle_seconds),
        )

    async def _deadline(self, seconds: float, code: str, what: str, remedy: str) -> None:
        warn = self._warning(seconds)
        await asyncio.sleep(max(0.0, seconds - warn))
        if warn:
            self._warn(f"doorward: {what} in {_words(warn)}; this session ends then")
        await asyncio.sleep(min(warn, max(0.0, seconds)))
        raise SessionEnded([Reason(code=code, message=f"{what}: now", remedy=remedy)])

    async def _idle(self, limit: float) -> None:
        warn = self._warning(limit)
        warned = False
        while (idle := self._idle_seconds()) < limit:
            if idle < limit - warn:
                warned = False
                await asyncio.sleep(limit - warn - idle)
                continue
            if not warned and warn:
                self._warn(f"doorward: nothing has happened for a while; this idle session ends in {_words(warn)}")
                warned = True
            await asyncio.sleep(min(limit - idle, 0.25))
        raise SessionEnded([Reason(code="idle", message=f"nothing happened for {_words(limit)}", remedy=CONNECT_AGAIN)])

    def _warning(self, seconds: float) -> float:
        # A warning longer than the clock itself would come at once, when nobody reads it.
        return min(self._permit.session.warn_seconds, max(0.0, seconds) / 2)


def _words(seconds: float) -> str:
    return f"{round(seconds)} s" if seconds < 120 else f"{round(seconds / 60)} min"
