"""Live sessions, judged again and again: one batched query on a short sweep, and at once when something changed.

What ends a session from outside goes through here: a verdict of policy, an OPA or an audit log that is gone for longer
than the permit's grace, an operator, a gateway that shuts down.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, KeysView
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from gateway.audit.journal import Journal
from gateway.audit.log import AuditLog
from gateway.errors import AuditUnavailable, DoorwardError, PolicyUnavailable, SessionEnded
from gateway.model import Holder, Permit, Reason, SessionId, Verdict
from gateway.policy import Policy
from gateway.policy.contract import Judgement, LiveSession, rfc3339
from gateway.telemetry import Step

log = logging.getLogger(__name__)


class Watched(Protocol):
    """What a judge needs of a session's client."""

    def say(self, text: str) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def idle_seconds(self) -> float: ...


@dataclass(eq=False, slots=True)
class LiveEntry:
    """One live session."""

    holder: Holder
    permit: Permit
    client: Watched
    journal: Journal
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    verdict: Verdict | None = None
    judged: int = 0
    unjudged_since: float | None = None
    ended: asyncio.Future[SessionEnded] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def wait_ended(self) -> None:
        """Never returns; raises SessionEnded when someone ends this session."""
        raise await asyncio.shield(self.ended)

    def raise_if_ended(self) -> None:
        """Raise SessionEnded if someone already ended this session."""
        if self.ended.done():
            raise self.ended.result()

    def end(self, reasons: list[Reason]) -> None:
        """End it, once; later words change nothing."""
        if not self.ended.done():
            self.ended.set_result(SessionEnded(reasons))

    def facts(self) -> LiveSession:
        return LiveSession(
            id=self.holder.session,
            person=self.holder.person,
            grant=self.holder.grant,
            target=self.holder.target,
            started_at=rfc3339(self.started),
            expires_at=rfc3339(self.permit.expires_at),
            idle_seconds=round(self.client.idle_seconds(), 1),
        )


class Live:
    """All live sessions of this gateway."""

    def __init__(self, policy: Policy, audit: AuditLog, journal: Journal, sweep_seconds: float, audit_grace: float):
        self._policy = policy
        self._audit = audit
        self._journal = journal
        self._sweep_seconds = sweep_seconds
        self._audit_grace = audit_grace
        self._entries: dict[SessionId, LiveEntry] = {}
        self._lock = asyncio.Lock()

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
                "backend": entry.permit.workspace.backend,
                "trace_id": entry.journal.trace_id,
            }
            for entry in self._entries.values()
        ]

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
        """Judge on a short sweep, for ever."""
        while True:
            await asyncio.sleep(self._sweep_seconds)
            await self.reevaluate()

    async def reevaluate(self, person: str | None = None) -> int:
        """Judge the live sessions (of `person`) now; how many there were.  A policy that fails is not an error here."""
        async with self._lock:
            entries = [entry for entry in self._entries.values() if person in (None, entry.holder.person)]
            if entries:
                await self._judge(entries)
            return len(entries)

    async def _judge(self, entries: list[LiveEntry]) -> None:
        asked = time.monotonic()
        facts = {entry.holder.session: entry.facts() for entry in entries}
        try:
            judged = await self._policy.judge(self._journal, list(facts.values()))
        except PolicyUnavailable as error:
            for entry in entries:
                _unjudged(entry, asked, error)
            return
        news = [entry for entry in entries if _apply(entry, judged.sessions[entry.holder.session])]
        # An end does not wait for its record; an unchanged "keep" of every second is not news (docs/adr/0004).
        await asyncio.gather(*(_record(entry, judged.record(facts[entry.holder.session])) for entry in news))

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


def _unjudged(entry: LiveEntry, asked: float, error: DoorwardError) -> None:
    since = entry.unjudged_since = asked if entry.unjudged_since is None else entry.unjudged_since
    if time.monotonic() - since >= entry.permit.session.policy_grace_seconds:
        entry.end(list(error.reasons))


def _apply(entry: LiveEntry, judgement: Judgement) -> bool:
    """Do what was judged; return whether it is news."""
    before, entry.verdict = entry.verdict, judgement.verdict
    entry.unjudged_since = None
    entry.judged += 1
    match judgement.verdict:
        case Verdict.END:
            entry.end(list(judgement.reasons))
        case Verdict.WARN if before is not Verdict.WARN:
            entry.client.say(f"doorward: {judgement.reasons[0].message}")
    return before is not judgement.verdict


async def _record(entry: LiveEntry, facts: dict[str, Any]) -> None:
    try:
        async with entry.journal.step(Step.LIVE, **facts, outcome=entry.verdict):
            pass
    except AuditUnavailable:
        log.error("judgement_unrecorded", extra={"session": entry.holder.session})
