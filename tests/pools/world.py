"""A pool of sandboxes, and claims on it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.assets import agent_binary
from gateway.backends import Order, Poolable
from gateway.backends.sandbox.backend import SandboxBackend
from gateway.backends.sandbox.limits import Limiter
from gateway.concurrency import background
from gateway.contracts.backend import LIMITS, NETWORK, USER
from gateway.metrics import UNMETERED
from gateway.model import Holder, SessionId, WorkspaceSpec
from gateway.pools import Pools
from gateway.pools.kinds import Kind, Kinds
from gateway.pools.pool import Pool
from gateway.settings import SandboxSettings
from gateway.settings_pools import PoolSettings
from gateway.ssh.agent import connected
from tests.waiting import until

_numbers = itertools.count(1)


def sandboxes(state: Path) -> SandboxBackend:
    return SandboxBackend(SandboxSettings(), "test", agent_binary(), state, Limiter({}, 1))


def order_for(person: str = "alice", target: str = "orders-db", backend: str = "sandbox", **spec: Any) -> Order:
    """An order of a session of its own; `spec` is its workspace's, changed."""
    made = WorkspaceSpec(
        **{"backend": backend, "image": "host", "user": USER, "limits": LIMITS, "network": NETWORK, **spec}
    )
    holder = Holder(SessionId(f"s{next(_numbers)}"), person, "grant-1", target, f"00-{'1' * 32}-{'2' * 16}-01")
    return Order(made, holder, datetime.now(UTC) + timedelta(hours=1))


@dataclass
class Stocked:
    """A pool that is kept, and how its agents are reached."""

    pool: Pool
    pools: Pools
    backend: Any

    def ready(self, target: str = "orders-db") -> int:
        return sum(kind["ready"] for kind in self.pool.describe()["kinds"] if kind["target"] == target)

    async def full(self, size: int, target: str = "orders-db") -> None:
        await until(lambda: self.ready(target) == size, 60)

    async def learn(self, order: Order, size: int) -> None:
        """Have `order`'s kind kept ready."""
        self.pool._kinds.asked(Kind.of(order))
        self.pool._changed.set()
        await self.full(size, order.holder.target)

    @asynccontextmanager
    async def claimed(self, order: Order) -> AsyncIterator[Any]:
        """A workspace, as a session has it; with its agent as `agent` and what the record says of it as `facts`."""
        async with self.pool.workspace(order) as workspace, self.pools.connect(workspace) as agent:
            yield Held(workspace, agent, workspace.describe())  # type: ignore[attr-defined]


@dataclass
class Held:
    workspace: Any
    agent: Any
    facts: dict[str, Any]

    async def says(self, command: str) -> str:
        done = await self.agent.connection.run(command, encoding="utf-8")
        return str(done.stdout).strip()


@asynccontextmanager
async def stocked(backend: Poolable, folder: Path, **settings: Any) -> AsyncIterator[Stocked]:
    own = PoolSettings(**{"size": 2, "starts_at_once": 8, **settings})
    pool = Pool(backend, connected, own, Kinds(folder / "pool.json", own), UNMETERED)
    async with background(pool.keep()):
        yield Stocked(pool, Pools({}, {pool.name: pool}, connected), backend)


def of(order: Order, person: str) -> Order:
    """The same kind for another session, of `person`."""
    fresh = order_for(person)
    return replace(order, holder=replace(fresh.holder, target=order.holder.target))
