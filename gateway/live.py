"""Live sessions, judged again and again: batched queries on a short sweep, and at once when something changed.

What ends a session from outside goes through here: a verdict of policy, an OPA or an audit log that is gone for longer
than the permit's grace, an operator, a gateway that shuts down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, KeysView
from contextlib import asynccontextmanager
from typing import Any

from gateway.audit.journal import Journal
from gateway.audit.log import AuditLog
from gateway.concurrency import Rounds, to_the_end
from gateway.errors import AuditUnavailable, PolicyUnavailable
from gateway.model import Holder, Permit, Reason, SessionId
from gateway.policy import Policy
from gateway.telemetry import Step
from gateway.verdicts import LiveEntry, Watched

MOST_AT_ONCE = 500
"""Sessions in one question: an answer that is late or malformed leaves no more than these unjudged."""
SWEPT_AT_ONCE = 125
"""The same on a sweep, which is in nobody's way: whoever pushes waits for no more than these (docs/adr/0043)."""


class Live:
    """All live sessions of this gateway."""

    def __init__(self, policy: Policy, audit: AuditLog, journal: Journal, sweep_seconds: float, audit_grace: float):
        self._policy = policy
        self._audit = audit
        self._journal = journal
        self._sweep_seconds = sweep_seconds
        self._audit_grace = audit_grace
        self._entries: dict[SessionId, LiveEntry] = {}
        self._rounds = Rounds(self._round)
        self._rounds_of_persons = Rounds(self._round)
        self._pushes = 0

    @asynccontextmanager
    async def entered(
        self, holder: Holder, permit: Permit, client: Watched, journal: Journal
    ) -> AsyncIterator[LiveEntry]:
        """Live while the body runs.  A session is live before anything is started for it, so no judge misses it."""
        entry = LiveEntry(holder, permit, client, journal)
        self._entries[holder.session] = entry
        try:
            yield entry
        finally:
            del self._entries[holder.session]

    def ids(self) -> KeysView[SessionId]:
        """Who is live: a view, always of now, so that a reaper that listed before it looked harms nobody."""
        return self._entries.keys()

    def sessions(self) -> list[dict[str, Any]]:
        """What `doorward sessions` shows."""
        return [
            {
                **entry.facts().model_dump(),
                "verdict": entry.verdict,
                "dropped": sorted(entry.dropped.kinds),
                "backend": entry.permit.workspace.backend,
                "trace_id": entry.journal.trace_id,
            }
            for entry in self._entries.values()
        ]

    def entry(self, session: SessionId) -> LiveEntry | None:
        """The live session of that id."""
        return self._entries.get(session)

    def end(self, session: SessionId, reason: Reason) -> bool:
        """End one session by an operator's word; False when there is none of that id."""
        entry = self._entries.get(session)
        if entry is not None:
            entry.end([reason])
        return entry is not None

    def say(self, text: str) -> None:
        """One line for every live session's terminal."""
        for entry in self._entries.values():
            entry.client.say(text)

    def end_all(self, reason: Reason) -> None:
        for entry in self._entries.values():
            entry.end([reason])

    async def sweep(self) -> None:
        """Judge on a short sweep, for ever: as often as is said, and OPA has a rest when it is slower than that."""
        took = 0.0
        while True:
            await asyncio.sleep(max(self._sweep_seconds - took, self._sweep_seconds / 4))
            began = time.monotonic()
            await self._swept()
            took = time.monotonic() - began

    async def reevaluate(self, person: str | None = None) -> int:
        """Judge the live sessions (of `person`) now; how many there were.  A policy that fails is not an error here.

        Many at once are few questions: whoever asks while one is under way shares the next with all who do so.  Who
        asks about a person does not wait for an answer about everybody.
        """
        self._pushes += person is None
        judged = await (self._rounds if person is None else self._rounds_of_persons).join(person)
        return sum(person in (None, judged_person) for judged_person in judged)

    async def _round(self, persons: frozenset[str | None]) -> list[str]:
        entries = [entry for entry in self._entries.values() if None in persons or entry.holder.person in persons]
        if entries:
            await self._judge(entries)
        return [entry.holder.person for entry in entries]

    async def _swept(self) -> None:
        """Judge part by part, and leave the rest to whoever pushes meanwhile: everybody is judged anew by that.

        Without an answer to a part there is no time to lose: the others' graces run.
        """
        pushes = self._pushes
        rest = list(self._entries.values())
        while rest and pushes == self._pushes:
            if not await self._judge_part(rest[:SWEPT_AT_ONCE]):
                await self._judge(rest[SWEPT_AT_ONCE:])
                return
            rest = [entry for entry in rest[SWEPT_AT_ONCE:] if entry.holder.session in self._entries]

    async def _judge(self, entries: list[LiveEntry]) -> None:
        parts = [entries[first : first + MOST_AT_ONCE] for first in range(0, len(entries), MOST_AT_ONCE)]
        await asyncio.gather(*(self._judge_part(part) for part in parts))

    async def _judge_part(self, entries: list[LiveEntry]) -> bool:
        """Whether there was an answer."""
        asked = time.monotonic()
        facts = {entry.holder.session: entry.facts() for entry in entries}
        try:
            judged = await self._policy.judge(self._journal, list(facts.values()))
        except PolicyUnavailable as error:
            for entry in _still_open(entries, asked):
                entry.unjudged(asked, error)
            return False
        recording = []
        for entry in _still_open(entries, asked):
            judgement = judged.sessions.get(entry.holder.session)
            if judgement is None:
                entry.unjudged(asked, judged.unjudged)
                continue
            entry.asked = asked
            if (news := entry.judge(judgement, judged.decision_id)) is not None:
                recording.append(entry.record(news, judged.record(facts[entry.holder.session])))
        # An end does not wait for its record; an unchanged "keep" of every second is not news (docs/adr/0004).
        # What another question learned first is waited for too: whoever asked is told when that is done.
        # Whoever leaves meanwhile leaves no judgement without its record.
        await to_the_end(asyncio.gather(*recording, *(entry.recorded() for entry in entries if entry.has_news)))
        return True

    async def watch_audit(self) -> None:
        """Pause every session while the audit log cannot be written, and end them when it stays so."""
        while True:
            await self._audit.failed.wait()
            for entry in self._entries.values():
                entry.client.pause()
            if await self._writable_again():
                for entry in self._entries.values():
                    entry.client.resume()
            else:
                self.end_all(AuditUnavailable("the audit log cannot be written").reasons[0])
                await asyncio.sleep(self._sweep_seconds)

    async def _writable_again(self) -> bool:
        deadline = time.monotonic() + self._audit_grace
        while time.monotonic() < deadline:
            try:
                await self._journal.record(Step.LIVE, "resumed")
            except AuditUnavailable:
                await asyncio.sleep(min(0.25, self._audit_grace))
            else:
                return True
        return False


def _still_open(entries: list[LiveEntry], asked: float) -> list[LiveEntry]:
    """Those without an answer to a later question than of `asked`: two questions can be under way at once."""
    return [entry for entry in entries if entry.asked <= asked]
