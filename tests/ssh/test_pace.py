"""One limit, on a clock that a test moves: what passes, in which order, and never more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.ssh.limits import Pace, Tap, Turn


class Clock:
    """A loop's time and its timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self._count = 0
        self._timers: list[tuple[float, int, Callable[[], Any]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], Any], /) -> Any:
        assert delay >= 0
        self._count += 1
        self._timers.append((self.now + delay, self._count, callback))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while due := sorted(timer for timer in self._timers if timer[0] <= end)[:1]:
            self._timers.remove(due[0])
            self.now = max(self.now, due[0][0])
            due[0][2]()
        self.now = end


class Channel:
    """One that has so much to pass, and passes what it may."""

    def __init__(self, tap: Tap, has: int) -> None:
        self._tap = tap
        self.has = has
        self.passed: list[int] = []
        self.number = 0
        self.order: list[int] = []
        """The numbers of those that passed something, in turn."""

    def go(self) -> None:
        if self.has:
            passed = self._tap.take(self.has, self.go)
            self.has -= passed
            if passed:
                self.passed.append(passed)
                self.order.append(self.number)

    @property
    def total(self) -> int:
        return sum(self.passed)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pace(clock: Clock, rate: int) -> Pace:
    return Pace(rate, loop=clock)


@pytest.mark.parametrize("rate", [1024, 65536, 10**7])
def test_after_a_burst_it_is_never_faster_than_its_rate_and_hardly_slower(clock: Clock, rate: int) -> None:
    limit = pace(clock, rate)
    channel = Channel(Tap([limit]), rate * 10)
    channel.go()
    began = clock.now
    while channel.has and clock.now < began + 20:
        clock.run(0.1)
        assert channel.total <= limit.burst + rate * (clock.now - began)

    least = 10 - limit.burst / rate
    assert least <= clock.now - began <= least + 0.3


def test_a_pause_gives_a_burst_and_no_more(clock: Clock) -> None:
    limit = pace(clock, 10_000)
    channel = Channel(Tap([limit]), 10**6)
    clock.run(3600)
    channel.go()
    clock.run(0)

    assert limit.burst - 300 <= channel.total <= limit.burst == 4096


def test_those_who_share_it_take_turns_and_get_the_same(clock: Clock) -> None:
    limit = pace(clock, 100_000)
    channels = [Channel(Tap([limit]), 10**7) for _ in range(5)]
    order: list[int] = []
    for number, channel in enumerate(channels):
        channel.number, channel.order = number, order
        channel.go()
    clock.run(10)

    assert max(channel.total for channel in channels) - min(channel.total for channel in channels) <= 32768
    assert order[-10:] in ([*range(n, 5), *range(5), *range(n)] for n in range(5))


def test_who_comes_later_does_not_overtake(clock: Clock) -> None:
    """There is room for the little that it has, and somebody waits for more."""
    limit = pace(clock, 100_000)
    first, later = Channel(Tap([limit]), 10**6), Channel(Tap([limit]), 10)
    first.go()
    clock.run(5)
    before = first.total
    clock.run(0.01)
    later.go()
    assert (later.total, first.total) == (0, before)
    clock.run(0.04)

    assert later.total == 10
    assert first.total > before


def test_a_keystroke_waits_for_a_slice_of_each_other_channel(clock: Clock) -> None:
    limit = pace(clock, 65536)
    for _ in range(3):
        Channel(Tap([limit]), 10**8).go()
    clock.run(5)
    keystroke = Channel(Tap([limit]), 1)
    keystroke.go()
    clock.run(4 * 0.02 + 0.001)

    assert keystroke.total == 1


def test_a_limit_of_ones_own_and_a_shared_one_both_hold(clock: Clock) -> None:
    shared = pace(clock, 50_000)
    slow, free = Channel(Tap([pace(clock, 10_000), shared]), 10**6), Channel(Tap([shared]), 10**7)
    for channel in (slow, free):
        channel.go()
    clock.run(10)

    assert 90_000 <= slow.total <= 10_000 * 10 + 4096
    assert 380_000 <= free.total <= 50_000 * 10 + shared.burst - slow.total


def test_who_has_left_takes_nothing_from_the_others(clock: Clock) -> None:
    limit = pace(clock, 10_000)
    gone, stays = Channel(Tap([limit]), 10**6), Channel(Tap([limit]), 10**6)
    for channel in (gone, stays):
        channel.go()
    gone.has = 0
    before = stays.total
    clock.run(10)

    assert stays.total - before >= 99_000


async def test_a_turn_that_fails_does_not_stop_the_others() -> None:
    limit = Pace(10_000)
    limit.spend(limit.offer(10**6))
    served = asyncio.Event()

    def failing() -> None:
        raise ZeroDivisionError

    turns: list[Turn] = [failing, served.set]
    loop = asyncio.get_running_loop()
    failed: list[Any] = []
    loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))
    for turn in turns:
        limit.wait(10, turn)
    await asyncio.wait_for(served.wait(), 30)

    assert [type(error) for error in failed] == [ZeroDivisionError]
