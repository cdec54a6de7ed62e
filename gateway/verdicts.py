"""One live session, and what each verdict does to it.

What takes something away is done at once and recorded then; what gives it back is recorded first (docs/adr/0007).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True, slots=True, eq=False)
class News:
    """What a judgement changed, for the record."""

    verdict: Verdict
    wanted: Dropped
    """What is to hold once it is on record."""
    lost: Mapping[str, int]
    """How many of each kind were ended."""


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
    """What holds: all that is on record, or about to be.  It outlives verdicts that are missing."""
    judged: int = 0
    asked: float = 0
    """When the last question was asked that was answered, by the monotonic clock."""
    unjudged_since: float | None = None
    ended: asyncio.Future[SessionEnded] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _news: list[News] = field(default_factory=list, init=False)
    """What is not on record yet, in order."""
    _settled: Dropped = field(default=NOTHING_DROPPED, init=False)
    """What holds but for these."""
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

    def judge(self, judgement: Judgement, decision_id: str = "") -> News | None:
        """Do what was judged, but for what it gives back.  Where it is news: what `record` has to be called with."""
        before, self.judgement = self.judgement, judgement
        self.unjudged_since = None
        self.judged += 1
        wanted = Dropped(frozenset(map(str, judgement.drop)), judgement.reasons, decision_id)
        if judgement.verdict is Verdict.END:
            self.end(list(judgement.reasons))
        last = self._last()
        same = wanted.kinds == last.kinds and (wanted.reasons == last.reasons or not wanted.kinds)
        if same or self.ended.done():
            wanted = last  # by the judgement that said so first; and nothing is given back on the way out
        lost = self._restrict(self.dropped.kinds | wanted.kinds, wanted)
        told = self._tell(judgement, before)
        if wanted is last and not told and not lost and before is not None and before.verdict is judgement.verdict:
            return None
        news = News(judgement.verdict, wanted, lost)
        self._news.append(news)
        return news

    async def record(self, news: News, facts: Mapping[str, Any]) -> None:
        """Put it on record, after the news before it; then what it gives back is given."""
        lost = {"dropped": news.lost} if news.lost else {}
        async with self._recording:
            try:
                async with self.journal.step(Step.LIVE, **facts, **lost, outcome=news.verdict):
                    pass
            except AuditUnavailable:
                log.error("judgement_unrecorded", extra={"session": self.holder.session})
                self._settle(news, gives=False)
            else:
                self._settle(news, gives=not self.ended.done())

    async def recorded(self) -> None:
        """Return when the news that there is by now is on record, and what it gives back is given."""
        async with self._recording:
            pass

    @property
    def has_news(self) -> bool:
        """Whether something is not on record yet, or not given back."""
        return bool(self._news)

    def _last(self) -> Dropped:
        """What is to hold once all is on record."""
        return self._news[-1].wanted if self._news else self._settled

    def _settle(self, news: News, *, gives: bool) -> None:
        """What is dropped by news that is not on record yet, is not given back by news before that."""
        self._news.remove(news)
        if gives:
            self._settled = news.wanted
        elif news.wanted.kinds:
            self._settled = replace(news.wanted, kinds=self._settled.kinds | news.wanted.kinds)
        had = self.dropped.kinds
        self._restrict(self._settled.kinds.union(*(one.wanted.kinds for one in self._news)), self._last())
        if had and not self.dropped.kinds:
            self.client.tell(LIFTED)

    def _restrict(self, kinds: frozenset[str], latest: Dropped) -> dict[str, int]:
        if not kinds and not self.dropped.kinds:
            return {}
        words = latest if latest.kinds else self.dropped  # a keep has no reasons
        self.dropped = Dropped(kinds, words.reasons, words.decision_id)
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
