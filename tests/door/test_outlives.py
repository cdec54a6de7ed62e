"""Grants outlive OPA: what was answered 204 is there after a SIGKILL in the middle of writing, and no half of any."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.door.running import Running, running
from tests.policy.world import grant, populate
from tests.stack.opa import Opa, opa
from tests.waiting import until

WRITERS = 8
EACH = 20
"""Grants in one patch."""


class Written:
    """What was asked for, and what was answered 204."""

    def __init__(self) -> None:
        self.tried: dict[str, Any] = {}
        self.kept: dict[str, str] = {}
        self.removed: set[str] = set()
        self.batches: list[tuple[list[str], bool]] = []

    def is_under_way(self) -> bool:
        return len(self.kept) > 200 and sum(done for _, done in self.batches) > 5

    async def one_by_one(self, door: Running, writer: int) -> None:
        """Grants of one writer, each with its own reason; every third is removed again."""
        number = 0
        while True:
            number += 1
            path = f"alice/W{writer}-{number}"
            self.tried[path] = value = grant(reason=f"writer {writer}, number {number} {'x' * 2000}")
            if not await _done(door.put(path, value)):
                return
            self.kept[path] = value["reason"]
            if number % 3 == 0:
                self.removed.add(path)  # from here on it may be gone
                del self.kept[path]
                if not await _done(door.http.delete(f"/v1/data/grants/{path}")):
                    self.removed.discard(path)
                    return

    async def many_at_once(self, door: Running) -> None:
        number = 0
        while True:
            number += 1
            paths = [f"bob/B{number}-{index}" for index in range(EACH)]
            values = {path: grant(reason=path) for path in paths}
            operations = [{"op": "add", "path": f"/{path}", "value": value} for path, value in values.items()]
            done = await _done(door.http.patch("/v1/data/grants", json=operations))
            self.batches.append((paths, done))
            if not done:
                return


async def _done(answer: Any) -> bool:
    try:
        return bool((await answer).status_code == 204)
    except httpx.TransportError:
        return False


def found(server: Opa) -> dict[str, Any]:
    with server.client() as client:
        grants = client.get("/v1/data/grants").json()["result"]
    return {f"{person}/{name}": value for person, held in grants.items() for name, value in held.items()}


@pytest.mark.slow
async def test_what_was_answered_is_there_after_a_kill_and_nothing_is_half_there(tmp_path: Path) -> None:
    written = Written()
    with opa(tmp_path / "opa") as own:
        populate(own)
        async with running(tmp_path, own) as door, asyncio.TaskGroup() as group:
            for writer in range(WRITERS):
                group.create_task(written.one_by_one(door, writer))
            group.create_task(written.many_at_once(door))
            await until(written.is_under_way, seconds=120)
            os.kill(own.process.pid, signal.SIGKILL)
    with opa(tmp_path / "opa") as again:
        after = found(again)

    assert {path: after[path]["reason"] for path in written.kept if path in after} == written.kept
    assert [path for path in written.removed if path in after] == []
    for path, value in after.items():
        if path in written.tried:
            assert after[path]["reason"] == written.tried[path]["reason"]
        assert {
            "target",
            "starts_at",
            "ends_at",
            "reason",
            "approved_by",
            "requested_by",
            "requested_at",
        } <= value.keys()
    for paths, done in written.batches:
        there = sum(path in after for path in paths)
        assert there == EACH if done else there in (0, EACH), "all of a patch, or none"


async def test_decisions_read_the_same_grants_after_a_kill(tmp_path: Path) -> None:
    """A restart changes no answer: the door itself reads and conditions on what was there."""
    with opa(tmp_path / "opa") as own:
        populate(own)
        async with running(tmp_path, own) as door:
            tag = (await door.put("alice/INC-1", grant())).headers["etag"]
            os.kill(own.process.pid, signal.SIGKILL)
            with opa(tmp_path / "opa", port=int(own.url.rpartition(":")[2])):
                url = "/v1/data/grants/alice/INC-1"
                assert (await door.http.get(url)).headers["etag"] == tag
                assert (
                    await door.http.put(url, json=grant(reason="later"), headers={"if-match": tag})
                ).status_code == 204
