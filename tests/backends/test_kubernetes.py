"""The Kubernetes backend keeps the whole contract, on a real cluster and with the shipped Role alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import asyncssh
import httpx
import pytest

from gateway.backends import Backend, Order
from gateway.backends.kubernetes.backend import KubernetesBackend
from gateway.backends.kubernetes.cluster import END_SECONDS
from gateway.backends.kubernetes.spec import DEADLINE_SECONDS, SESSION_LABEL
from gateway.contracts.backend import (
    LIMITS,
    NETWORK,
    USER,
    IsolationContract,
    StreamContract,
    agent,
    another,
    inside,
    sh,
)
from gateway.errors import WorkspaceUnavailable
from gateway.model import Holder, PodOptions, SessionId, Toleration, WorkspaceSpec, WorkspaceUser
from gateway.settings import KubernetesSettings
from tests.e2e.world import until
from tests.stack.cluster import NAMESPACE, PODS, Cluster
from tests.stack.cluster.files import NODE, NODE_IP, POD_PIDS

pytestmark = pytest.mark.usefixtures("closed")
INSTANCE = "test-kubernetes"


class Api:
    """The cluster as its administrator sees it, past the backend."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def pods(self, session: SessionId) -> list[str]:
        answer = self._client.get(PODS, params={"labelSelector": f"{SESSION_LABEL}={session}"}).raise_for_status()
        return [item["metadata"]["name"] for item in answer.json()["items"]]

    def pod(self, name: str) -> Any:
        return self._client.get(f"{PODS}/{name}").raise_for_status().json()

    def evict(self, name: str) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
        self._client.post(f"{PODS}/{name}/eviction", json=body).raise_for_status()

    @contextmanager
    def quota(self, **hard: int) -> Iterator[None]:
        """A ResourceQuota that is in force."""
        quotas = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas"
        body = {"metadata": {"name": "test"}, "spec": {"hard": {name: str(value) for name, value in hard.items()}}}
        self._client.post(quotas, json=body).raise_for_status()
        try:
            # It is in force once the controller has counted.
            until(lambda: "used" in self._client.get(f"{quotas}/test").json()["status"], 60)
            yield
        finally:
            self._client.delete(f"{quotas}/test").raise_for_status()

    async def alive(self, session: SessionId) -> bool:
        return bool(await asyncio.to_thread(self.pods, session))

    async def kill(self, session: SessionId) -> None:
        for pod in await asyncio.to_thread(self.pods, session):
            await asyncio.to_thread(self._client.request, "DELETE", f"{PODS}/{pod}", json={"gracePeriodSeconds": 1})


@pytest.fixture(scope="module")
def settings(cluster: Cluster) -> KubernetesSettings:
    return cluster_settings(cluster)


def cluster_settings(cluster: Cluster) -> KubernetesSettings:
    kubeconfig: Path = cluster.config_for("doorward-gateway", NAMESPACE)
    return KubernetesSettings(
        kubeconfig=kubeconfig,
        namespace=NAMESPACE,
        agent_image=cluster.images.agent(),
        pod_pids_limit=POD_PIDS,
        enforces_network_policy=True,
    )


@pytest.fixture
async def backend(settings: KubernetesSettings) -> AsyncIterator[KubernetesBackend]:
    async with KubernetesBackend.open(settings, INSTANCE) as opened:
        yield opened


@pytest.fixture
def runtime(cluster: Cluster) -> Iterator[Api]:
    with cluster.client() as client:
        yield Api(client)


@pytest.fixture
def order(cluster: Cluster, request: pytest.FixtureRequest) -> Order:
    spec = WorkspaceSpec(
        backend="kubernetes",
        image=cluster.images.workspace("full"),
        user=USER,
        limits=LIMITS.model_copy(update={"pids": POD_PIDS}),
        network=NETWORK,
    )
    session = SessionId(f"s{abs(hash(request.node.name)) % 10**12}")
    holder = Holder(session, "alice", "INC-1", "orders-db", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    return Order(spec, holder, datetime.now(UTC) + timedelta(hours=1))


class TestStream(StreamContract):
    """Starting, streaming and ending."""


class TestIsolation(IsolationContract):
    """Walls and limits."""

    # The kubelet mounts without them; `no_new_privs` and no capability at all (tested above) say the same.
    mount_options: ClassVar[set[str]] = set()

    async def test_the_only_network_is_its_own_loopback(self, backend: Backend, order: Order, runtime: Api) -> None:  # type: ignore[override]
        """A pod has an interface; that nothing passes it is the rule's doing."""
        async with inside(backend, order) as one, backend.workspace(another(order)) as other:
            address = runtime.pod(other.id)["status"]["podIP"]
            for elsewhere in (address, NODE_IP):
                assert await knock(one, elsewhere) == "no answer"


async def knock(connection: asyncssh.SSHClientConnection, address: str) -> str:
    """What comes of connecting to a port where nobody listens."""
    said, _ = await sh(connection, f"timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/22'")
    return "refused" if "refused" in said else "no answer"


async def test_a_cluster_that_enforces_no_rule_is_found_out(
    settings: KubernetesSettings, order: Order, cluster: Cluster, runtime: Api
) -> None:
    settings = settings.model_copy(update={"enforces_network_policy": None})
    with cluster.enforcement.lifted():
        async with KubernetesBackend.open(settings, INSTANCE) as backend:
            with pytest.raises(WorkspaceUnavailable, match="does not enforce NetworkPolicy"):
                await backend.workspace(order).__aenter__()
            assert not await runtime.alive(order.holder.session)
            spec = order.spec.model_copy(update={"pod": PodOptions(isolation="best_effort")})
            loose = replace(order, spec=spec)
            async with inside(backend, loose) as one, backend.workspace(another(loose)) as other:
                assert await knock(one, runtime.pod(other.id)["status"]["podIP"]) == "refused"
    async with KubernetesBackend.open(settings, INSTANCE) as backend, backend.workspace(order):
        assert await runtime.alive(order.holder.session)


async def refusal(backend: KubernetesBackend, order: Order, runtime: Api) -> WorkspaceUnavailable:
    """Why it was not started.  Nothing is left of it."""
    with pytest.raises(WorkspaceUnavailable) as refused:
        await backend.workspace(order).__aenter__()
    assert not await runtime.alive(order.holder.session)
    assert refused.value.reasons[0].remedy
    return refused.value


def changed(order: Order, **spec: Any) -> Order:
    return replace(order, spec=order.spec.model_copy(update=spec))


NOWHERE = f"localhost/none@sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": NOWHERE}, "image is not to be had"),
        ({"image": "debug:latest"}, "not pinned by digest"),
        ({"limits": LIMITS.model_copy(update={"pids": POD_PIDS - 1})}, f"allows {POD_PIDS - 1} processes"),
        ({"limits": LIMITS.model_copy(update={"pids": POD_PIDS, "memory_bytes": 2**45})}, "no node of the cluster has"),
        ({"pod": PodOptions(node_selector={"zone": "nowhere"})}, "no node of the cluster has"),
        ({"pod": PodOptions(runtime_class="absent")}, "does not have the runtime class"),
        ({"pod": PodOptions(priority_class="absent")}, "does not have the runtime class or the priority class"),
        ({"read_only": False, "user": WorkspaceUser(uid=2**33)}, "refused to start"),
    ],
)
async def test_what_cannot_be_started_is_one_sentence(
    backend: KubernetesBackend, order: Order, runtime: Api, change: dict[str, Any], words: str
) -> None:
    assert words in str(await refusal(backend, changed(order, **change), runtime))


async def test_a_quota_that_is_used_up_is_said(backend: KubernetesBackend, order: Order, runtime: Api) -> None:
    with runtime.quota(pods=0):
        assert "quota is used up" in str(await refusal(backend, order, runtime))


async def test_the_cluster_itself_ends_what_outlives_its_permit(backend: KubernetesBackend, order: Order) -> None:
    late = replace(order, expires_at=datetime.now(UTC) - timedelta(seconds=DEADLINE_SECONDS - 6))
    async with backend.workspace(late) as workspace, asyncio.timeout(60):
        assert "reached its deadline" in await workspace.wait_gone()


async def test_an_eviction_is_an_end_from_outside(backend: KubernetesBackend, order: Order, runtime: Api) -> None:
    async with backend.workspace(order) as workspace, agent(workspace), asyncio.timeout(60):
        await asyncio.to_thread(runtime.evict, workspace.id)
        assert "killed from outside" in await workspace.wait_gone()


async def test_tolerations_and_selectors_reach_the_pod(backend: KubernetesBackend, order: Order, runtime: Api) -> None:
    options = PodOptions(
        node_selector={"kubernetes.io/hostname": NODE}, tolerations=(Toleration(key="debug", operator="Exists"),)
    )
    async with backend.workspace(changed(order, pod=options)) as workspace:
        spec = runtime.pod(workspace.id)["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": NODE}
    assert {"key": "debug", "operator": "Exists"} in spec["tolerations"]
    assert spec.get("serviceAccountName", "default") == "default"
    assert spec["automountServiceAccountToken"] is False


async def test_an_account_without_the_role_is_told_what_is_missing(
    settings: KubernetesSettings, cluster: Cluster, order: Order, runtime: Api
) -> None:
    other = settings.model_copy(update={"kubeconfig": cluster.config_for("default", NAMESPACE)})
    async with KubernetesBackend.open(other, INSTANCE) as backend:
        with pytest.raises(WorkspaceUnavailable, match=r"may not get pods, .* create pods/exec, .*networkpolicies"):
            await backend.check()
        assert "does not let the gateway" in str(await refusal(backend, order, runtime))


async def test_a_stopped_api_server_is_lived_through_and_what_could_not_be_removed_is_reaped(
    settings: KubernetesSettings, cluster: Cluster, order: Order, runtime: Api
) -> None:
    """Nothing is asked of it for as long; what a workspace writes meanwhile comes when it is back."""
    left = another(order)
    async with KubernetesBackend.open(settings, INSTANCE) as backend, inside(backend, order) as connection:
        context = backend.workspace(left)
        await context.__aenter__()
        with cluster.stopped_api():
            running = asyncio.ensure_future(connection.run("sleep 2; echo lived"))
            with pytest.raises(WorkspaceUnavailable, match="does not answer"):
                await backend.check()
            leaving = time.monotonic()
            await context.__aexit__(None, None, None)
            assert time.monotonic() - leaving < END_SECONDS + 5
            assert not running.done()
        async with asyncio.timeout(60):
            assert (await running).stdout == "lived\n"
        # Its agent had its EOF when the API server was back; the reaper sees to what is left of it, if anything is.
        await backend.reap([order.holder.session])
        assert not await runtime.alive(left.holder.session)
        assert await runtime.alive(order.holder.session)
