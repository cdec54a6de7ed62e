"""Who may begin: limits over all connections, and over those that have authenticated nobody yet, as sshd has them.

An admitted connection holds a `Ticket` from its accept to its end.  Nothing here knows SSH.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from enum import StrEnum

from gateway.penalties import Fault, Penalties
from gateway.settings_ssh import SshSettings
from gateway.sources import Source, Sources

log = logging.getLogger(__name__)


class Refusal(StrEnum):
    """Why a connection was closed before a word of SSH."""

    PENALTY = "penalty"
    CONNECTIONS = "max_connections"
    STARTUPS = "max_startups"
    PER_SOURCE = "max_startups_per_source"
    PROXY_HEADER = "proxy_header"


class Admission:
    """Counts who is here.  `dice()` is a number from 0 up to 1, for the random early drop."""

    def __init__(
        self,
        settings: SshSettings,
        penalties: Penalties | None = None,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._penalties = penalties or Penalties(settings.penalties)
        self._dice = dice
        self._sources = Sources(settings.source_prefix_v4, settings.source_prefix_v6, settings.penalties.exempt)
        self._start, self._rate, self._full = map(int, settings.max_startups.split(":"))
        self._connections = 0
        self._startups = 0
        self._by_source: Counter[Source] = Counter()

    def admit(self, address: str) -> Ticket | Refusal:
        """A ticket, which must be ended; or why not."""
        source = self._sources.of(address)
        if self._penalties.refuses(source):
            return Refusal.PENALTY
        if self._connections >= self._settings.max_connections:
            return Refusal.CONNECTIONS
        if self._drops():
            return Refusal.STARTUPS
        if source is not None and self._by_source[source] >= self._settings.max_startups_per_source:
            return Refusal.PER_SOURCE
        self._connections += 1
        self._startups += 1
        if source is not None:
            self._by_source[source] += 1
        return Ticket(self, source)

    def _drops(self) -> bool:
        """Random early drop (sshd_config(5), MaxStartups): `rate` per cent at `start`, all at `full`."""
        if self._startups < self._start:
            return False
        if self._startups >= self._full:
            return True
        share = (self._startups - self._start) / (self._full - self._start)
        return self._dice() * 100 < self._rate + (100 - self._rate) * share

    def _began(self, source: Source | None) -> None:
        """One of the unauthenticated is no longer one."""
        self._startups -= 1
        if source is not None:
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]

    def _ended(self, source: Source | None, fault: Fault | None) -> None:
        self._connections -= 1
        if fault is not None:
            self._penalties.charge(source, fault)

    def describe(self) -> dict[str, int]:
        """How many are here now."""
        return {"connections": self._connections, "unauthenticated": self._startups}


class Ticket:
    """One admitted connection."""

    def __init__(self, admission: Admission, source: Source | None) -> None:
        self._admission = admission
        self._source = source
        self._ended = False
        self.proven = asyncio.Event()
        """Set once somebody is authenticated on it."""

    def prove(self) -> None:
        if not self._ended and not self.proven.is_set():
            self.proven.set()
            self._admission._began(self._source)

    def end(self, fault: Fault | None = None) -> None:
        """The connection is over.  Ending twice is fine; `fault` is what its source pays for."""
        if self._ended:
            return
        if not self.proven.is_set():
            self._admission._began(self._source)
        self._ended = True
        self._admission._ended(self._source, fault)
