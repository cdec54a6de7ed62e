"""One live session, and what each verdict does to it.

What takes something away is done at once and recorded then; what gives it back is recorded first (docs/adr/0007).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from gateway.audit.journal import Journal
from gateway.errors import AuditUnavailable, DoorwardError, SessionEnded
from gateway.model import NOTHING_DROPPED, Dropped, Holder, Permit, Reason, Verdict
from gateway.policy.contract import Judgement, LiveSession, rfc3339
from gateway.telemetry import Step

log = logging.getLogger(__name__)

TOLD = (Verdict.WARN, Verdict.RESTRICT)
"""The verdicts whose reasons are said on the terminal; those of an end are told with it."""
LIFTED = "doorward: nothing is closed here any more. What was ended can be opened again."


class Restrictable(Protocol):
    """What a client has open, and can lose while it goes on."""

    def change(self, to: Dropped) -> Mapping[str, int]:
        """From this very turn on `to` holds, instead of what held: what it drops is ended, and refused when asked for.

        Returns how many of each kind were ended.  The same again ends what slipped through, and else does nothing.
        """
        ...


class Watched(Protocol):
    """What a judge needs of a session's client."""

    @property
    def restricted(self) -> Restrictable: ...
    def say(self, text: str) -> None: ...
    def tell(self, text: str) -> None: ...
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
    judgement: Judgement | None = None
    dropped: Dropped = NOTHING_DROPPED
    """What holds.  It outlives verdicts that are missing."""
    judged: int = 0
    asked: float = 0
    """When the last question was asked that was answered, by the monotonic clock."""
    unjudged_since: float | None = None
    ended: asyncio.Future[SessionEnded] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _wanted: Dropped = field(default=NOTHING_DROPPED, init=False)
    """What is to hold once it is on record."""
    _recording: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

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

    @property
    def verdict(self) -> Verdict | None:
        """The last one."""
        return self.judgement.verdict if self.judgement is not None else None

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

    def unjudged(self, asked: float, error: DoorwardError) -> None:
        """There was no verdict when it was asked for, at `asked`: what held, holds, until the grace is over."""
        since = self.unjudged_since = asked if self.unjudged_since is None else self.unjudged_since
        if time.monotonic() - since >= self.permit.session.policy_grace_seconds:
            self.end(list(error.reasons))

    def judge(self, judgement: Judgement, decision_id: str = "") -> dict[str, Any] | None:
        """Do what was judged, but for what it gives back.  Where it is news: what is to be recorded of it."""
        before, self.judgement = self.judgement, judgement
        self.unjudged_since = None
        self.judged += 1
        wanted = Dropped(frozenset(map(str, judgement.drop)), judgement.reasons, decision_id)
        if judgement.verdict is Verdict.END:
            self.end(list(judgement.reasons))
        same = wanted.kinds == self.dropped.kinds and (wanted.reasons == self.dropped.reasons or not wanted.kinds)
        if same or self.ended.done():
            wanted = self.dropped  # by the judgement that is on record; and nothing is given back on the way out
        changes = wanted is not self.dropped
        self._wanted = wanted
        lost = self._restrict(wanted.kinds | self.dropped.kinds)
        told = self._tell(judgement, before)
        if changes or told or lost or before is None or before.verdict is not judgement.verdict:
            return {"dropped": lost} if lost else {}
        return None

    async def record(self, facts: Mapping[str, Any]) -> None:
        """Put its news on record; then what is given back is."""
        async with self._recording:
            try:
                async with self.journal.step(Step.LIVE, **facts, outcome=self.verdict):
                    pass
            except AuditUnavailable:
                log.error("judgement_unrecorded", extra={"session": self.holder.session})
                return
            had = self.dropped.kinds
            self._restrict(self._wanted.kinds)
            if had and not self.dropped.kinds:
                self.client.tell(LIFTED)

    async def recorded(self) -> None:
        """Return when the news that there is by now is on record, and what it gives back is given."""
        async with self._recording:
            pass

    def _restrict(self, kinds: frozenset[str]) -> dict[str, int]:
        if not kinds and not self.dropped.kinds:
            return {}
        latest = self._wanted if self._wanted.kinds else self.dropped  # a keep has no reasons
        self.dropped = Dropped(kinds, latest.reasons, latest.decision_id)
        return dict(self.client.restricted.change(self.dropped))

    def _tell(self, judgement: Judgement, before: Judgement | None) -> bool:
        """One line for each reason that is new, and for other things that are dropped; whether there was one."""
        if judgement.verdict not in TOLD:
            return False
        heard = {reason.code for reason in before.reasons} if before is not None and before.verdict in TOLD else set()
        if before is not None and set(before.drop) != set(judgement.drop):
            heard.discard(judgement.reasons[0].code)
        new = [reason for reason in judgement.reasons if reason.code not in heard]
        for reason in new:
            self.client.tell(f"doorward: {reason.message}")
        return bool(new)
