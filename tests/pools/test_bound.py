"""Warm containers and pods: what the runtime says of them before the claim and after, and claims that do not hold."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiodocker
import httpx
import pytest

from gateway.assets import agent_binary, seccomp_profile
from gateway.backends import Order
from gateway.backends.docker.backend import DockerBackend
from gateway.backends.kubernetes.backend import KubernetesBackend
from gateway.backends.kubernetes.spec import DEADLINE_SECONDS
from gateway.settings import DockerSettings, KubernetesSettings
from tests.pools.world import Stocked, of, order_for, stocked
from tests.stack.cluster import NAMESPACE, PODS, Cluster
from tests.stack.cluster.files import POD_PIDS
from tests.stack.docker import Docker
from tests.stack.images import images
from tests.waiting import eventually

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("closed")]
PERSONAL = ("alice", "grant-1", "TRACEPARENT", "s3cret-of-hers")
INSTANCE = "test-pools"


def personal(order: Order, shown: Any) -> list[str]:
    """What there is of a person in what a runtime shows."""
    text = json.dumps(shown)
    return [word for word in (*PERSONAL, str(order.holder.session)) if word in text]


# -- Docker -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def docker_api(engine: Docker) -> AsyncIterator[aiodocker.Docker]:
    async with aiodocker.Docker(engine.host) as api:
        yield api


@pytest.fixture
async def docker_stock(engine: Docker, tmp_path: Path) -> AsyncIterator[Stocked]:
    settings = DockerSettings(url=engine.host)
    async with (
        DockerBackend.open(settings, INSTANCE, agent_binary(), seccomp_profile()) as backend,
        stocked(backend, tmp_path) as stock,
    ):
        yield stock


@pytest.fixture
def container_order(engine: Docker) -> Order:
    return order_for(backend="docker", image=images(engine).debug, env={"FOR": "s3cret-of-hers"})


async def containers(api: aiodocker.Docker) -> list[Any]:
    filters = json.dumps({"label": [f"doorward.instance={INSTANCE}"]})
    return [await one.show() for one in await api.containers.list(all="true", filters=filters)]


async def test_a_container_is_bound_at_the_claim_and_has_nothing_of_a_person_before(
    docker_stock: Stocked, docker_api: aiodocker.Docker, container_order: Order
) -> None:
    order = container_order
    await docker_stock.learn(order, 2)
    before = {one["Id"]: one for one in await containers(docker_api)}
    assert len(before) == 2
    assert personal(order, before) == []
    async with docker_stock.claimed(order) as held:
        assert held.facts["start"] == "warm"
        assert held.workspace.id in before
        shown = await docker_api.containers.container(held.workspace.id).show()
        assert shown["Name"] == f"/doorward-{order.holder.session}.alice.grant-1.orders-db"
        assert shown["HostConfig"] == before[held.workspace.id]["HostConfig"]
        assert shown["Config"] == before[held.workspace.id]["Config"]
        assert await held.says("id -u") == str(order.spec.user.uid)
    assert held.workspace.id not in {one["Id"] for one in await containers(docker_api)}


@pytest.mark.parametrize("change", ["pause", "larger", "name", "kill", "gone"])
async def test_a_container_that_is_not_what_it_was_is_not_handed_out(
    docker_stock: Stocked, docker_api: aiodocker.Docker, container_order: Order, change: str, engine: Docker
) -> None:
    order = container_order
    await docker_stock.learn(order, 2)
    before = {one["Id"] for one in await containers(docker_api)}
    obstacle = None
    for one in before:
        container = docker_api.containers.container(one)
        match change:
            case "pause":
                await container.pause()
            case "larger":
                command = ["docker", "--host", engine.host, "update", "--pids-limit", "4000", one]
                subprocess.run(command, check=True, capture_output=True)
            case "kill":
                await container.kill()
            case "gone":
                await container.delete(force=True)
            case _:
                name = f"doorward-{order.holder.session}.alice.grant-1.orders-db"
                obstacle = obstacle or await docker_api.containers.create(
                    {"Image": order.spec.image, "Entrypoint": ["/none"]}, name=name
                )
    try:
        async with docker_stock.claimed(order) as held:
            assert held.facts["start"] == "cold"
            assert held.workspace.id not in before
            assert await held.says("echo here") == "here"
    finally:
        if obstacle is not None:
            await obstacle.delete(force=True)
        for one in before:
            await unpaused(docker_api, one)


async def unpaused(api: aiodocker.Docker, container: str) -> None:
    try:
        await api.containers.container(container).unpause()
    except aiodocker.exceptions.DockerError:
        return  # it is gone, or was never paused


GATEWAY = """
import asyncio, sys
from pathlib import Path
from gateway.backends.docker.backend import DockerBackend
from gateway.settings import DockerSettings
from tests.pools.world import order_for, stocked

async def main(url, image, agent, folder):
    async with (
        DockerBackend.open(DockerSettings(url=url), "test-pools", Path(agent)) as backend,
        stocked(backend, Path(folder)) as stock,
    ):
        order = order_for(backend="docker", image=image)
        await stock.learn(order, 2)
        async with stock.claimed(order):
            print("claimed", flush=True)
            await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_gateway_that_is_killed_leaves_no_container_of_its_pool_running_and_the_next_one_removes_the_rest(
    docker_api: aiodocker.Docker, engine: Docker, container_order: Order, tmp_path: Path
) -> None:
    words = (engine.host, container_order.spec.image, str(agent_binary()), str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", GATEWAY, *words], stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == "claimed\n"
        assert await containers(docker_api)
        gateway.send_signal(signal.SIGKILL)
        gateway.wait()

    async def none_runs() -> bool:
        try:
            return not [one for one in await containers(docker_api) if one["State"]["Running"]]
        except aiodocker.exceptions.DockerError:  # one went while it was looked at
            return False

    assert await eventually(none_runs, seconds=30)
    # One that was made and not yet started has no agent that could end it.
    async with DockerBackend.open(DockerSettings(url=engine.host), INSTANCE, agent_binary()) as backend:
        await backend.reap([])
    assert await containers(docker_api) == []


# -- Kubernetes -------------------------------------------------------------------------------------------------------


def pod_settings(cluster: Cluster) -> KubernetesSettings:
    return KubernetesSettings(
        kubeconfig=cluster.config_for("doorward-gateway", NAMESPACE),
        namespace=NAMESPACE,
        agent_image=cluster.images.agent(),
        pod_pids_limit=POD_PIDS,
        enforces_network_policy=True,
    )


@pytest.fixture
async def pod_stock(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Stocked]:
    settings = pod_settings(cluster)
    async with KubernetesBackend.open(settings, INSTANCE) as backend, stocked(backend, tmp_path, size=1) as stock:
        yield stock


@pytest.fixture
def api(cluster: Cluster) -> Iterator[httpx.Client]:
    with cluster.client() as client:
        yield client


@pytest.fixture
def pod_order(cluster: Cluster) -> Order:
    limits = order_for().spec.limits.model_copy(update={"pids": POD_PIDS})
    image = cluster.images.workspace("full")
    return order_for(backend="kubernetes", image=image, limits=limits, env={"FOR": "s3cret-of-hers"})


def pods(api: httpx.Client) -> dict[str, Any]:
    answer = api.get(PODS, params={"labelSelector": f"doorward/instance={INSTANCE}"}).raise_for_status()
    return {item["metadata"]["name"]: item for item in answer.json()["items"]}


async def test_a_pod_is_bound_at_the_claim_and_has_nothing_of_a_person_before(
    pod_stock: Stocked, api: httpx.Client, pod_order: Order
) -> None:
    order = pod_order
    await pod_stock.learn(order, 1)
    before = pods(api)
    assert len(before) == 1
    assert personal(order, before) == []
    async with pod_stock.claimed(order) as held:
        assert held.facts["start"] == "warm"
        assert held.workspace.id in before
        shown = api.get(f"{PODS}/{held.workspace.id}").raise_for_status().json()
        words = {key.replace("doorward.", "doorward/"): value for key, value in order.holder.labels().items()}
        assert shown["metadata"]["annotations"].items() >= words.items()
        assert shown["metadata"]["labels"].items() >= words.items()
        began = datetime.fromisoformat(shown["status"]["startTime"])
        deadline = began + timedelta(seconds=shown["spec"]["activeDeadlineSeconds"])
        assert abs(deadline - order.expires_at - timedelta(seconds=DEADLINE_SECONDS)) < timedelta(seconds=2)
        assert await pod_stock.backend.reap([order.holder.session, *pod_stock.pool._held]) == []
        assert await held.says("echo here") == "here"
    assert held.workspace.id not in pods(api)


async def test_a_bound_pod_is_ended_by_the_cluster_at_the_session_s_own_end(
    pod_stock: Stocked, api: httpx.Client, pod_order: Order
) -> None:
    await pod_stock.learn(pod_order, 1)
    # What is left of the permit, less the time that a cluster adds.
    order = replace(pod_order, expires_at=datetime.now(UTC) + timedelta(seconds=3 - DEADLINE_SECONDS))
    async with pod_stock.claimed(order) as held:
        assert held.facts["start"] == "warm"
        assert await held.workspace.wait_gone() == "the workspace reached its deadline in the cluster"


async def test_a_pod_whose_end_cannot_be_put_off_is_not_handed_out(
    pod_stock: Stocked, api: httpx.Client, pod_order: Order
) -> None:
    await pod_stock.learn(pod_order, 1)
    [name] = pods(api)
    merge = {"content-type": "application/merge-patch+json"}
    body = {"spec": {"activeDeadlineSeconds": 600}}
    api.patch(f"{PODS}/{name}", content=json.dumps(body), headers=merge).raise_for_status()
    async with pod_stock.claimed(of(pod_order, "bob")) as held:
        assert (held.facts["start"], held.facts["why"]) == ("cold", "not bound")
        assert held.workspace.id != name


POD_GATEWAY = """
import asyncio, json, sys
from pathlib import Path
from gateway.backends.kubernetes.backend import KubernetesBackend
from gateway.settings import KubernetesSettings
from tests.pools.world import order_for, stocked

async def main(settings, image, pids, folder):
    limits = order_for().spec.limits.model_copy(update={"pids": int(pids)})
    async with (
        KubernetesBackend.open(KubernetesSettings.model_validate_json(settings), "test-pools") as backend,
        stocked(backend, Path(folder), size=2) as stock,
    ):
        order = order_for(backend="kubernetes", image=image, limits=limits)
        await stock.learn(order, 2)
        async with stock.claimed(order):
            await stock.full(2)
            print("claimed", flush=True)
            await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""
ENDED = ("Succeeded", "Failed")


async def test_a_gateway_that_is_killed_leaves_no_pod_of_its_pool_running_and_the_next_one_removes_them(
    cluster: Cluster, api: httpx.Client, tmp_path: Path
) -> None:
    settings = pod_settings(cluster)
    words = (settings.model_dump_json(), cluster.images.workspace("full"), str(POD_PIDS), str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", POD_GATEWAY, *words], stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == "claimed\n"
        assert len(pods(api)) == 3
        gateway.send_signal(signal.SIGKILL)
        gateway.wait()

    async def all_ended() -> bool:
        return all(pod["status"]["phase"] in ENDED for pod in pods(api).values())

    assert await eventually(all_ended, seconds=30)
    async with KubernetesBackend.open(settings, INSTANCE) as backend:
        assert len(await backend.reap([])) == 3

    async def none_left() -> bool:
        return not pods(api)

    assert await eventually(none_left, seconds=30)
