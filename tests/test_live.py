"""Live sessions: what a verdict does, how long a missing one is borne, and a record that cannot be written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.concurrency import background
from gateway.errors import SessionEnded
from gateway.live import Live, LiveEntry
from gateway.model import Holder, Limits, Permit, Reason, SessionId, SessionLimits, WorkspaceSpec
from gateway.settings import PolicySettings
from tests.audit.test_chain import file_size_limit
from tests.policy.servers import serving
from tests.policy.world import ALICE, BOB, ORDERS, Asking, asking, grant, in_minutes, inhabited, settings_for
from tests.stack.opa import Opa
from tests.waiting import until

GONE = "fedcba9876543210"


class Terminal:
    """A client that notes what is done to it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.paused = False
        self.pauses = 0

    def say(self, text: str) -> None:
        self.said.append(text)

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
        self.asked: list[list[str]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        question = (await request.json())["input"]
        ids = [session["id"] for session in question["sessions"]]
        self.asked.append(ids)
        return web.json_response({"result": {"sessions": self.verdicts}}, status=self.status)

    def say(self, session: str, verdict: str, *messages: str) -> None:
        reasons = [{"code": "because", "message": message, "remedy": ""} for message in messages]
        self.verdicts[session] = {"verdict": verdict, "reasons": reasons}


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
            backend="b", image="i", limits=Limits(memory_bytes=2**24, cpus=1, pids=8, tmpfs_bytes=2**20)
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
        async with asyncio.timeout(5):
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


async def test_an_end_does_not_wait_for_a_record_that_cannot_be_written(house: House) -> None:
    entry, _ = await house.enter("a")
    house.judge.say("a", "end", "withdrawn")
    with file_size_limit(house.asked.file.stat().st_size + 1):
        await house.live.reevaluate()
        assert (await ending(entry)).message == "withdrawn"
    assert house.verdicts() == []


# -- no verdict -----------------------------------------------------------------------------------------------------


async def test_without_a_verdict_a_session_ends_when_its_grace_is_over(house: House) -> None:
    strict, _ = await house.enter("a", grace=0)
    lenient, _ = await house.enter("b", grace=60)
    house.judge.status = 500
    await house.live.reevaluate()

    assert (await ending(strict)).code == "policy_failed"
    assert not lenient.ended.done()


async def test_a_session_that_was_left_out_of_the_answer_counts_as_not_judged(house: House) -> None:
    """An answer that leaves one out is no answer: nobody is judged by it, not even those it names."""
    left_out, _ = await house.enter("a", grace=0)
    named, _ = await house.enter("b", grace=60)
    house.judge.say("b", "keep")
    await house.live.reevaluate()

    assert (await ending(left_out)).code == "policy_malformed"
    assert named.judged == 0


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


async def test_the_real_policies_keep_warn_and_end(world: Opa, tmp_path: Path) -> None:
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
        world.delete("grants/alice/INC-1")
        await live.reevaluate()
        assert (await ending(entry)).code == "grant_deleted"
        assert house.verdicts() == ["keep", "warn", "end"]
