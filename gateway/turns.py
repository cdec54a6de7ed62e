"""So many at once, in turn by person: one person's fifty logins do not keep another's waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

NOBODY = ""
"""Whose turn comes when no person waits: to fill a pool."""


class Turns:
    """Persons take turns, each person's own in the order in which they came."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._running = 0
        self._filling = 0
        """How many of those that run are nobody's; one turn is always left for a person."""
        self._waiting: dict[str, deque[_Place]] = {}

    @property
    def waiting(self) -> int:
        """How many wait, nobody's apart."""
        return sum(len(places) for person, places in self._waiting.items() if person != NOBODY)

    @asynccontextmanager
    async def turn(self, person: str, told: Callable[[int], None] | None = None) -> AsyncIterator[None]:
        """Wait for a turn, and have it while the body runs.  Until then `told` hears how many wait, again and again."""
        await self._taken(person, told)
        try:
            yield
        finally:
            self._over(person)

    async def _taken(self, person: str, told: Callable[[int], None] | None) -> None:
        place = _Place(told)
        self._waiting.setdefault(person, deque()).append(place)
        self._give()
        try:
            await place.given
        except asyncio.CancelledError:
            if place.given.cancelled():
                self._forget(person, place)
                self._give()
            else:  # given in the very turn of the loop in which we left
                self._over(person)
            raise

    def _over(self, person: str) -> None:
        self._running -= 1
        self._filling -= person == NOBODY
        self._give()

    def _forget(self, person: str, place: _Place) -> None:
        places = self._waiting[person]
        places.remove(place)
        if not places:
            del self._waiting[person]

    def _give(self) -> None:
        while self._running < self._at_once and self._next():
            self._running += 1
        listening = [
            place.told
            for person, places in self._waiting.items()
            if person != NOBODY
            for place in places
            if place.told is not None
        ]
        for told in listening:
            told(self.waiting)

    def _next(self) -> bool:
        """Give a turn to the person who had theirs longest ago; False when there is nobody to give it to."""
        # A place that was left is still there until its task has run; it is not given.
        for person in sorted(self._waiting, key=lambda name: name == NOBODY):  # stable: in turn, but for nobody
            if person == NOBODY and self._filling >= max(1, self._at_once - 1):
                continue
            for place in self._waiting[person]:
                if not place.given.done():
                    self._forget(person, place)
                    if person in self._waiting:
                        self._waiting[person] = self._waiting.pop(person)  # to the end of the row
                    self._filling += person == NOBODY
                    place.given.set_result(None)
                    return True
        return False


class _Place:
    def __init__(self, told: Callable[[int], None] | None) -> None:
        self.told = told
        self.given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
