"""Live sessions: what a verdict does, how long a missing one is borne, and a record that cannot be written."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.audit.writer import Writer
from gateway.concurrency import background
from gateway.errors import SessionEnded
from gateway.live import Live
from gateway.model import (
    NOTHING_DROPPED,
    Dropped,
    Holder,
    Limits,
    Permit,
    Reason,
    SessionId,
    SessionLimits,
    WorkspaceSpec,
)
from gateway.settings import PolicySettings
from gateway.verdicts import LIFTED, LiveEntry
from tests.audit.test_chain import file_size_limit
from tests.policy.servers import serving
from tests.policy.world import ALICE, BOB, ORDERS, Asking, asking, grant, in_minutes, inhabited, settings_for
from tests.stack.opa import Opa
from tests.waiting import SECONDS, until

GONE = "fedcba9876543210"


class Drops:
    """What is open, by kind, and what is dropped of it."""

    def __init__(self) -> None:
        self.open: dict[str, int] = {}
        self.dropped = NOTHING_DROPPED

    def change(self, to: Dropped) -> dict[str, int]:
        self.dropped = to
        return {kind: self.open.pop(kind) for kind in sorted(to.kinds) if kind in self.open}


class Terminal:
    """A client that notes what is done to it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.paused = False
        self.pauses = 0
        self.restricted = Drops()

    def say(self, text: str) -> None:
        self.said.append(text)

    tell = say

    def pause(self) -> None:
        self.paused = True
        self.pauses += 1

    def resume(self) -> None:
        self.paused = False

    def idle_seconds(self) -> float:
        return 1.25


class Judge:
    """An OPA that answers as it is told: a verdict by session id, or nothing for an id that is not there."""

    def __init__(self) -> None:
        self.verdicts: dict[str, dict[str, Any]] = {}
        self.status = 200
        self.fails_for = ""
        self.asked: list[list[str]] = []
        self.free = asyncio.Event()
        """Cleared: answers are held back, as they are when they are asked for."""
        self.free.set()
        self.at_once: list[list[str]] = []
        """Of these sessions they are not."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        question = (await request.json())["input"]
        ids = [session["id"] for session in question["sessions"]]
        self.asked.append(ids)
        told = json.dumps({"result": {"sessions": self.verdicts}})
        if ids not in self.at_once:
            await self.free.wait()
        status = 500 if self.fails_for in ids else self.status
        return web.Response(text=told, status=status, content_type="application/json")

    def say(self, session: str, verdict: str, *messages: str) -> None:
        reasons = [{"code": "because", "message": message, "remedy": ""} for message in messages]
        self.verdicts[session] = {"verdict": verdict, "reasons": reasons}

    def restrict(self, session: str, *drop: str, message: str = "closed for now") -> None:
        self.say(session, "restrict", message)
        self.verdicts[session]["drop"] = list(drop)


class House:
    """A judge, the sessions it judges, and their record."""

    def __init__(self, judge: Judge, asked: Asking, live: Live, stack: AsyncExitStack) -> None:
        self.judge = judge
        self.asked = asked
        self.live = live
        self._stack = stack

    async def enter(self, session: str, person: str = ALICE, grace: float = 0) -> tuple[LiveEntry, Terminal]:
        terminal = Terminal()
        journal = self.asked.journal(session=session, person=person)
        holder = Holder(SessionId(session), person, "INC-1", ORDERS, "")
        entry = await self._stack.enter_async_context(self.live.entered(holder, _permit(grace), terminal, journal))
        return entry, terminal

    def verdicts(self) -> list[str]:
        """What is on record of judgements."""
        return [record["outcome"] for record in self.asked.records("live")]


def _permit(grace: float) -> Permit:
    return Permit(
        grant="INC-1",
        target=ORDERS,
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        workspace=WorkspaceSpec(
            backend="b", image="i", limits=Limits(memory_bytes=2**24, cpus=1, pids=32, tmpfs_bytes=2**20)
        ),
        session=SessionLimits(
            idle_seconds=60, max_seconds=60, warn_seconds=1, max_channels=1, policy_grace_seconds=grace
        ),
    )


@asynccontextmanager
async def housed(directory: Path, judge: Judge, url: str, audit_grace: float = 1) -> AsyncIterator[House]:
    async with (
        asking(PolicySettings(url=url, timeout_seconds=2.5), directory / "audit.jsonl") as asked,
        AsyncExitStack() as stack,
    ):
        live = Live(asked.policy, asked.audit, asked.journal(), 0.02, audit_grace)
        yield House(judge, asked, live, stack)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    judge = Judge()
    async with serving(judge.answer) as url, housed(tmp_path, judge, url) as opened:
        yield opened


async def ending(entry: LiveEntry) -> Reason:
    """Why it was ended."""
    with pytest.raises(SessionEnded) as caught:
        async with asyncio.timeout(SECONDS):
            await entry.wait_ended()
    return caught.value.reasons[0]


# -- verdicts -------------------------------------------------------------------------------------------------------


async def test_a_session_that_is_kept_hears_nothing_and_is_on_record_once(house: House) -> None:
    entry, terminal = await house.enter("a")
    house.judge.say("a", "keep")
    for _ in range(3):
        assert await house.live.reevaluate() == 1

    assert not entry.ended.done()
    assert terminal.said == []
    assert entry.judged == 3
    assert house.verdicts() == ["keep"]


async def test_a_warning_is_said_once_and_again_after_it_was_taken_back(house: House) -> None:
    _, terminal = await house.enter("a")
    for verdict in ("warn", "warn", "keep", "warn"):
        house.judge.say("a", verdict, "your grant was shortened")
        await house.live.reevaluate()

    assert terminal.said == ["doorward: your grant was shortened"] * 2
    assert house.verdicts() == ["warn", "keep", "warn"]


async def test_an_end_ends_that_session_with_policys_words_and_no_other(house: House) -> None:
    entry, _ = await house.enter("a")
    other, _ = await house.enter("b")
    house.judge.say("a", "end", "the grant was withdrawn")
    house.judge.say("b", "keep")
    await house.live.reevaluate()

    assert (await ending(entry)).message == "the grant was withdrawn"
    assert not other.ended.done()
    [record] = [record for record in house.asked.records("live") if record["session"] == "a"]
    assert record["outcome"] == "end"
    assert [session["id"] for session in record["input"]["sessions"]] == ["a"], "its own question alone"
    assert record["answer"]["reasons"][0]["code"] == "because"


async def test_an_end_is_for_good(house: House) -> None:
    entry, _ = await house.enter("a")
    house.judge.say("a", "end", "first")
    await house.live.reevaluate()
    house.judge.say("a", "end", "second")
    await house.live.reevaluate()

    assert (await ending(entry)).message == "first"
    assert (await ending(entry)).message == "first", "and can be asked twice"


async def test_all_sessions_are_judged_in_one_question(house: House) -> None:
    for session in ("a", "b", "c"):
        await house.enter(session)
        house.judge.say(session, "keep")

    assert await house.live.reevaluate() == 3
    assert house.judge.asked == [["a", "b", "c"]]


async def test_one_persons_sessions_can_be_judged_alone(house: House) -> None:
    await house.enter("a", ALICE)
    await house.enter("b", BOB)
    house.judge.say("b", "keep")

    assert await house.live.reevaluate(BOB) == 1
    assert await house.live.reevaluate("nobody") == 0
    assert house.judge.asked == [["b"]]


async def test_a_storm_of_requests_is_a_few_questions(house: House) -> None:
    """About everybody the one that was under way, and one for all who asked meanwhile; and so about persons."""
    for session, person in (("a", ALICE), ("b", BOB)):
        await house.enter(session, person)
        house.judge.say(session, "keep")
    house.judge.free.clear()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(house.live.reevaluate())
        await until(lambda: house.judge.asked)
        storm = [tasks.create_task(house.live.reevaluate(person)) for person in [None, ALICE, BOB, "nobody"] * 25]
        await asyncio.sleep(0)
        house.judge.free.set()

    assert first.result() == 2
    assert [task.result() for task in storm] == [2, 1, 1, 0] * 25
    assert sorted(house.judge.asked) == [["a"], *[["a", "b"]] * 3]


async def test_who_asks_about_one_person_during_a_round_has_only_that_one_judged(house: House) -> None:
    for session, person in (("a", ALICE), ("b", BOB)):
        await house.enter(session, person)
        house.judge.say(session, "keep")
    house.judge.free.clear()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(house.live.reevaluate())
        await until(lambda: house.judge.asked)
        tasks.create_task(house.live.reevaluate(BOB))
        await asyncio.sleep(0)
        house.judge.free.set()

    assert house.judge.asked == [["a", "b"], ["b"]]


async def test_who_asks_about_one_person_does_not_wait_for_everybody_and_has_the_last_word(house: House) -> None:
    """An answer that was asked for before does not undo what a later one said."""
    entry, terminal = await house.enter("a", ALICE)
    await house.enter("b", BOB)
    house.judge.say("a", "keep")
    house.judge.say("b", "keep")
    house.judge.free.clear()
    house.judge.at_once = [["a"]]
    async with asyncio.TaskGroup() as tasks:
        everybody = tasks.create_task(house.live.reevaluate())
        await until(lambda: house.judge.asked)
        house.judge.say("a", "warn", "soon over")
        assert await house.live.reevaluate(ALICE) == 1
        assert (entry.verdict, everybody.done()) == ("warn", False)
        house.judge.free.set()

    assert everybody.result() == 2
    assert (entry.verdict, terminal.said, entry.judged) == ("warn", ["doorward: soon over"], 1)


async def test_nobody_is_asked_about_when_nobody_is_there(house: House) -> None:
    async with AsyncExitStack() as stack:
        house._stack = stack
        await house.enter("a")
    assert await house.live.reevaluate() == 0
    assert house.judge.asked == []


async def test_the_sweep_goes_on_by_itself(house: House) -> None:
    entry, _ = await house.enter("a")
    house.judge.say("a", "keep")
    async with background(house.live.sweep()):
        await until(lambda: entry.judged >= 3)
        house.judge.say("a", "end", "withdrawn")
        assert (await ending(entry)).message == "withdrawn"


@pytest.fixture
async def crowd(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """Two who are kept, each a sweep's question of their own."""
    monkeypatch.setattr("gateway.live.SWEPT_AT_ONCE", 1)
    for session in ("a", "b"):
        await house.enter(session, grace=60)
        house.judge.say(session, "keep")
    return house


async def test_a_sweep_asks_part_by_part_and_about_nobody_who_has_left(crowd: House) -> None:
    crowd.judge.free.clear()
    async with background(crowd.live.sweep()):
        async with AsyncExitStack() as crowd._stack:
            await crowd.enter("c")
            await until(lambda: crowd.judge.asked == [["a"]])
        crowd.judge.free.set()
        await until(lambda: len(crowd.judge.asked) > 2)
    assert crowd.judge.asked[:3] == [["a"], ["b"], ["a"]]


async def test_a_sweep_leaves_the_rest_to_whoever_pushes(crowd: House) -> None:
    crowd.judge.free.clear()
    async with background(crowd.live.sweep()):
        await until(lambda: crowd.judge.asked == [["a"]])
        async with asyncio.TaskGroup() as tasks:
            pushed = tasks.create_task(crowd.live.reevaluate())
            await until(lambda: crowd.judge.asked == [["a"], ["a", "b"]])
            crowd.judge.free.set()
        await until(lambda: len(crowd.judge.asked) > 2)
    assert pushed.result() == 2
    assert crowd.judge.asked[2] == ["a"]  # the next sweep


async def test_without_an_answer_to_one_part_all_others_are_asked_about_at_once(crowd: House) -> None:
    await crowd.enter("c", grace=60)
    crowd.judge.status = 500
    async with background(crowd.live.sweep()):
        await until(lambda: len(crowd.judge.asked) > 1)
    assert crowd.judge.asked[:2] == [["a"], ["b", "c"]]


async def test_an_end_does_not_wait_for_a_record_that_cannot_be_written(house: House) -> None:
    entry, _ = await house.enter("a")
    house.judge.say("a", "end", "withdrawn")
    with file_size_limit(house.asked.file.stat().st_size + 1):
        await house.live.reevaluate()
        assert (await ending(entry)).message == "withdrawn"
    assert house.verdicts() == []


# -- what is dropped ------------------------------------------------------------------------------------------------


async def test_a_restriction_is_done_told_and_recorded_once_and_lifted_again(house: House) -> None:
    entry, terminal = await house.enter("a")
    terminal.restricted.open = {"direct-tcpip": 2, "sftp": 1, "x11-req": 1}
    for _ in range(3):
        house.judge.restrict("a", "direct-tcpip", "sftp")
        await house.live.reevaluate()

    assert terminal.restricted.dropped.kinds == {"direct-tcpip", "sftp"}
    assert terminal.restricted.dropped.reasons[0].message == "closed for now"
    assert terminal.restricted.dropped.decision_id == house.asked.records("live")[0]["decision_id"]
    assert terminal.restricted.open == {"x11-req": 1}
    assert terminal.said == ["doorward: closed for now"]
    assert not entry.ended.done()
    other, _ = await house.enter("b")
    house.judge.say("b", "keep")
    await house.live.reevaluate()
    assert other.dropped.kinds == frozenset()
    assert [session["dropped"] for session in house.live.sessions()] == [["direct-tcpip", "sftp"], []]

    house.judge.say("a", "keep")
    for _ in range(3):
        await house.live.reevaluate()
    assert terminal.restricted.dropped.kinds == frozenset()
    assert terminal.said == ["doorward: closed for now", LIFTED]
    first, second = [record for record in house.asked.records("live") if record["session"] == "a"]
    assert (first["outcome"], second["outcome"]) == ("restrict", "keep")
    assert first["dropped"] == {"direct-tcpip": 2, "sftp": 1}
    assert first["answer"]["drop"] == ["direct-tcpip", "sftp"]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], tuple[threading.Event, threading.Event]]]:
    """Called, it holds records of judgements on their way to the disk: when one waits, and until when."""
    append, written, free = Writer.append, threading.Event(), threading.Event()

    def appending(self: Writer, entries: Any) -> Any:
        if any(record["event"] == "live" for record, _ in entries):
            written.set()
            free.wait(SECONDS)
        return append(self, entries)

    def hold() -> tuple[threading.Event, threading.Event]:
        monkeypatch.setattr(Writer, "append", appending)
        return written, free

    yield hold
    free.set()


def of_a(house: House) -> list[str]:
    """What is on record of judgements of `a`."""
    return [record["outcome"] for record in house.asked.records("live") if record["session"] == "a"]


async def restricted(house: House) -> tuple[LiveEntry, Terminal]:
    """Alice's `a` has no sftp, and it would be given back now; Bob's `b` is kept."""
    entry, terminal = await house.enter("a", ALICE)
    await house.enter("b", BOB)
    house.judge.restrict("a", "sftp")
    house.judge.say("b", "keep")
    await house.live.reevaluate()
    house.judge.say("a", "keep")
    return entry, terminal


async def test_whoever_asked_first_and_is_answered_last_waits_until_the_last_word_is_done(
    house: House, held: Callable[[], tuple[threading.Event, threading.Event]]
) -> None:
    """A sweep that is quicker than a push: the push says that it is done when what the sweep gives back is given."""
    entry, _ = await restricted(house)
    house.judge.free.clear()
    house.judge.at_once = [["a"]]
    async with asyncio.TaskGroup() as tasks:
        everybody = tasks.create_task(house.live.reevaluate())
        await until(lambda: len(house.judge.asked) == 2)
        written, free = held()
        tasks.create_task(house.live.reevaluate(ALICE))
        await until(written.is_set)
        house.judge.free.set()
        await asyncio.wait([everybody], timeout=0.2)
        before = everybody.done(), list(entry.dropped.kinds)
        free.set()
        await everybody
        assert (before, entry.dropped.kinds) == ((False, ["sftp"]), frozenset())
    assert of_a(house) == ["restrict", "keep"]


async def test_what_two_hear_before_it_is_on_record_is_there_once(
    house: House, held: Callable[[], tuple[threading.Event, threading.Event]]
) -> None:
    entry, terminal = await restricted(house)
    written, free = held()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(house.live.reevaluate(ALICE))
        await until(written.is_set)
        everybody = tasks.create_task(house.live.reevaluate())
        await until(lambda: entry.judged == 3)
        await asyncio.wait([everybody], timeout=0.2)
        before = everybody.done(), list(entry.dropped.kinds)
        free.set()
        await everybody
        assert (before, entry.dropped.kinds) == ((False, ["sftp"]), frozenset())
    assert (of_a(house), terminal.said) == (["restrict", "keep"], ["doorward: closed for now", LIFTED])


async def test_what_is_closed_again_is_not_given_back_by_the_record_before(
    house: House, held: Callable[[], tuple[threading.Event, threading.Event]]
) -> None:
    entry, terminal = await restricted(house)
    written, free = held()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(house.live.reevaluate(ALICE))
        await until(written.is_set)
        house.judge.restrict("a", "sftp", "x11-req", message="closed again")
        again = tasks.create_task(house.live.reevaluate())
        await until(lambda: entry.judged == 3)
        assert entry.dropped.kinds == {"sftp", "x11-req"}
        free.set()
        await again
    assert entry.dropped.kinds == {"sftp", "x11-req"}
    assert (of_a(house), LIFTED in terminal.said) == (["restrict", "keep", "restrict"], False)


async def test_whoever_asked_and_leaves_leaves_no_judgement_half_done(
    house: House, held: Callable[[], tuple[threading.Event, threading.Event]]
) -> None:
    entry, _ = await restricted(house)
    written, free = held()
    asking = asyncio.ensure_future(house.live.reevaluate())
    await until(written.is_set)
    asking.cancel()
    await asyncio.wait([asking], timeout=0.05)
    free.set()
    await asyncio.wait([asking])
    assert (entry.dropped.kinds, of_a(house)) == (frozenset(), ["restrict", "keep"])


async def test_each_change_of_what_is_dropped_is_told_and_recorded(house: House) -> None:
    _, terminal = await house.enter("a")
    dropped = []
    for drop in (["sftp"], ["sftp", "x11-req"], ["x11-req"], ["x11-req"]):
        house.judge.restrict("a", *drop, message=f"closed: {' '.join(drop)}")
        await house.live.reevaluate()
        dropped.append(sorted(terminal.restricted.dropped.kinds))

    assert dropped == [["sftp"], ["sftp", "x11-req"], ["x11-req"], ["x11-req"]]
    assert terminal.said == ["doorward: closed: sftp", "doorward: closed: sftp x11-req", "doorward: closed: x11-req"]
    assert house.verdicts() == ["restrict"] * 3


async def test_a_warning_beside_a_restriction_is_told_when_it_comes(house: House) -> None:
    _, terminal = await house.enter("a")
    house.judge.restrict("a", "sftp")
    await house.live.reevaluate()
    house.judge.verdicts["a"]["reasons"].append({"code": "soon", "message": "it ends soon", "remedy": ""})
    await house.live.reevaluate()
    await house.live.reevaluate()

    assert terminal.said == ["doorward: closed for now", "doorward: it ends soon"]
    assert house.verdicts() == ["restrict"] * 2


async def test_what_slipped_through_is_ended_by_the_next_sweep_and_on_record(house: House) -> None:
    _, terminal = await house.enter("a")
    house.judge.restrict("a", "sftp")
    await house.live.reevaluate()
    terminal.restricted.open = {"sftp": 1}
    await house.live.reevaluate()
    await house.live.reevaluate()

    assert [record.get("dropped") for record in house.asked.records("live")] == [None, {"sftp": 1}]
    assert terminal.said == ["doorward: closed for now"]


async def test_a_restriction_stays_without_a_verdict_and_the_session_ends_after_its_grace(house: House) -> None:
    entry, terminal = await house.enter("a", grace=60)
    house.judge.restrict("a", "sftp")
    await house.live.reevaluate()
    house.judge.status = 500
    await house.live.reevaluate()

    assert terminal.restricted.dropped.kinds == {"sftp"}
    assert not entry.ended.done()
    assert entry.unjudged_since is not None
    entry.unjudged_since -= 61  # as if that had been a while ago
    await house.live.reevaluate()
    assert (await ending(entry)).code == "policy_failed"
    assert terminal.restricted.dropped.kinds == {"sftp"}
    assert terminal.said == ["doorward: closed for now"]


async def test_a_restriction_holds_without_its_record_and_is_lifted_only_on_record(
    house: House,
) -> None:
    _, terminal = await house.enter("a")
    with file_size_limit(house.asked.file.stat().st_size + 1):
        house.judge.restrict("a", "sftp")
        await house.live.reevaluate()
        assert terminal.restricted.dropped.kinds == {"sftp"}
        house.judge.say("a", "keep")
        await house.live.reevaluate()
        assert terminal.restricted.dropped.kinds == {"sftp"}
    assert house.verdicts() == []
    await house.live.reevaluate()
    assert terminal.restricted.dropped.kinds == frozenset()
    assert house.verdicts() == ["keep"]


async def test_a_restricted_session_that_ends_is_given_nothing_back(house: House) -> None:
    entry, terminal = await house.enter("a")
    house.judge.restrict("a", "sftp")
    await house.live.reevaluate()
    house.judge.say("a", "end", "withdrawn")
    await house.live.reevaluate()
    await house.live.reevaluate()

    assert (await ending(entry)).message == "withdrawn"
    assert house.verdicts() == ["restrict", "end"]
    assert terminal.restricted.dropped.kinds == {"sftp"}
    assert LIFTED not in terminal.said


UNUSABLE: dict[str, Any] = {
    "a word that nobody knows": {"drop": ["sftp", "telnet"]},
    "nothing": {"drop": []},
    "no list": {"drop": "sftp"},
    "no word of it": {"drop": None},
    "no reason": {"drop": ["sftp"], "reasons": []},
    "a drop without a restriction": {"drop": ["sftp"], "verdict": "warn"},
    "a keep that drops": {"drop": ["sftp"], "verdict": "keep"},
}


@pytest.mark.parametrize("case", UNUSABLE)
async def test_a_restriction_outside_the_contract_is_no_verdict(house: House, case: str) -> None:
    """And leaves the sessions beside it alone."""
    entry, terminal = await house.enter("a", grace=0)
    lenient, _ = await house.enter("b", grace=60)
    beside, _ = await house.enter("c", grace=0)
    for session in ("a", "b"):
        house.judge.restrict(session, "sftp")
        house.judge.verdicts[session] |= UNUSABLE[case]
    house.judge.say("c", "keep")
    await house.live.reevaluate()

    assert (await ending(entry)).code == "policy_malformed"
    assert terminal.restricted.dropped.kinds == frozenset()
    assert (lenient.judged, lenient.ended.done()) == (0, False)
    assert (beside.judged, beside.ended.done()) == (1, False)


# -- many -----------------------------------------------------------------------------------------------------------


async def test_many_are_judged_in_several_questions_and_one_that_fails_leaves_only_its_own_unjudged(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.live.MOST_AT_ONCE", 2)
    entries = {session: (await house.enter(session, grace=0))[0] for session in "abcde"}
    for session in "abcde":
        house.judge.say(session, "keep")
    house.judge.fails_for = "c"
    assert await house.live.reevaluate() == 5

    assert sorted(house.judge.asked) == [["a", "b"], ["c", "d"], ["e"]]
    assert [session for session, entry in entries.items() if entry.ended.done()] == ["c", "d"]
    assert (await ending(entries["d"])).code == "policy_failed"


# -- no verdict -----------------------------------------------------------------------------------------------------


async def test_without_a_verdict_a_session_ends_when_its_grace_is_over(house: House) -> None:
    strict, _ = await house.enter("a", grace=0)
    lenient, _ = await house.enter("b", grace=60)
    house.judge.status = 500
    await house.live.reevaluate()

    assert (await ending(strict)).code == "policy_failed"
    assert not lenient.ended.done()


async def test_a_session_that_was_left_out_of_the_answer_counts_as_not_judged(house: House) -> None:
    """And is judged by nothing else in it, as the others are not by what is missing."""
    left_out, _ = await house.enter("a", grace=0)
    named, _ = await house.enter("b", grace=0)
    house.judge.say("b", "keep")
    await house.live.reevaluate()

    assert (await ending(left_out)).code == "policy_malformed"
    assert named.judged == 1
    assert not named.ended.done()


async def test_the_grace_runs_from_the_first_verdict_that_is_missing_and_anew_after_one(house: House) -> None:
    entry, _ = await house.enter("a", grace=0.2)
    house.judge.say("a", "keep")
    house.judge.status = 500
    await house.live.reevaluate()
    entry.unjudged_since = time.monotonic() - 0.15  # as if that had been a while ago
    house.judge.status = 200
    await house.live.reevaluate()
    assert entry.judged == 1
    house.judge.status = 500
    began = asyncio.get_running_loop().time()
    async with background(house.live.sweep()):
        await ending(entry)
    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_an_answer_of_the_wrong_shape_does_not_stop_the_sweep(house: House) -> None:
    entry, _ = await house.enter("a", grace=60)
    async with background(house.live.sweep()):
        house.judge.verdicts = {"a": {"verdict": "maybe", "reasons": 7}}
        await until(lambda: len(house.judge.asked) >= 2)
        house.judge.say("a", "keep")
        await until(lambda: entry.judged >= 1)


# -- the operator and the end ---------------------------------------------------------------------------------------


async def test_an_operator_ends_one_session_and_is_told_when_there_is_none(house: House) -> None:
    entry, _ = await house.enter("a")
    reason = Reason(code="ended_by_operator", message="an operator ended this session")

    assert house.live.end(SessionId("a"), reason)
    assert not house.live.end(SessionId(GONE), reason)
    assert await ending(entry) == reason


async def test_a_shutdown_ends_all(house: House) -> None:
    entries = [(await house.enter(session))[0] for session in ("a", "b")]
    house.live.end_all(Reason(code="gateway_shutdown", message="the gateway is shutting down"))

    assert [(await ending(entry)).code for entry in entries] == ["gateway_shutdown"] * 2


async def test_the_ids_are_always_those_of_now(house: House) -> None:
    ids = house.live.ids()
    await house.enter("a")

    assert list(ids) == ["a"]
    assert [session["id"] for session in house.live.sessions()] == ["a"]
    assert house.live.sessions()[0]["idle_seconds"] == 1.2


# -- the record -----------------------------------------------------------------------------------------------------


async def test_while_the_log_cannot_be_written_sessions_pause_and_go_on_when_it_can(house: House) -> None:
    entry, terminal = await house.enter("a")
    async with background(house.live.watch_audit()):
        with file_size_limit(house.asked.file.stat().st_size + 1):
            await _fails_to_record(house)
            await until(lambda: terminal.paused)
        await until(lambda: not terminal.paused)
    assert not entry.ended.done()
    assert house.verdicts() == ["resumed"]


async def test_when_the_log_stays_so_sessions_end(tmp_path: Path) -> None:
    judge = Judge()
    async with serving(judge.answer) as url, housed(tmp_path, judge, url, audit_grace=0.05) as house:
        entry, terminal = await house.enter("a")
        async with background(house.live.watch_audit()):
            with file_size_limit(house.asked.file.stat().st_size + 1):
                await _fails_to_record(house)
                assert (await ending(entry)).code == "audit_unavailable"
    assert terminal.paused, "nothing passes any more"


async def _fails_to_record(house: House) -> None:
    from gateway.errors import AuditUnavailable

    with pytest.raises(AuditUnavailable):
        await house.asked.audit.record("relay", {})


# -- with the real policies -----------------------------------------------------------------------------------------


@pytest.fixture
def world(opa_server: Opa) -> Iterator[Opa]:
    with inhabited(opa_server):
        yield opa_server


async def test_the_real_policies_keep_warn_restrict_and_end(world: Opa, tmp_path: Path) -> None:
    world.put("grants/alice/INC-1", grant())
    async with (
        asking(settings_for(world), tmp_path / "audit.jsonl") as asked,
        AsyncExitStack() as stack,
    ):
        live = Live(asked.policy, asked.audit, asked.journal(), 0.02, 1)
        house = House(Judge(), asked, live, stack)
        entry, terminal = await house.enter("a")
        await live.reevaluate()
        world.put("grants/alice/INC-1", grant(ends_at=in_minutes(1)))
        await live.reevaluate()
        assert any("shortened" in said for said in terminal.said)
        world.put("targets/orders-db/restrict", {"drop": ["forwards"], "reason": "INC-77 is looked into."})
        await live.reevaluate()
        assert terminal.said[-1] == "doorward: Closed here for now: forwards. INC-77 is looked into."
        assert terminal.restricted.dropped.kinds >= {"direct-tcpip", "tcpip-forward", "x11-req"}
        world.delete("targets/orders-db/restrict")
        await live.reevaluate()
        assert terminal.restricted.dropped.kinds == frozenset()
        world.delete("grants/alice/INC-1")
        await live.reevaluate()
        assert (await ending(entry)).code == "grant_deleted"
        assert house.verdicts() == ["keep", "warn", "restrict", "warn", "end"]
