"""What gives the contract of streams workspaces that were ready before: a pool, as a backend.

The gateway connects a warm workspace's agent before it is claimed, and the contract wants the stream itself.  So here
the stream is kept, unused, and handed over after the claim; all else is the pool as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.backends import Backend, Order, Poolable, ProtocolFactory, Workspace
from gateway.concurrency import background
from gateway.contracts.backend import StreamContract
from gateway.metrics import UNMETERED
from gateway.model import SessionId, WorkspaceSpec
from gateway.pools.kinds import Kind, Kinds
from gateway.pools.pool import Pool
from gateway.pools.warm import Claimed
from gateway.settings_pools import PoolSettings
from tests.waiting import until

SIZE = 2
"""As many as one test wants at once."""
FULL_SECONDS = 60.0


class Kept(asyncio.Protocol):
    """A stream that nobody uses yet, in the place of its agent.  Whoever takes it hears all that it heard."""

    def __init__(self) -> None:
        self._taker: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None

    async def answers(self) -> None:
        """The contract's tests ask themselves."""

    def taken_by(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        assert self._taker is None, "handed over once"
        assert self._transport is not None
        self._taker = factory()
        self._taker.connection_made(self._transport)
        return self._transport, self._taker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a backend's own, which is as good

    def data_received(self, data: bytes) -> None:
        assert self._taker is not None, "an agent is silent until it has heard somebody"
        self._taker.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._taker is None else self._taker.eof_received()

    def pause_writing(self) -> None:
        assert self._taker is not None
        self._taker.pause_writing()

    def resume_writing(self) -> None:
        assert self._taker is not None
        self._taker.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._taker is not None:
            self._taker.connection_lost(exc)


@asynccontextmanager
async def kept(workspace: Workspace) -> AsyncIterator[Any]:
    """For a pool: how the agent of a workspace is reached."""
    transport, protocol = await workspace.create_connection(Kept)
    try:
        yield protocol
    finally:
        transport.abort()


class Given:
    """A claimed workspace whose stream is still to be had."""

    def __init__(self, claimed: Claimed) -> None:
        self.id = claimed.id
        self._claimed = claimed

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        agent: Any = self._claimed.agent
        taken: tuple[asyncio.Transport, asyncio.Protocol] = agent.taken_by(factory)
        return taken

    async def wait_gone(self) -> str:
        return await self._claimed.wait_gone()


class Warmed:
    """A pool, as a Backend that gives nothing but what was ready."""

    def __init__(self, pool: Pool) -> None:
        self.name = pool.name
        self._pool = pool

    def workspace(self, order: Order) -> AbstractAsyncContextManager[Workspace]:
        return self._workspace(order)

    @asynccontextmanager
    async def _workspace(self, order: Order) -> AsyncIterator[Workspace]:
        async with self._pool.workspace(order) as workspace:
            assert isinstance(workspace, Claimed), f"cold: {workspace.describe()}"  # type: ignore[attr-defined]
            yield Given(workspace)

    async def reap(self, live: Collection[SessionId]) -> list[SessionId]:
        return await self._pool.reap(live)

    async def check(self, spec: WorkspaceSpec | None = None) -> None:
        await self._pool.check(spec)


@asynccontextmanager
async def warmed(backend: Poolable, order: Order, folder: Path) -> AsyncIterator[Backend]:
    """A full pool of `order`'s kind."""
    settings = PoolSettings(size=SIZE, starts_at_once=8)
    kinds = Kinds(folder / "pool.json", settings)
    kinds.asked(Kind.of(order))
    pool = Pool(backend, kept, settings, kinds, UNMETERED)

    def full() -> bool:
        return any(kind["ready"] == SIZE for kind in pool.describe()["kinds"])

    async with background(pool.keep()):
        await until(full, FULL_SECONDS)
        yield Warmed(pool)


class PooledContract(StreamContract):
    """Not applicable, by name, is the one below."""

    test_the_order_s_environment_is_there = None  # type: ignore[assignment]
    """The agent is told it at the claim, by `setup@doorward`: tests/pools/test_story.py."""
