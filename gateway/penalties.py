"""What misbehaving before authentication costs a source: OpenSSH's PerSourcePenalties (sshd_config(5), 9.8).

Each fault adds seconds to what its source owes, up to a most.  A source that owes more than `min_seconds` is refused,
before any key exchange, until all of it has passed.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from gateway.settings_ssh import PenaltySettings
from gateway.sources import Source

log = logging.getLogger(__name__)


class Fault(StrEnum):
    """How a connection ended that authenticated nobody."""

    AUTH_FAIL = "auth_fail"
    NO_AUTH = "no_auth"
    CRASH = "crash"
    GRACE_EXCEEDED = "grace_exceeded"


@dataclass(slots=True)
class _Debt:
    until: float
    refusing: bool = False
    told: bool = False


class Penalties:
    """Who owes what.  A bounded table for each of IPv4 and IPv6, so that a flood from one cannot wipe the other's."""

    def __init__(self, settings: PenaltySettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._seconds = {
            Fault.AUTH_FAIL: settings.auth_fail_seconds,
            Fault.NO_AUTH: settings.no_auth_seconds,
            Fault.CRASH: settings.crash_seconds,
            Fault.GRACE_EXCEEDED: settings.grace_exceeded_seconds,
        }
        self._tables = {4: _Table(settings.max_sources), 6: _Table(settings.max_sources)}

    def charge(self, source: Source | None, fault: Fault) -> None:
        """Add what `fault` costs."""
        seconds = self._seconds[fault]
        if source is None or seconds == 0 or self._settings.max_seconds == 0:
            return
        now, table = self._clock(), self._tables[source.version]
        debt = table.find(source.name, now) or table.make(source.name, now, self._settings.overflow == "permissive")
        if debt is None:
            return  # full, and everybody of this family is refused until there is room
        table.extend(source.name, debt, min(max(debt.until, now) + seconds, now + self._settings.max_seconds))
        if not debt.refusing and debt.until - now >= self._settings.min_seconds:
            debt.refusing = True
            log.warning("source_penalised", extra={"source": source.name, "fault": fault, "seconds": debt.until - now})

    def refuses(self, source: Source | None) -> bool:
        """Whether a connection from `source` is refused now; the first refusal of each penalty is a line in the log."""
        if source is None:
            return False
        now, table = self._clock(), self._tables[source.version]
        debt = table.find(source.name, now)
        if debt is None or not debt.refusing:
            return self._settings.overflow == "deny_all" and debt is None and table.is_full(now)
        if not debt.told:
            debt.told = True
            log.warning("source_refused", extra={"source": source.name, "seconds_left": round(debt.until - now)})
        return True


class _Table:
    """Debts by source, and a heap of (end, source) to find the one that ends first; entries there may be outdated."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._debts: dict[str, _Debt] = {}
        self._ends: list[tuple[float, str]] = []

    def find(self, name: str, now: float) -> _Debt | None:
        debt = self._debts.get(name)
        if debt is not None and debt.until <= now:
            del self._debts[name]
            return None
        return debt

    def is_full(self, now: float) -> bool:
        self._forget(lambda until: until <= now)
        return len(self._debts) >= self._size

    def make(self, name: str, now: float, forget_least: bool) -> _Debt | None:
        """A debt of nothing yet; None when there is no room and nobody may be forgotten for it."""
        if self.is_full(now):
            if not forget_least:
                return None
            self._forget(lambda _: len(self._debts) >= self._size)
        self._debts[name] = debt = _Debt(now)
        return debt

    def extend(self, name: str, debt: _Debt, until: float) -> None:
        debt.until = until
        heapq.heappush(self._ends, (until, name))
        if len(self._ends) > 2 * self._size + 64:
            self._ends = [(debt.until, name) for name, debt in self._debts.items()]
            heapq.heapify(self._ends)

    def _forget(self, due: Callable[[float], bool]) -> None:
        while self._ends and due(self._ends[0][0]):
            until, name = heapq.heappop(self._ends)
            debt = self._debts.get(name)
            if debt is not None and debt.until <= until:
                del self._debts[name]
