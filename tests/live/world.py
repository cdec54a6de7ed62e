"""A judge of live sessions, the sessions it judges, and their record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.errors import SessionEnded
from gateway.live import Live
from gateway.model import (
    NOTHING_DROPPED,
    Dropped,
    Holder,
    Limits,
    Permit,
    Reason,
    SessionId,
    SessionLimits,
    WorkspaceSpec,
)
from gateway.settings import PolicySettings
from gateway.verdicts import LiveEntry
from tests.policy.world import ALICE, ORDERS, Asking, asking
from tests.waiting import SECONDS


class Drops:
    """What is open, by kind, and what is dropped of it."""

    def __init__(self) -> None:
        self.open: dict[str, int] = {}
        self.dropped = NOTHING_DROPPED

    def change(self, to: Dropped) -> dict[str, int]:
        self.dropped = to
        return {kind: self.open.pop(kind) for kind in sorted(to.kinds) if kind in self.open}


class Terminal:
    """A client that notes what is done to it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.paused = False
        self.pauses = 0
        self.restricted = Drops()

    def say(self, text: str) -> None:
        self.said.append(text)

    tell = say

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
        self.fails_for = ""
        self.asked: list[list[str]] = []
        self.free = asyncio.Event()
        """Cleared: answers are held back, as they are when they are asked for."""
        self.free.set()
        self.at_once: list[list[str]] = []
        """Of these sessions they are not."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        question = (await request.json())["input"]
        ids = [session["id"] for session in question["sessions"]]
        self.asked.append(ids)
        told = json.dumps({"result": {"sessions": self.verdicts}})
        if ids not in self.at_once:
            await self.free.wait()
        status = 500 if self.fails_for in ids else self.status
        return web.Response(text=told, status=status, content_type="application/json")

    def say(self, session: str, verdict: str, *messages: str) -> None:
        reasons = [{"code": "because", "message": message, "remedy": ""} for message in messages]
        self.verdicts[session] = {"verdict": verdict, "reasons": reasons}

    def restrict(self, session: str, *drop: str, message: str = "closed for now") -> None:
        self.say(session, "restrict", message)
        self.verdicts[session]["drop"] = list(drop)


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
        entry = await self._stack.enter_async_context(self.live.entered(holder, permit(grace), terminal, journal))
        return entry, terminal

    def verdicts(self) -> list[str]:
        """What is on record of judgements."""
        return [record["outcome"] for record in self.asked.records("live")]


def permit(grace: float) -> Permit:
    return Permit(
        grant="INC-1",
        target=ORDERS,
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        workspace=WorkspaceSpec(
            backend="b", image="i", limits=Limits(memory_bytes=2**24, cpus=1, pids=32, tmpfs_bytes=2**20)
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


async def ending(entry: LiveEntry) -> Reason:
    """Why it was ended."""
    with pytest.raises(SessionEnded) as caught:
        async with asyncio.timeout(SECONDS):
            await entry.wait_ended()
    return caught.value.reasons[0]
