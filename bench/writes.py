"""How fast a grant is written where there are very many: at the grants door, all of it, and straight at OPA."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from bench.decisions import fill, person_of
from bench.samples import Samples
from bench.stand import Stand
from bench.table import Row
from tests.door.running import running
from tests.e2e.world import grant_of
from tests.stack.opa import Opa, opa

MANY = 100
DOOR, STRAIGHT, PATCH = "at the grants door", "straight at OPA", f"{MANY} at once at the grants door"


def writes(stand: Stand, people: int, rounds: int) -> tuple[list[Row], dict[str, Samples]]:
    """An OPA of its own on disk, filled as for decisions; each way in turn, each time for another person."""
    directory = stand.directory / "writes"
    directory.mkdir()
    with opa(directory / "opa") as server:
        fill(server, stand, people)
        samples = asyncio.run(_measure(server, directory, people, rounds))
    return [Row(f"grant written {name}", _words(found)) for name, found in samples.items()], samples


def _words(found: Samples) -> str:
    p50, p99 = found.median * 1000, found.percentile(99) * 1000
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms (n={len(found.values)})"


async def _measure(server: Opa, directory: Path, people: int, rounds: int) -> dict[str, Samples]:
    samples = {STRAIGHT: Samples(), DOOR: Samples(), PATCH: Samples()}
    policy = {"sweep_seconds": 1, "lint_seconds": 3600}
    headers = {"authorization": f"Bearer {server.token('automation')}"}
    async with (
        running(directory, server, policy=policy) as door,
        httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as straight,
    ):
        for turn in range(rounds + 3):
            path = f"/v1/data/grants/{person_of(turn * 7919 % people)}/NEW-{turn}"
            seconds = {
                STRAIGHT: await _put(straight, path, {**grant_of(), "ticket": "straight"}),
                DOOR: await _put(door.http, path, grant_of()),
            }
            if turn % 10 == 0:
                seconds[PATCH] = await _patch(door.http, turn, people)
            for name, taken in seconds.items() if turn >= 3 else ():
                samples[name].add(taken)
    return samples


async def _put(client: httpx.AsyncClient, path: str, grant: Mapping[str, Any]) -> float:
    began = time.perf_counter()
    (await client.put(path, json=grant)).raise_for_status()
    return time.perf_counter() - began


async def _patch(client: httpx.AsyncClient, turn: int, people: int) -> float:
    operations = [
        {"op": "add", "path": f"/{person_of((turn + number * 101) % people)}/MANY-{turn}-{number}", "value": grant_of()}
        for number in range(MANY)
    ]
    began = time.perf_counter()
    (await client.patch("/v1/data/grants", json=operations, timeout=60)).raise_for_status()
    return time.perf_counter() - began
