"""The contract of streams holds for warm workspaces too: every one of its tests is given one that was ready before.

The gateway connects a warm workspace's agent before it is claimed, and the contract wants the stream itself.  So here
the stream is kept, unused, and handed over after the claim; all else is the pool as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from gateway.assets import agent_binary, seccomp_profile
from gateway.backends import Backend, Order, Poolable, ProtocolFactory, Workspace
from gateway.backends.docker import agent as volume
from gateway.backends.docker import backend as docker
from gateway.backends.docker import engine, site
from gateway.backends.docker.backend import DockerBackend
from gateway.backends.sandbox.records import end_orphans
from gateway.backends.sandbox.root import AGENT
from gateway.concurrency import background
from gateway.contracts.backend import StreamContract
from gateway.metrics import UNMETERED
from gateway.model import SessionId, WorkspaceSpec
from gateway.pools.kinds import Kind, Kinds
from gateway.pools.pool import Pool
from gateway.pools.warm import Claimed
from gateway.settings import DockerSettings
from gateway.settings_pools import PoolSettings
from tests.backends.test_docker import order_for as container_order
from tests.backends.test_sandbox import Machine
from tests.backends.test_sandbox import order_for as sandbox_order
from tests.pools.world import sandboxes
from tests.stack.docker import Docker
from tests.stack.images import debug_image
from tests.stack.podman import podman
from tests.stack.require import require
from tests.waiting import SECONDS, eventually, until

INSTANCE = "test-pool-contract"
SIZE = 2
"""As many as one test wants at once."""


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
        await until(full, SECONDS)
        yield Warmed(pool)


class PooledContract(StreamContract):
    """Not applicable, by name, is the one below."""

    test_the_order_s_environment_is_there = None  # type: ignore[assignment]
    """The agent is told it at the claim, by `setup@doorward`: tests/pools/test_story.py."""


class TestSandbox(PooledContract):
    @pytest.fixture
    def state(self) -> Iterator[Path]:
        require("bwrap")
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            assert not list((Path(folder) / "sandbox" / "test").glob("*.json"))
        assert end_orphans(AGENT) == 0

    @pytest.fixture
    def order(self, request: pytest.FixtureRequest) -> Order:
        return sandbox_order(_session(request))

    @pytest.fixture
    async def backend(self, state: Path, order: Order) -> AsyncIterator[Backend]:
        async with warmed(sandboxes(state), order, state) as opened:
            yield opened

    @pytest.fixture
    def runtime(self, state: Path) -> Machine:
        return Machine(state, sandboxes(state).limiter)


class Engine:
    """The engine itself.  A label cannot change: whose a container is that was started for nobody, its name says."""

    def __init__(self, api: aiodocker.Docker) -> None:
        self._api = api

    async def containers(self, session: str = "") -> list[aiodocker.containers.DockerContainer]:
        filters = json.dumps({"label": [f"doorward.instance={INSTANCE}"]})
        found = await self._api.containers.list(all="true", filters=filters)
        return [one for one in found if not session or one["Names"][0].startswith(f"/doorward-{session}.")]

    async def alive(self, session: SessionId) -> bool:
        return bool(await self.containers(session))

    async def kill(self, session: SessionId) -> None:
        for container in await self.containers(session):
            await container.kill()


class EngineContract(PooledContract):
    """On whatever speaks Docker's API: `at` is its URL, and the debug image on it."""

    @pytest.fixture
    def order(self, at: tuple[str, str], request: pytest.FixtureRequest) -> Order:
        return container_order(at[1], _session(request))

    @pytest.fixture
    async def runtime(self, at: tuple[str, str]) -> AsyncIterator[Engine]:
        async with aiodocker.Docker(at[0]) as api:
            engine = Engine(api)
            yield engine

            async def none_left() -> bool:
                return not await engine.containers()

            assert await eventually(none_left, SECONDS)

    @pytest.fixture
    async def backend(
        self, at: tuple[str, str], runtime: Engine, order: Order, tmp_path: Path
    ) -> AsyncIterator[Backend]:
        settings = DockerSettings(url=at[0])
        async with (
            DockerBackend.open(settings, INSTANCE, agent_binary(), seccomp_profile(), tmp_path) as opened,
            warmed(opened, order, tmp_path) as backend,
        ):
            yield backend


class TestDocker(EngineContract):
    @pytest.fixture
    def at(self, engine: Docker) -> tuple[str, str]:
        require("images")
        return engine.host, debug_image(engine)


@pytest.fixture(scope="module")
def on_podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    require("podman", "images")
    with podman(tmp_path_factory.mktemp("podman")) as started:
        yield started


class TestPodman(EngineContract):
    @pytest.fixture
    def at(self, on_podman: Docker, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
        for module in (docker, volume, engine, site):  # as in tests/backends/test_engines.py
            monkeypatch.setattr(module, "ASK_SECONDS", SECONDS)
        return on_podman.host, debug_image(on_podman)


def _session(request: pytest.FixtureRequest) -> str:
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
