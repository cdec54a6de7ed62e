"""Turns: so many at once, each person's in order, and no person's many before another's few."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from gateway.concurrency import cancel_and_wait
from gateway.turns import NOBODY, Turns


class Row:
    """Whoever takes a turn holds it until told to go on."""

    def __init__(self, at_once: int) -> None:
        self.turns = Turns(at_once)
        self.order: list[str] = []
        self.inside: dict[str, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def _one(self, person: str, name: str, told: Callable[[int], None] | None) -> None:
        async with self.turns.turn(person, told):
            self.order.append(name)
            self.inside[name] = asyncio.Event()
            try:
                await self.inside[name].wait()
            finally:
                del self.inside[name]

    async def ask(self, person: str, name: str = "", told: Callable[[int], None] | None = None) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self._one(person, name or person, told))
        self.tasks.append(task)
        await settled()
        return task

    async def leave(self, name: str) -> None:
        self.inside[name].set()
        await settled()

    async def drain(self) -> None:
        while self.inside:
            await self.leave(next(iter(self.inside)))


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_no_more_than_so_many_have_a_turn_at_once() -> None:
    row = Row(2)
    for number in range(5):
        await row.ask("alice", f"a{number}")
    assert list(row.inside) == ["a0", "a1"]
    assert row.turns.waiting == 3
    await row.drain()
    assert row.order == ["a0", "a1", "a2", "a3", "a4"]
    assert row.turns.waiting == 0


async def test_fifty_of_one_person_keep_another_waiting_for_one_turn_at_most() -> None:
    row = Row(1)
    for number in range(50):
        await row.ask("alice", f"a{number}")
    await row.ask("bob")
    await row.ask("carol")
    await row.drain()
    assert row.order[:5] == ["a0", "a1", "bob", "carol", "a2"]
    assert len(row.order) == 52


async def test_a_pool_is_filled_when_nobody_waits_and_leaves_one_turn_for_a_person() -> None:
    row = Row(3)
    for number in range(4):
        await row.ask(NOBODY, f"fill{number}")
    assert list(row.inside) == ["fill0", "fill1"]
    await row.ask("alice")
    assert "alice" in row.inside
    await row.ask("bob")
    await row.leave("fill0")
    assert list(row.inside) == ["fill1", "alice", "bob"]
    await row.drain()
    assert row.order[-2:] == ["fill2", "fill3"]


async def test_where_one_starts_at_a_time_a_pool_is_filled_too() -> None:
    row = Row(1)
    await row.ask(NOBODY)
    assert row.inside
    await row.drain()


async def test_who_waits_hears_how_many_do_and_nobody_else_hears_anything() -> None:
    row, heard, first = Row(1), list[int](), list[int]()
    await row.ask("alice", told=first.append)
    await row.ask("bob", told=heard.append)
    await row.ask("carol")
    await row.leave("alice")
    assert first == []
    assert heard == [1, 2]
    await row.drain()


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_leaves_whenever_no_turn_is_lost(seed: int) -> None:
    chance, row = random.Random(seed), Row(3)
    for number in range(60):
        await row.ask(chance.choice(["alice", "bob", "carol", NOBODY]), f"n{number}")
        if chance.random() < 0.5:
            running = [task for task in row.tasks if not task.done()]
            chance.choice(running).cancel()  # waiting, inside, or just given its turn
        if row.inside and chance.random() < 0.3:
            row.inside[chance.choice(list(row.inside))].set()
        if chance.random() < 0.5:
            await settled()
        assert len(row.inside) <= 3
    await cancel_and_wait(row.tasks[::2])
    await settled()
    await row.drain()
    assert all(task.done() for task in row.tasks)
    assert row.turns._running == row.turns._filling == row.turns.waiting == 0
