"""Whoever starts a task waits for its end, also when cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.concurrency import Rounds, background, cancel_and_wait, each, first_done, to_the_end, together
from gateway.contracts.waiting import until

SECONDS = 5


class Story:
    """What happened, in order."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.moments: dict[str, asyncio.Event] = {}

    def say(self, word: str) -> None:
        self.said.append(word)
        self.moments.setdefault(word, asyncio.Event()).set()

    async def wait(self, word: str) -> None:
        async with asyncio.timeout(SECONDS):
            await self.moments.setdefault(word, asyncio.Event()).wait()

    async def stay(self, name: str) -> str:
        """For ever, with a clean-up that takes a few turns of the loop."""
        self.say(f"{name} starts")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            self.say(f"{name} is gone")
        return name

    async def fail(self, name: str) -> str:
        self.say(f"{name} fails")
        raise RuntimeError(name)

    async def give(self, name: str) -> str:
        return name

    @asynccontextmanager
    async def room(
        self, name: str, *, locked: bool = False, slow: bool = False, stuck: bool = False
    ) -> AsyncIterator[str]:
        self.say(f"{name} opens")
        try:
            if slow:
                await asyncio.get_running_loop().create_future()
            if locked:
                raise RuntimeError(f"{name} is locked")
            yield name
        finally:
            await asyncio.sleep(0)
            self.say(f"{name} closes")
        if stuck:
            raise RuntimeError(f"{name} is stuck")


@pytest.fixture
def story() -> Story:
    return Story()


# -- first_done -----------------------------------------------------------------------------------------------------


async def test_the_first_to_end_gives_its_result_and_the_others_are_gone(story: Story) -> None:
    assert await first_done(story.stay("a"), story.give("b"), story.stay("c")) == "b"
    assert story.said == ["a starts", "c starts", "a is gone", "c is gone"]


async def test_the_first_to_fail_raises_when_the_others_are_gone(story: Story) -> None:
    with pytest.raises(RuntimeError, match="b"):
        await first_done(story.stay("a"), story.fail("b"))
    assert story.said[-1] == "a is gone"


async def test_of_several_that_end_at_once_the_first_named_wins(story: Story) -> None:
    assert await first_done(story.give("a"), story.give("b")) == "a"
    with pytest.raises(RuntimeError, match="a"):
        await first_done(story.fail("a"), story.give("b"))
    assert await first_done(story.give("a"), story.fail("b")) == "a"


async def test_cancelling_it_cancels_all_and_waits_for_them(story: Story) -> None:
    racing = asyncio.ensure_future(first_done(story.stay("a"), story.stay("b")))
    await story.wait("b starts")
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert story.said[2:] == ["a is gone", "b is gone"]


# -- to_the_end -----------------------------------------------------------------------------------------------------


async def test_a_clean_up_is_not_cut_short_however_often_it_is_cancelled(story: Story) -> None:
    go_on = asyncio.Event()

    async def clean_up() -> None:
        story.say("begins")
        await go_on.wait()
        story.say("ends")

    task = asyncio.ensure_future(to_the_end(clean_up()))
    await story.wait("begins")
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert story.said == ["begins", "ends"]


async def test_its_result_and_its_error_are_handed_on(story: Story) -> None:
    assert await to_the_end(story.give("a")) == "a"
    with pytest.raises(RuntimeError, match="b"):
        await to_the_end(story.fail("b"))


# -- cancel_and_wait ------------------------------------------------------------------------------------------------


async def test_those_that_fail_while_being_cancelled_are_waited_for_and_do_not_spoil_it(story: Story) -> None:
    async def stubborn() -> None:
        try:
            await story.stay("a")
        except asyncio.CancelledError as error:
            raise RuntimeError("no") from error

    tasks = [asyncio.ensure_future(stubborn()), asyncio.ensure_future(story.fail("b"))]
    await story.wait("a starts")
    await cancel_and_wait(tasks)
    assert all(task.done() for task in tasks)


# -- background -----------------------------------------------------------------------------------------------------


async def test_what_runs_in_the_background_is_gone_when_the_body_is_left(story: Story) -> None:
    async def forever() -> None:
        await story.stay("a")

    async with background(forever()):
        await story.wait("a starts")
    assert story.said[-1] == "a is gone"


async def test_a_safeguard_that_dies_cancels_the_body_and_raises_its_error(story: Story) -> None:
    async def dies() -> None:
        await story.fail("a")

    async with asyncio.timeout(SECONDS) as patience:
        with pytest.raises(RuntimeError, match="a"):
            async with background(dies()):
                await story.stay("body")
        assert patience.when() is not None
        assert asyncio.get_running_loop().time() < (patience.when() or 0) - SECONDS / 2
    assert story.said[-1] == "body is gone"
    await asyncio.sleep(0)  # no cancellation is left over


async def test_a_background_that_ends_by_itself_disturbs_nobody(story: Story) -> None:
    async def ends() -> None:
        story.say("done")

    async with background(ends()):
        await story.wait("done")
        await asyncio.sleep(0)


async def test_a_body_that_is_cancelled_from_outside_stays_cancelled(story: Story) -> None:
    async def forever() -> None:
        await story.stay("a")

    async def owner() -> None:
        async with background(forever()):
            await story.stay("body")

    task = asyncio.ensure_future(owner())
    await story.wait("body starts")
    await story.wait("a starts")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert story.said[2:] == ["body is gone", "a is gone"]


# -- together -------------------------------------------------------------------------------------------------------


async def test_all_are_entered_at_once_and_left_before_it_ends(story: Story) -> None:
    async with together(story.room("a"), story.room("b")) as rooms:
        assert rooms == ("a", "b")
        assert story.said == ["a opens", "b opens"]
    assert sorted(story.said[2:]) == ["a closes", "b closes"]


async def test_together_with_nothing_is_fine() -> None:
    async with together() as nothing:
        assert nothing == ()


async def test_one_that_cannot_be_entered_leaves_the_others_and_its_error_is_raised(story: Story) -> None:
    with pytest.raises(RuntimeError, match="b is locked"):
        async with together(story.room("a"), story.room("b", locked=True)):
            raise AssertionError("entered")
    assert sorted(story.said) == ["a closes", "a opens", "b closes", "b opens"]


async def test_one_that_is_still_being_entered_is_cancelled_when_another_fails(story: Story) -> None:
    with pytest.raises(RuntimeError, match="b is locked"):
        async with asyncio.timeout(SECONDS), together(story.room("a", slow=True), story.room("b", locked=True)):
            raise AssertionError("entered")
    assert "a closes" in story.said


async def test_cancelled_while_entering_it_leaves_what_was_entered(story: Story) -> None:
    async def enter() -> None:
        async with together(story.room("a"), story.room("b", slow=True)):
            raise AssertionError("entered")

    task = asyncio.ensure_future(enter())
    await story.wait("b opens")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(story.said[2:]) == ["a closes", "b closes"]


async def test_an_error_of_the_body_leaves_all_and_is_the_one_that_is_raised(story: Story) -> None:
    with pytest.raises(ValueError, match="body"):
        async with together(story.room("a", stuck=True), story.room("b")):
            raise ValueError("body")
    assert sorted(story.said[2:]) == ["a closes", "b closes"]


async def test_one_that_cannot_be_left_well_does_not_keep_the_others_and_its_error_is_raised(story: Story) -> None:
    with pytest.raises(RuntimeError, match="a is stuck"):
        async with together(story.room("a", stuck=True), story.room("b"), story.room("c", stuck=True)):
            pass
    assert sorted(story.said[3:]) == ["a closes", "b closes", "c closes"]


async def test_each_is_entered_and_left_in_one_task() -> None:
    """anyio's cancel scopes, and asyncio.timeout, demand it."""

    @asynccontextmanager
    async def scope() -> AsyncIterator[None]:
        task = asyncio.current_task()
        async with asyncio.timeout(SECONDS):
            yield
        assert asyncio.current_task() is task

    async with together(scope(), scope()):
        pass


async def test_each_gives_results_in_order_and_no_more_at_once_than_said() -> None:
    running, most = 0, 0
    gate = asyncio.Event()

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:
            gate.set()
        await gate.wait()
        running -= 1
        return number * 2

    assert await each(work, range(5), at_once=2) == [0, 2, 4, 6, 8]
    assert most == 2


async def test_the_first_of_each_to_fail_ends_the_others_and_is_raised() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        if number == 1:
            raise LookupError(number)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(LookupError):
        await each(work, range(3), at_once=3)
    assert ended == [0, 2]


# -- rounds ---------------------------------------------------------------------------------------------------------


class Work:
    """Work that waits to be told how it ends, and remembers what each round was for."""

    def __init__(self) -> None:
        self.rounds: list[set[str]] = []
        self.ends: asyncio.Queue[Exception | None] = asyncio.Queue()

    async def do(self, keys: frozenset[str]) -> int:
        self.rounds.append(set(keys))
        number = len(self.rounds)
        if error := await self.ends.get():
            raise error
        return number

    async def asked(self, *keys: str) -> tuple[Rounds[str, int], list[asyncio.Task[int]]]:
        """Rounds of which one runs, and then those who asked for `keys` meanwhile."""
        rounds = Rounds(self.do)
        asking = [asyncio.ensure_future(rounds.join(key)) for key in ("first", *keys)]
        await until(lambda: self.rounds)
        return rounds, asking


async def test_all_who_ask_during_a_round_share_the_next() -> None:
    work = Work()
    rounds, (first, *others) = await work.asked("a", "b", "a")
    work.ends.put_nowait(None)
    assert await first == 1
    await until(lambda: len(work.rounds) == 2)
    late = asyncio.ensure_future(rounds.join("late"))
    work.ends.put_nowait(None)
    work.ends.put_nowait(None)

    assert await asyncio.gather(*others) == [2] * 3, "what had begun before they asked was too early for them"
    assert await late == 3
    assert work.rounds == [{"first"}, {"a", "b"}, {"late"}]


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_when_the_one_who_runs_a_round_gives_up_the_next_of_its_members_runs_it(is_cancelled: bool) -> None:
    work = Work()
    _, (first, runs, waits) = await work.asked("a", "b")
    work.ends.put_nowait(None)
    await first
    await until(lambda: len(work.rounds) == 2)
    if is_cancelled:
        await cancel_and_wait([runs])
    else:
        work.ends.put_nowait(RuntimeError("failed"))
        with pytest.raises(RuntimeError):
            await runs
    work.ends.put_nowait(None)

    assert await waits == 3
    assert work.rounds[1:] == [{"a", "b"}] * 2
