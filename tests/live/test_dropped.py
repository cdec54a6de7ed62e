"""What a judgement drops while the session goes on: done at once, told, recorded, and given back on record."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.audit.writer import Writer
from gateway.verdicts import LIFTED, LiveEntry
from tests.audit.test_chain import file_size_limit
from tests.live.world import House, Terminal, ending
from tests.policy.world import ALICE, BOB
from tests.waiting import SECONDS, until


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


@asynccontextmanager
async def lifting(
    house: House, held: Callable[[], tuple[threading.Event, threading.Event]]
) -> AsyncIterator[tuple[LiveEntry, Terminal, threading.Event]]:
    """A restriction is given back, but for its record, which waits for the event."""
    entry, terminal = await restricted(house)
    written, free = held()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(house.live.reevaluate(ALICE))
        await until(written.is_set)
        yield entry, terminal, free


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
    async with lifting(house, held) as (entry, terminal, free):
        everybody = asyncio.ensure_future(house.live.reevaluate())
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
    async with lifting(house, held) as (entry, terminal, free):
        house.judge.restrict("a", "sftp", "x11-req", message="closed again")
        again = asyncio.ensure_future(house.live.reevaluate())
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
