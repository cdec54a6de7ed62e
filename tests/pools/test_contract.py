"""The contract of streams holds for warm workspaces too: every one of its tests is given one that was ready before."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiodocker
import pytest

from gateway.assets import agent_binary, seccomp_profile
from gateway.backends import Backend, Order
from gateway.backends.docker import agent as volume
from gateway.backends.docker import backend as docker
from gateway.backends.docker import engine, site
from gateway.backends.docker.backend import DockerBackend
from gateway.backends.kubernetes.backend import KubernetesBackend
from gateway.backends.sandbox.records import end_orphans
from gateway.backends.sandbox.root import AGENT
from gateway.model import SessionId
from gateway.settings import DockerSettings, KubernetesSettings
from tests.backends.test_docker import order_for as container_order
from tests.backends.test_kubernetes import Api, cluster_settings
from tests.backends.test_sandbox import Machine
from tests.backends.test_sandbox import order_for as sandbox_order
from tests.pools.warmed import PooledContract, warmed
from tests.pools.world import order_for, sandboxes
from tests.stack.cluster import PODS, Cluster
from tests.stack.cluster.files import POD_PIDS
from tests.stack.docker import Docker
from tests.stack.images import debug_image
from tests.stack.podman import podman
from tests.stack.require import require
from tests.waiting import SECONDS, eventually

INSTANCE = "test-pool-contract"


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


class Pods(Api):
    """The cluster itself.  A label can change: whose a pod is, it says from the claim on."""

    async def none_left(self) -> bool:
        answer = self._client.get(PODS, params={"labelSelector": f"doorward/instance={INSTANCE}"}).raise_for_status()
        return not answer.json()["items"]


@pytest.fixture(scope="module")
def on_cluster(cluster: Cluster) -> KubernetesSettings:
    return cluster_settings(cluster)


@pytest.mark.usefixtures("closed")
class TestKubernetes(PooledContract):
    @pytest.fixture
    def order(self, cluster: Cluster) -> Order:
        limits = order_for().spec.limits.model_copy(update={"pids": POD_PIDS})
        return order_for(backend="kubernetes", image=cluster.images.workspace("full"), limits=limits)

    @pytest.fixture
    async def runtime(self, cluster: Cluster) -> AsyncIterator[Pods]:
        with cluster.client() as client:
            pods = Pods(client)
            yield pods
            assert await eventually(pods.none_left, SECONDS)

    @pytest.fixture
    async def backend(
        self, on_cluster: KubernetesSettings, runtime: Pods, order: Order, tmp_path: Path
    ) -> AsyncIterator[Backend]:
        async with (
            KubernetesBackend.open(on_cluster, INSTANCE) as opened,
            warmed(opened, order, tmp_path) as backend,
        ):
            yield backend


def _session(request: pytest.FixtureRequest) -> str:
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
