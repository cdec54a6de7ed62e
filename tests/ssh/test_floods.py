"""A workspace that floods its gateway harms itself: the session beside it stays answerable, and memory is bounded."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ssh.flood import FLOODS
from tests.ssh.world import BOB, HostileBackend, HostileChannel, HostileConnection, resident, running, target
from tests.stack.opa import Opa

ECHOES = 15
WORK = 0.12
"""Seconds that this process works, for itself and the flood, until an echo is back: in the middle of all echoes.  It
was 0.2 and more before connections had slices, and is 0.01.  Work, not time: others are busy on this machine too.
"""
GROWTH = 64 * 2**20


async def _nothing(_connection: HostileConnection, _channel: HostileChannel) -> None:
    return


@asynccontextmanager
async def flooding(opa: Opa, directory: Path, kind: str) -> AsyncIterator[Any]:
    """Alice's workspace is an agent that floods once a program starts; Bob's shell is beside it."""
    backend = HostileBackend(_nothing)
    started: list[asyncio.subprocess.Process] = []

    async def process(theirs: socket.socket) -> None:
        words = [sys.executable, "-m", "tests.ssh.flood", kind, str(theirs.fileno())]
        root = Path(__file__).parents[2]
        started.append(
            await asyncio.create_subprocess_exec(
                *words, pass_fds=[theirs.fileno()], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
            )
        )

    backend.raw = process
    async with running(opa, directory, backend, targets={"bad": target("hostile")}) as site:
        try:
            async with site.connect(BOB) as bob, site.connect() as alice:
                beside = await bob.create_process("cat")
                yield site, alice, beside
        finally:
            for one in started:
                if one.returncode is None:
                    one.kill()
                await one.wait()
        await site.nothing_left()


async def echo(beside: Any) -> float:
    """What an echo costs this thread, in which the gateway runs."""
    started = time.thread_time()
    async with asyncio.timeout(30):
        beside.stdin.write("here\n")
        assert await beside.stdout.readline() == "here\n"
    return time.thread_time() - started


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_from_a_workspace_does_not_hold_up_the_session_beside_it(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], kind: str
) -> None:
    async with flooding(opa_server, tmp_path, kind) as (_, alice, beside):
        await echo(beside)
        before = resident()
        await alice.create_process("x")
        costs = sorted([await echo(beside) for _ in range(ECHOES)])
        assert costs[ECHOES // 2] < WORK
        assert resident() - before < GROWTH
        alice.abort()
