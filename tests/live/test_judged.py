"""Live sessions: what a verdict does, how long a missing one is borne, and a record that cannot be written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.concurrency import background
from gateway.live import Live
from gateway.model import (
    Reason,
    SessionId,
)
from tests.audit.test_chain import file_size_limit
from tests.live.world import House, Judge, ending, housed
from tests.policy.servers import serving
from tests.policy.world import ALICE, BOB, asking, grant, in_minutes, inhabited, settings_for
from tests.stack.opa import Opa
from tests.waiting import until

GONE = "fedcba9876543210"


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
