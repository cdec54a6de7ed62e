"""The Docker backend keeps the whole contract, and what is its own: images, the agent's volume, the attach stream."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from gateway.assets import agent_binary, seccomp_profile
from gateway.backends import Order
from gateway.backends.docker.agent import AGENT_DIR, as_archive
from gateway.backends.docker.backend import DockerBackend
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
from gateway.model import Holder, SessionId, WorkspaceSpec
from gateway.settings import DockerSettings
from tests.stack.docker import Docker, docker
from tests.stack.images import Images, images
from tests.stack.require import require
from tests.waiting import eventually, within

INSTANCE = "test-docker"


class Engine:
    """The engine itself, for asking and killing past the backend."""

    def __init__(self, docker: aiodocker.Docker) -> None:
        self.docker = docker

    async def containers(self, session: SessionId) -> list[aiodocker.containers.DockerContainer]:
        filters = json.dumps({"label": [f"doorward.session={session}"]})
        return await self.docker.containers.list(all="true", filters=filters)

    async def alive(self, session: SessionId) -> bool:
        return bool(await self.containers(session))

    async def kill(self, session: SessionId) -> None:
        for container in await self.containers(session):
            await container.kill()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    require("docker", "images")
    with docker(tmp_path_factory.mktemp("docker")) as started:
        yield started


@pytest.fixture(scope="module")
def docker_url(engine: Docker) -> str:
    return engine.host


@pytest.fixture(scope="module")
def found(engine: Docker) -> Images:
    return images(engine)


@pytest.fixture
async def runtime(docker_url: str) -> AsyncIterator[Engine]:
    async with aiodocker.Docker(docker_url) as docker:
        yield Engine(docker)


@pytest.fixture
def settings(docker_url: str) -> DockerSettings:
    return DockerSettings(url=docker_url)


@pytest.fixture
def state(parts_dir: Path) -> Path:
    return parts_dir / "docker-state"


@pytest.fixture
async def backend(settings: DockerSettings, state: Path) -> AsyncIterator[DockerBackend]:
    async with DockerBackend.open(settings, INSTANCE, agent_binary(), seccomp_profile(), state) as opened:
        yield opened


@pytest.fixture
def order(found: Images, request: pytest.FixtureRequest) -> Order:
    return order_for(found.debug, hashlib.sha256(request.node.name.encode()).hexdigest()[:12])


def order_for(image: str, session: str) -> Order:
    spec = WorkspaceSpec(backend="docker", image=image, user=USER, limits=LIMITS, network=NETWORK)
    holder = Holder(SessionId(session), "alice", "grant-1", "orders-db", f"00-{'1' * 32}-{'2' * 16}-01")
    return Order(spec, holder, datetime.now(UTC) + timedelta(hours=1))


def with_image(order: Order, image: str) -> Order:
    return replace(order, spec=order.spec.model_copy(update={"image": image}))


class TestDocker(StreamContract, IsolationContract):
    pass


async def test_an_image_with_nothing_but_a_shell_is_enough(backend: DockerBackend, order: Order, found: Images) -> None:
    async with inside(backend, with_image(order, found.shonly)) as connection:
        assert await sh(connection, "echo $((6 * 7)); exit 3") == ("42", 3)


async def test_an_image_without_any_program_still_starts_and_says_so(
    backend: DockerBackend, order: Order, found: Images
) -> None:
    async with inside(backend, with_image(order, found.noshell)) as connection:
        _, status = await sh(connection, "echo here")
        assert status != 0


@pytest.mark.parametrize("image", ["debug", "debug:latest", "sha256:12", "debug@sha256:12"])
async def test_an_image_that_is_not_pinned_is_refused_by_the_field_s_name(
    backend: DockerBackend, order: Order, image: str
) -> None:
    with pytest.raises(WorkspaceUnavailable) as caught:
        await backend.workspace(with_image(order, image)).__aenter__()
    assert "workspace.image" in caught.value.reasons[0].remedy


async def test_an_image_that_is_not_there_is_refused_by_the_field_s_name(backend: DockerBackend, order: Order) -> None:
    missing = with_image(order, f"sha256:{'0' * 64}")
    for ask in (backend.workspace(missing).__aenter__(), backend.check(missing.spec)):
        with pytest.raises(WorkspaceUnavailable) as caught:
            await ask
        assert "workspace.image" in caught.value.reasons[0].remedy


async def test_an_engine_that_is_down_is_said_at_once(order: Order, tmp_path: Path) -> None:
    await refused_soon(DockerSettings(url=f"unix://{tmp_path}/none.sock"), order)
    await refused_soon(DockerSettings(url="tcp://127.0.0.1:9"), order)


async def test_an_engine_that_hangs_is_given_up_within_two_seconds(order: Order, tmp_path: Path) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        closed.set()

    closed = asyncio.Event()
    async with await asyncio.start_unix_server(hang, tmp_path / "deaf.sock"):
        await refused_soon(DockerSettings(url=f"unix://{tmp_path}/deaf.sock"), order)
        await closed.wait()


async def refused_soon(settings: DockerSettings, order: Order) -> None:
    async def refused() -> None:
        async with DockerBackend.open(settings, INSTANCE, agent_binary()) as backend:
            with pytest.raises(WorkspaceUnavailable, match="does not answer"):
                await backend.workspace(order).__aenter__()

    await within(2, refused)


async def test_the_engine_confirms_the_hardening(backend: DockerBackend, order: Order, runtime: Engine) -> None:
    async with backend.workspace(order) as workspace:
        shown = await runtime.docker.containers.container(workspace.id).show()
    config, host = shown["Config"], shown["HostConfig"]
    assert config["User"] == f"{USER.uid}:{USER.gid}"
    assert config["Labels"].items() >= {**order.holder.labels(), "doorward.instance": INSTANCE}.items()
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["Privileged"]
    assert host["Memory"] == host["MemorySwap"] == LIMITS.memory_bytes
    assert host["PidsLimit"] == LIMITS.pids
    assert host["NanoCpus"] == 10**9
    assert host["NetworkMode"] == "none"
    assert host["IpcMode"] == "private"
    assert host["LogConfig"]["Type"] == "none"
    assert sorted((mount["Type"], mount["RW"]) for mount in shown["Mounts"]) == [("bind", False), ("volume", False)]


async def test_a_volume_that_the_image_declares_is_in_memory(
    backend: DockerBackend, order: Order, runtime: Engine
) -> None:
    base = await runtime.docker.containers.create({"Image": order.spec.image, "Entrypoint": ["/none"]})
    made = await base.commit(changes="VOLUME /data")
    await base.delete()
    async with inside(backend, with_image(order, made["Id"])) as connection:
        said, _ = await sh(connection, "while read -r a b c d; do [ $b = /data ] && echo $c; done </proc/mounts")
        assert said == "tmpfs"
        assert await sh(connection, "echo x > /data/a && cat /data/a") == ("x", 0)
    await runtime.docker.images.delete(made["Id"])


async def test_a_workspace_that_uses_up_its_memory_is_said_to_have(backend: DockerBackend, order: Order) -> None:
    small = LIMITS.model_copy(update={"memory_bytes": 16 * 2**20, "tmpfs_bytes": 64 * 2**20})
    spec = order.spec.model_copy(update={"limits": small})
    async with backend.workspace(replace(order, spec=spec)) as workspace, agent(workspace) as connection:
        gone = asyncio.ensure_future(workspace.wait_gone())
        # Memory that a tmpfs holds does not come back when the writer is killed, so the agent's turn comes.
        connection.set_keepalive(0.2, 100)
        while not gone.done():
            writing = asyncio.ensure_future(connection.run("head -c 60000000 /dev/zero >> /tmp/large"))
            await asyncio.wait([writing, gone], return_when=asyncio.FIRST_COMPLETED)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        assert "memory" in await gone


async def test_another_gateway_s_workspaces_are_not_reaped(
    backend: DockerBackend, order: Order, settings: DockerSettings, runtime: Engine
) -> None:
    async with DockerBackend.open(settings, "another", agent_binary()) as other, other.workspace(order):
        assert await backend.reap([]) == []
        assert await runtime.alive(order.holder.session)


async def test_gateways_that_start_together_all_find_the_agent_whole(
    settings: DockerSettings, order: Order, runtime: Engine, tmp_path: Path
) -> None:
    version = new_version(tmp_path)
    await asyncio.gather(*(start_one(settings, another(order), version) for _ in range(4)))
    await forget_agent(runtime, version)


def new_version(folder: Path) -> Path:
    """The agent in a version that the engine has never seen."""
    file = folder / "agent"
    file.write_bytes(agent_binary().read_bytes() + os.urandom(16))
    return file


def volume_of(version: Path) -> str:
    return f"doorward-agent-{hashlib.sha256(version.read_bytes()).hexdigest()[:12]}"


async def start_one(settings: DockerSettings, order: Order, version: Path) -> None:
    async with DockerBackend.open(settings, INSTANCE, version) as backend, inside(backend, order) as connection:
        assert await sh(connection, "echo here") == ("here", 0)


async def forget_agent(runtime: Engine, version: Path) -> None:
    await aiodocker.volumes.DockerVolume(runtime.docker, volume_of(version)).delete()  # type: ignore[no-untyped-call]


async def test_a_pruned_agent_volume_is_filled_again(
    settings: DockerSettings, order: Order, runtime: Engine, tmp_path: Path
) -> None:
    version = new_version(tmp_path)
    async with DockerBackend.open(settings, INSTANCE, version) as backend:
        for _ in range(2):
            async with inside(backend, another(order)) as connection:
                assert await sh(connection, "echo here") == ("here", 0)
            await forget_agent(runtime, version)


async def test_an_agent_volume_with_something_else_in_it_is_put_right(
    settings: DockerSettings, order: Order, runtime: Engine, tmp_path: Path
) -> None:
    version = new_version(tmp_path)
    mount = {"Type": "volume", "Source": volume_of(version), "Target": AGENT_DIR}
    config: dict[str, Any] = {"Image": order.spec.image, "Entrypoint": ["/none"], "HostConfig": {"Mounts": [mount]}}
    carrier = await runtime.docker.containers.create(config)
    await carrier.put_archive(AGENT_DIR, as_archive(b"#!/bin/sh\necho mine now\n"))  # type: ignore[no-untyped-call]
    await carrier.delete()
    await start_one(settings, order, version)
    await forget_agent(runtime, version)


GATEWAY = """
import asyncio, sys
from pathlib import Path
from gateway.backends.docker.backend import DockerBackend
from gateway.settings import DockerSettings
from tests.backends.test_docker import order_for

async def main(url, image, session, agent, state):
    async with DockerBackend.open(DockerSettings(url=url), "killed", Path(agent), state=Path(state)) as backend:
        async with backend.workspace(order_for(image, session)):
            print("started", flush=True)
            await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_gateway_that_is_killed_leaves_nothing(
    docker_url: str, found: Images, runtime: Engine, state: Path
) -> None:
    command = (sys.executable, "-c", GATEWAY, docker_url, found.debug, "orphan", str(agent_binary()), str(state))
    gateway = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert gateway.stdout is not None
    assert await gateway.stdout.readline() == b"started\n"
    assert await runtime.alive(SessionId("orphan"))
    gateway.send_signal(signal.SIGKILL)
    await gateway.wait()

    async def is_gone() -> bool:
        return not await runtime.alive(SessionId("orphan"))

    assert await eventually(is_gone)


async def test_sixty_megabytes_wait_for_a_reader_that_pauses(backend: DockerBackend, order: Order) -> None:
    async with inside(backend, order) as connection:
        reader = await connection.create_process("head -c 60000000 /dev/zero", encoding=None)
        assert len(await reader.stdout.read(1)) == 1  # and nothing more is asked for until the agent stands still
        await asyncio.wait([asyncio.ensure_future(connection.run("echo meanwhile"))], timeout=5)
        rest = await reader.stdout.read()
    assert len(rest) == 60_000_000 - 1


async def test_starting_takes_less_than_a_second(backend: DockerBackend, order: Order) -> None:
    async with AsyncExitStack() as running:

        async def started() -> None:
            await running.enter_async_context(inside(backend, another(order)))

        await started()
        await within(1, started)
