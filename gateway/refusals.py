"""Who was turned away at the door, told in sums: a flood of refusals must fill neither the log nor the disk.

While something is refused, one line in the log and one audit record a minute; each holds the counts by reason and
the sources that were refused most.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

from gateway.admission import Refusal
from gateway.audit.journal import Journal
from gateway.errors import AuditUnavailable
from gateway.telemetry import Step

log = logging.getLogger(__name__)

SETTLE_SECONDS = 1.0
"""From the first refusal to the first telling: the start of a flood is one sum already."""
EVERY_SECONDS = 60.0
MAX_ADDRESSES = 1000
NAMED = 10


class Refusals:
    """Notes refusals at once and tells of them seldom."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._news = asyncio.Event()
        self._reasons: Counter[Refusal] = Counter()
        self._addresses: Counter[str] = Counter()
        self._others = 0
        self.total: Counter[str] = Counter()
        """By reason, since the start."""

    def note(self, why: Refusal, address: str) -> None:
        self.total[why.value] += 1
        self._reasons[why] += 1
        if address in self._addresses or len(self._addresses) < MAX_ADDRESSES:
            self._addresses[address] += 1
        else:
            self._others += 1
        self._news.set()

    async def tell(self) -> None:
        """Tell of them for ever; when cancelled, of the last ones once more."""
        try:
            while True:
                await self._news.wait()
                await asyncio.sleep(SETTLE_SECONDS)
                await self._tell()
                await asyncio.sleep(max(0, EVERY_SECONDS - SETTLE_SECONDS))
        finally:
            if self._reasons:
                await self._tell()

    async def _tell(self) -> None:
        facts = self._sum()
        log.warning("connections_refused", extra=facts)
        try:
            await self._journal.record(Step.REFUSED, "deny", **facts)
        except AuditUnavailable:
            log.error("refusals_unrecorded")

    def _sum(self) -> dict[str, Any]:
        facts = {
            "count": self._reasons.total(),
            "by_reason": {reason.value: count for reason, count in self._reasons.items()},
            "addresses": dict(self._addresses.most_common(NAMED)),
            "more_addresses": max(0, len(self._addresses) - NAMED),
        }
        if self._others:
            facts["from_addresses_not_counted"] = self._others
        self._reasons.clear()
        self._addresses.clear()
        self._others = 0
        self._news.clear()
        return facts
