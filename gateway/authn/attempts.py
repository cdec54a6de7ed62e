"""How often somebody may guess: wrong answers of one account, over a sliding time.  Kept in memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

ACCOUNTS = 10_000
"""Names can be made up without end; the ones that were tried longest ago are forgotten first."""


class Attempts:
    """Counted when an attempt begins, so that many at once get no more than many in turn."""

    def __init__(self, most: int, within_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._within = within_seconds
        self._clock = clock
        self._begun: OrderedDict[str, list[float]] = OrderedDict()

    def begin(self, account: str) -> bool:
        """Whether this attempt may be looked at.  One that may not does not count either."""
        now = self._clock()
        recent = [at for at in self._begun.get(account, ()) if now - at < self._within]
        if may := len(recent) < self._most:
            recent.append(now)
        self._begun[account] = recent
        self._begun.move_to_end(account)
        while len(self._begun) > ACCOUNTS:
            self._begun.popitem(last=False)
        return may

    def forget(self, account: str) -> None:
        """It was right in the end."""
        self._begun.pop(account, None)
