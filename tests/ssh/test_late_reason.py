"""A runtime may take a while to say why a workspace is over: a cluster does, after the agent's connection has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.assets import agent_binary
from gateway.backends import Bindable, Order, ProtocolFactory
from tests.fakes import ProcessBackend
from tests.ssh.world import running, target
from tests.stack.opa import Opa
from tests.waiting import SECONDS

LATE_SECONDS = 1.5
"""Longer than it took a kubelet on a busy machine (1.2 s)."""


class LateWorkspace:
    def __init__(self, workspace: Bindable) -> None:
        self.id = workspace.id
        self._workspace = workspace

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        return await self._workspace.create_connection(factory)

    async def wait_gone(self) -> str:
        why = await self._workspace.wait_gone()
        await asyncio.sleep(LATE_SECONDS)  # it is this fake's nature, and no wait for anything
        return why


class Late(ProcessBackend):
    """The process backend, whose words come late."""

    name = "late"

    def workspace(self, order: Order) -> AbstractAsyncContextManager[Any]:
        return self._late(order)

    @asynccontextmanager
    async def _late(self, order: Order) -> AsyncIterator[LateWorkspace]:
        async with super().workspace(order) as workspace:
            yield LateWorkspace(workspace)


async def test_why_a_workspace_is_over_is_waited_for(opa_server: Opa, tmp_path: Path) -> None:
    backend = Late(agent_binary())
    async with running(opa_server, tmp_path, backend, targets={"late": target("late")}) as site:
        async with site.connect() as connection, asyncio.timeout(SECONDS):
            process = await connection.create_process("echo up; sleep 300")
            assert await process.stdout.readline() == "up\n"
            [session] = backend._running
            await backend.kill(session)
            said = await process.stderr.read()
        assert "workspace_gone: the workspace was killed from outside" in said
        await site.nothing_left()
