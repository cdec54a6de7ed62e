"""The warm workspaces of one kind: those that are ready, those that are coming, and when the next may be started."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from gateway.pools.kinds import Kind
from gateway.pools.warm import Warm

YOUNG_SECONDS = 10.0
"""One that ends sooner after it was ready was not worth its start."""
FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0


@dataclass(slots=True)
class Shelf:
    kind: Kind
    ready: list[Warm] = field(default_factory=list)
    """The oldest first."""
    coming: dict[Warm, asyncio.Task[None]] = field(default_factory=dict)
    wanted: int = 0
    failures: int = 0
    """In a row."""
    next_at: float = 0.0
    """By the monotonic clock: no start before."""

    def missing(self) -> int:
        """How many to start now."""
        if any(warm.age > YOUNG_SECONDS for warm in self.ready):
            self.succeeded()
        if time.monotonic() < self.next_at:
            return 0
        there = len(self.ready) + len(self.coming)
        # After a failure one is tried at a time, until one has lasted.
        at_once = 1 - len(self.coming) if self.failures else self.wanted
        return max(0, min(self.wanted - there, at_once))

    def take(self, made_of: str) -> Warm | None:
        """The oldest that is made of what a new one would be made of; the others are let go."""
        while self.ready:
            warm = self.ready.pop(0)
            if warm.made_of == made_of:
                warm.claim()
                return warm
            warm.let_go()
        return None

    def came(self, warm: Warm) -> None:
        self.coming.pop(warm, None)
        self.ready.append(warm)

    def left(self, warm: Warm) -> None:
        """It has ended, wherever it was."""
        self.coming.pop(warm, None)
        if warm in self.ready:
            self.ready.remove(warm)

    def failed(self) -> None:
        """One could not be started, or ended at once: the next is tried later, and later each time."""
        if time.monotonic() < self.next_at:
            return  # started together, failed together
        delay = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self.failures, 10))
        self.failures += 1
        self.next_at = time.monotonic() + delay

    def succeeded(self) -> None:
        self.failures, self.next_at = 0, 0.0

    def shrink(self, made_of: str) -> None:
        """Let go of what is too much, the youngest first, and of what is made of something else by now."""
        for warm in [warm for warm in self.ready if warm.made_of != made_of]:
            self.ready.remove(warm)
            warm.let_go()
        while len(self.ready) > self.wanted:
            self.ready.pop().let_go()
        spare = len(self.ready) + len(self.coming) - self.wanted
        for task in list(self.coming.values())[: max(0, spare)]:
            task.cancel()
