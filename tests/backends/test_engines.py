"""The Docker backend on what is not quite a Docker engine: Podman's API, and gVisor in the place of runc."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import ClassVar

import aiodocker
import asyncssh
import pytest

from gateway.assets import agent_binary, seccomp_profile
from gateway.backends import Backend, Order
from gateway.backends.docker import agent as volume
from gateway.backends.docker import backend as docker
from gateway.backends.docker import engine, site
from gateway.backends.docker.backend import DockerBackend
from gateway.contracts.backend import IsolationContract, Runtime, StreamContract, agent, another, inside, sh
from gateway.errors import WorkspaceUnavailable
from gateway.settings import DockerSettings
from tests.backends.test_docker import Engine, new_version, order_for, start_one
from tests.stack.docker import Docker, own_docker
from tests.stack.images import debug_image
from tests.stack.podman import podman
from tests.stack.require import require
from tests.stack.tools import GVISOR, find_or_build
from tests.waiting import SECONDS

INSTANCE = "test-engines"


@pytest.fixture(scope="module")
def on_podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Docker, str]]:
    """The engine, and the debug image on it."""
    require("podman", "images")
    with podman(tmp_path_factory.mktemp("podman")) as started:
        yield started, debug_image(started)


@pytest.fixture(scope="module")
def with_gvisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Docker, str]]:
    """The same.  It is told of a Kata as well, which is not there: so is the kernel module that it would need."""
    require("dockerd", "images")
    runtimes = {"runsc": find_or_build(GVISOR), "kata": Path("/nowhere/kata-runtime")}
    with own_docker(tmp_path_factory.mktemp("gvisor"), runtimes) as started:
        yield started, debug_image(started)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman runs programs to tell its version, and the client of each test asks anew: seconds on a busy machine."""
    for module in (docker, volume, engine, site):
        monkeypatch.setattr(module, "ASK_SECONDS", SECONDS)


@pytest.fixture
async def backend(settings: DockerSettings, tmp_path: Path) -> AsyncIterator[DockerBackend]:
    async with DockerBackend.open(settings, INSTANCE, agent_binary(), seccomp_profile(), tmp_path) as opened:
        yield opened


@pytest.fixture
async def runtime(settings: DockerSettings) -> AsyncIterator[Engine]:
    async with aiodocker.Docker(settings.url) as docker:
        yield Engine(docker)


@pytest.fixture
def order(image: str, request: pytest.FixtureRequest) -> Order:
    return order_for(image, hashlib.sha256(request.node.name.encode()).hexdigest()[:12])


class TestPodman(StreamContract, IsolationContract):
    @pytest.fixture
    def image(self, on_podman: tuple[Docker, str]) -> str:
        return on_podman[1]

    @pytest.fixture
    def settings(self, on_podman: tuple[Docker, str]) -> DockerSettings:
        return DockerSettings(url=on_podman[0].host)

    @pytest.mark.parametrize("milliseconds", [0, 20, 120])
    async def test_entering_cancelled_on_the_way_leaves_nothing(
        self, backend: Backend, order: Order, runtime: Runtime, milliseconds: int
    ) -> None:
        await super().test_entering_cancelled_on_the_way_leaves_nothing(backend, order, runtime, milliseconds)

    async def test_the_shipped_profile_is_the_one_in_force(self, backend: Backend, order: Order) -> None:
        """Podman's own would let a raw socket of netlink's other families be made."""
        async with inside(backend, order) as connection:
            said, _ = await sh(connection, "perl -e 'socket(my $s, 16, 3, 15) or print $!'")
        assert said == "Operation not permitted"

    async def test_nothing_of_the_image_is_in_the_credentials_place(self, backend: Backend, order: Order) -> None:
        async with inside(backend, order) as connection:
            assert await sh(connection, "ls -A /run/doorward") == ("", 0)

    async def test_gateways_that_start_together_all_find_the_agent_whole(
        self, settings: DockerSettings, order: Order, tmp_path: Path
    ) -> None:
        version = new_version(tmp_path)
        await asyncio.gather(*(start_one(settings, another(order), version) for _ in range(3)))

    async def test_a_profile_that_is_not_on_its_machine_is_a_refusal(
        self, settings: DockerSettings, order: Order, tmp_path: Path
    ) -> None:
        profile = tmp_path / "profile.json"
        profile.write_text("{}")
        async with DockerBackend.open(settings, INSTANCE, agent_binary(), profile) as opened:
            profile.unlink()
            with pytest.raises(WorkspaceUnavailable, match="cannot run a workspace") as caught:
                await opened.check(order.spec)
        assert str(profile) in str(caught.value.__cause__)


class TestGVisor(IsolationContract):
    mount_options: ClassVar[set[str]] = {"nosuid"}  # `nodev` is not shown: there is no device of the host's to open

    test_an_agent_answers = StreamContract.test_an_agent_answers_and_runs_commands
    test_64_megabytes = StreamContract.test_64_megabytes_go_both_ways_unchanged
    test_a_kill = StreamContract.test_killed_from_outside_everyone_is_told
    test_the_end = StreamContract.test_the_end_of_the_stream_ends_the_workspace
    test_a_check = StreamContract.test_a_check_passes_where_a_workspace_can_start

    @pytest.fixture
    def image(self, with_gvisor: tuple[Docker, str]) -> str:
        return with_gvisor[1]

    @pytest.fixture
    def settings(self, with_gvisor: tuple[Docker, str]) -> DockerSettings:
        return DockerSettings(url=with_gvisor[0].host, runtime="runsc")

    async def test_it_has_no_privileges_and_can_gain_none(self, backend: Backend, order: Order) -> None:
        """Its kernel is not the host's, shows no such line as NoNewPrivs, and filters no calls to itself."""
        async with inside(backend, order) as connection:
            said, _ = await sh(connection, "cat /proc/self/status; dmesg | head -1")
            assert await sh(connection, "cp /bin/id /tmp/id && chmod 4755 /tmp/id && /tmp/id -u") == ("65532", 0)
        assert "Starting gVisor" in said
        status = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd"):
            assert int(status[kind], 16) == 0, kind

    async def test_processes_are_limited(self, backend: Backend, order: Order) -> None:
        """Its own threads count, and it does not survive that the host refuses it one: the whole workspace ends."""
        bomb = "i=0; while [ $i -lt 300 ]; do sleep 20 >/dev/null 2>&1 & i=$((i+1)); done; echo all"
        async with backend.workspace(order) as workspace, agent(workspace) as connection:
            with contextlib.suppress(asyncssh.Error):
                assert await sh(connection, bomb) == ("", None)
            async with asyncio.timeout(SECONDS):
                assert await workspace.wait_gone()

    @pytest.mark.parametrize(
        ("named", "said"), [("kata", "under the runtime 'kata'"), ("runhcs", "no runtime 'runhcs'; it has .*runsc")]
    )
    async def test_a_runtime_that_is_not_there_is_what_a_check_says(
        self, settings: DockerSettings, order: Order, named: str, said: str
    ) -> None:
        other = settings.model_copy(update={"runtime": named})
        async with DockerBackend.open(other, INSTANCE, agent_binary()) as opened:
            with pytest.raises(WorkspaceUnavailable, match=said):
                await opened.check(order.spec)
