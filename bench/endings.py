"""From a grant's deletion to the end of the session that stood on it, with many others live beside it.

`python -m bench.endings [--quick]` measures this alone.  The clock runs from OPA's acknowledgement of the deletion to
the moment in which the client is told the exit status, by sweep and by push; at the grants door, whose answer comes
after the judgement, it runs from before the deletion is sent.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import machine
from bench.crowd import GRANT, SECONDS, Crowd, Engineer, crowd
from bench.samples import Samples
from bench.table import Row, table
from tests.stack import StackError
from tests.stack.opa import opa

SWEEP, DOOR = "at OPA, by sweep", "at the grants door"
PUSH, PUSH_PERSON = "at OPA, by push", "at OPA, by push for the person"
GOALS = {SWEEP: 2.0, PUSH: 0.3, PUSH_PERSON: 0.3, DOOR: 0.3}
WAYS = (SWEEP, PUSH, PUSH_PERSON, DOOR)
LEVELS = (1, 100, 1000)
QUICK_LEVELS = (1, 20)
ALL = "all of them by one patch at OPA, by push"


def endings(directory: Path, each: int, levels: Sequence[int] = LEVELS) -> tuple[list[Row], dict[str, Samples]]:
    """`each` endings in each way at each level, one at a time; and then all at once."""
    directory.mkdir(exist_ok=True)
    with opa(directory / "opa") as server:

        async def measured() -> dict[str, Samples]:
            async with crowd(server, directory) as door:
                return await _measured(door, each, levels)

        samples = asyncio.run(measured())
    return [_row(what, found) for what, found in samples.items()], samples


async def _measured(door: Crowd, each: int, levels: Sequence[int]) -> dict[str, Samples]:
    samples: dict[str, Samples] = {}
    for level in levels:
        await door.grow(level)
        for turn in range(each):
            for way in WAYS:
                engineer = door.inside[f"person{turn * 7919 % level}"]
                found = samples.setdefault(f"{level} live: deleted {way}", Samples())
                found.add(await _ended(door, engineer, way))
                await door.leave(engineer)
                await door.enter(engineer.person)
        if level > 1:
            samples[f"{level} live: {ALL}"] = await _all_ended(door)
    return samples


async def _ended(door: Crowd, engineer: Engineer, way: str) -> float:
    path = f"/v1/data/grants/{engineer.person}/{GRANT}"
    await asyncio.sleep(random.random())  # anywhere between two sweeps
    _alive([engineer])
    began = time.perf_counter()
    (await (door.door if way == DOOR else door.opa).delete(path)).raise_for_status()
    if way != DOOR:
        began = time.perf_counter()
    if way in (PUSH, PUSH_PERSON):
        whose = {"person": engineer.person} if way == PUSH_PERSON else {}
        (await door.admin.post("/v1/reevaluate", params=whose)).raise_for_status()
    async with asyncio.timeout(SECONDS):
        return await engineer.ended - began


async def _all_ended(door: Crowd) -> Samples:
    everybody = list(door.inside.values())
    _alive(everybody)
    patch = [{"op": "remove", "path": f"/{engineer.person}/{GRANT}"} for engineer in everybody]
    (await door.opa.patch("/v1/data/grants", json=patch)).raise_for_status()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_push(door))
        ends = [tasks.create_task(_moment(engineer)) for engineer in everybody]
    for engineer in everybody:
        await door.leave(engineer)
    return Samples([end.result() - began for end in ends])


def _alive(engineers: Sequence[Engineer]) -> None:
    """Raises StackError: an end that came before its deletion is no measurement (OPA had too little of the machine)."""
    if gone := [engineer for engineer in engineers if engineer.ended.done()]:
        raise StackError(f"{len(gone)} sessions ended by themselves, {gone[0].person}'s: {gone[0].said.decode()}")


async def _push(door: Crowd) -> None:
    (await door.admin.post("/v1/reevaluate")).raise_for_status()


async def _moment(engineer: Engineer) -> float:
    async with asyncio.timeout(SECONDS):
        return await engineer.ended


def _row(what: str, found: Samples) -> Row:
    p50, p95, p99 = (found.percentile(percent) for percent in (50, 95, 99))
    value = f"p50 {p50 * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms (n={len(found.values)})"
    goal = next((seconds for way, seconds in GOALS.items() if what.endswith(f"deleted {way}")), None)
    return Row(what, value, f"p99 <= {goal:g} s" if goal else "", p99 <= goal if goal else None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.endings", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few endings, and few beside them: does it work at all?")
    parser.add_argument("--endings", type=int, help="in each way at each level; default 100, quick 3")
    parser.add_argument("--levels", type=lambda text: tuple(map(int, text.split(","))), help="default 1,100,1000")
    asked = parser.parse_args()
    each = asked.endings or (3 if asked.quick else 100)
    before = machine.load()
    with tempfile.TemporaryDirectory(prefix="dw-") as directory:
        rows, _ = endings(Path(directory), each, asked.levels or (QUICK_LEVELS if asked.quick else LEVELS))
    print(
        f"{table(rows)}\n\nload average (1 min), before and after, our own load included: {before} to {machine.load()}"
    )


if __name__ == "__main__":
    main()
