"""A crowd of questions: each within its own deadline, in turn by person; and none that waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from gateway.errors import PolicyUnavailable
from gateway.policy import AT_ONCE
from gateway.settings import PolicySettings
from tests.live.world import permit
from tests.policy.servers import Handler, never, serving
from tests.policy.test_contract import SUBJECT
from tests.policy.test_failures import SESSION
from tests.policy.world import Asking, asking


class Slow:
    """Answers one question at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self.at_once = 0
        self.most = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            async with self._turn:
                await asyncio.sleep(self._seconds)
        finally:
            self.at_once -= 1
        live = request.path.endswith("live")
        return web.json_response({"result": {"sessions": {"a": {"verdict": "keep"}}} if live else {"allow": True}})


@asynccontextmanager
async def asked_at(handler: Handler, file: Path, seconds: float) -> AsyncIterator[Asking]:
    async with (
        serving(handler) as url,
        asking(PolicySettings(url=url, timeout_seconds=seconds), file) as asked,
    ):
        yield asked


async def ask(asked: Asking, person: str) -> None:
    await asked.policy.authorize(
        asked.journal(session=f"of {person}", person=person), SUBJECT, permit(1), {"kind": "shell"}
    )


async def test_a_crowd_that_takes_longer_than_one_deadline_is_answered_all_the_same(tmp_path: Path) -> None:
    slow = Slow(0.05)
    async with asked_at(slow.answer, tmp_path / "audit.jsonl", 2.5) as asked, asyncio.timeout(60):
        await asyncio.gather(*(ask(asked, "alice") for _ in range(70)))  # 3.5 s at least
    assert slow.most <= AT_ONCE


async def test_one_person_s_many_do_not_keep_another_s_one_waiting(tmp_path: Path) -> None:
    slow = Slow(0.02)
    async with asked_at(slow.answer, tmp_path / "audit.jsonl", 2.5) as asked, asyncio.timeout(60):
        many = [asyncio.ensure_future(ask(asked, "alice")) for _ in range(100)]
        await asyncio.sleep(0)
        await ask(asked, "bob")
        assert sum(task.done() for task in many) < 2 * AT_ONCE + 10
        await asyncio.gather(*many)


async def test_the_sweep_waits_for_no_crowd(tmp_path: Path) -> None:
    slow = Slow(0.02)
    async with asked_at(slow.answer, tmp_path / "audit.jsonl", 2.5) as asked, asyncio.timeout(60):
        many = [asyncio.ensure_future(ask(asked, "alice")) for _ in range(100)]
        await asyncio.sleep(0)
        await asked.policy.judge(asked.journal(), [SESSION])
        assert not all(task.done() for task in many)
        await asyncio.gather(*many)


async def test_who_has_no_turn_in_time_is_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.policy.TURN_SECONDS", 0.1)
    async with asked_at(never, tmp_path / "audit.jsonl", 2.0) as asked, asyncio.timeout(60):
        denied = await asyncio.gather(*(ask(asked, "alice") for _ in range(AT_ONCE + 1)), return_exceptions=True)
    assert {error.reasons[0].code for error in denied if isinstance(error, PolicyUnavailable)} == {"policy_timeout"}
    assert [str(error) for error in denied].count("too many wait for the policy engine") == 1
    assert len(asked.records("request")) == AT_ONCE + 1
