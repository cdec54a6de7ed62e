"""Fixtures of the whole suite: the real parts once a run, a gateway for each test that wants one."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.world import ALICE, TARGET, Door, Site, settings_of, standing_site
from tests.policy.world import Asking, asking, inhabited, settings_for
from tests.stack import example
from tests.stack.cluster import Cluster
from tests.stack.cluster import cluster as started_cluster
from tests.stack.docker import Docker, docker
from tests.stack.keycloak import Keycloak, keycloak
from tests.stack.kinds import Kinds, all_kinds
from tests.stack.opa import Opa, opa
from tests.stack.require import require
from tests.waiting import connections_closed

OpenDoor = Callable[..., Any]
SHIPPED = Path(__file__).parents[1] / "backends" / "kubernetes"


@pytest.fixture(scope="session")
def parts_dir() -> Iterator[Path]:
    """A short path: sockets have 108 bytes for theirs."""
    with tempfile.TemporaryDirectory(prefix="dw-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def opa_server(parts_dir: Path) -> Iterator[Opa]:
    with opa(parts_dir / "opa") as server:
        yield server


@pytest.fixture(scope="module")
def world(opa_server: Opa) -> Iterator[Opa]:
    """OPA with our policies' people, targets and grants, for one module."""
    with inhabited(opa_server):
        yield opa_server


@pytest.fixture
async def asked(world: Opa, tmp_path: Path) -> AsyncIterator[Asking]:
    """A `Policy` that asks `world`, on record."""
    async with asking(settings_for(world), tmp_path / "audit.jsonl") as asking_it:
        yield asking_it


@pytest.fixture(scope="session")
def engine(parts_dir: Path) -> Iterator[Docker]:
    """A Docker engine, and the images can be had on it."""
    require("docker", "images")
    with docker(parts_dir / "docker") as there:
        yield there


@pytest.fixture
async def closed() -> AsyncIterator[None]:
    """For tests of a cluster, whose connections take a moment to end."""
    yield
    await connections_closed()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Kubernetes cluster with the namespace and the Role that we ship."""
    require("kubernetes", "images")
    with started_cluster() as there:
        for file in ("namespace.yaml", "role.yaml"):
            there.apply(SHIPPED / file)
        yield there


@pytest.fixture(scope="session")
def site(parts_dir: Path, opa_server: Opa, engine: Docker) -> Iterator[Site]:
    """Every real part."""
    require("postgres")
    with standing_site(parts_dir, opa_server, engine) as everything:
        yield everything


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kinds]:
    """Every kind of server that credentials can be for, and a Vault that issues them."""
    require("mariadb-install-db", "mysql", "redis-server", "redis-cli")
    with all_kinds(tmp_path_factory.mktemp("kinds")) as there:
        yield there


@pytest.fixture(scope="session")
def identity_provider(parts_dir: Path) -> Iterator[Keycloak]:
    """A real OpenID Connect provider."""
    require("keycloak")
    with keycloak(parts_dir / "keycloak") as server:
        yield server


@pytest.fixture
def open_door(site: Site, tmp_path: Path) -> Iterator[OpenDoor]:
    """`with open_door(**settings) as door`: a gateway with the example person and target, and no grant."""
    opened: list[Door] = []

    @contextmanager
    def opening(target: dict[str, Any] | None = None, **changes: Any) -> Iterator[Door]:
        site.opa.put("grants", {})
        keys = {ALICE: example.ssh_key(site.directory)}
        example.load(site.opa, {TARGET: target or site.target()}, keys)
        directory = tmp_path / f"gateway{len(opened)}"
        directory.mkdir()
        door = Door(site, directory)
        opened.append(door)
        door.start(settings_of(site, directory, **changes))
        try:
            yield door
        finally:
            door.stop()

    yield opening
    for door in opened:
        assert "Traceback" not in door.log.read_text(), door.log.read_text()[-3000:]


@pytest.fixture
def door(open_door: OpenDoor) -> Iterator[Door]:
    with open_door() as opened:
        yield opened
