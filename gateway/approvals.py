"""Sessions that wait for somebody else to join, and how an answer given to the gateway reaches the one it is for.

Whether an answer counts is policy's to say (`obliged.py`); nothing here does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import DoorwardError
from gateway.model import Reason, SessionId

MAX_ANSWERS = 100
"""Answers that one session takes: each is a decision."""


class NobodyWaits(DoorwardError):
    code = "not_waiting"
    remedy = "See `doorward sessions`: perhaps it was answered, or the engineer has left."


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of the session by an answer."""

    outcome: str
    """`approved`, `refused` or `waiting`: then the answer did not count, or another one is still needed."""
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Word:
    """Somebody's answer."""

    by: str
    approve: bool
    answered: asyncio.Future[Answered] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, outcome: str, reasons: tuple[Reason, ...] = ()) -> None:
        if not self.answered.done():
            self.answered.set_result(Answered(outcome, reasons))


class Waiting:
    """One session that waits."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.taken = 0
        self._words: asyncio.Queue[Word] = asyncio.Queue(MAX_ANSWERS)

    def put(self, word: Word) -> None:
        self.taken += 1
        self._words.put_nowait(word)

    async def next(self, seconds: float) -> Word | None:
        """The next answer, or None when none came in time."""
        try:
            async with asyncio.timeout(seconds):
                return await self._words.get()
        except TimeoutError:
            return None

    def close(self) -> None:
        while not self._words.empty():
            self._words.get_nowait().answered.cancel()


class Approvals:
    """All that wait."""

    def __init__(self) -> None:
        self._waiting: dict[SessionId, Waiting] = {}

    @contextmanager
    def waits(self, session: SessionId, facts: Mapping[str, Any]) -> Iterator[Waiting]:
        """Answers can be given while the body runs."""
        self._waiting[session] = waiting = Waiting(facts)
        try:
            yield waiting
        finally:
            del self._waiting[session]
            waiting.close()

    def sessions(self) -> list[dict[str, Any]]:
        """What `doorward sessions` shows of those that wait."""
        return [{"id": session, **waiting.facts} for session, waiting in self._waiting.items()]

    async def answer(self, session: SessionId, by: str, approve: bool) -> Answered:
        """Raises NobodyWaits, also where the session is over before the answer was judged."""
        waiting = self._waiting.get(session)
        if waiting is None or waiting.taken >= MAX_ANSWERS:
            raise NobodyWaits(f"no session {session} waits for an answer")
        word = Word(by, approve)
        waiting.put(word)
        await asyncio.wait([word.answered])
        if word.answered.cancelled():
            raise NobodyWaits(f"session {session} waits no longer")
        return word.answered.result()
