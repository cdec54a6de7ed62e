"""Fixtures of the whole suite: the real parts once a run, a gateway for each test that wants one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.world import ALICE, TARGET, Door, Site
from tests.stack import example
from tests.stack.docker import docker
from tests.stack.images import images
from tests.stack.jaeger import jaeger
from tests.stack.opa import Opa, opa
from tests.stack.postgres import postgres
from tests.stack.require import require
from tests.stack.vault import vault

OpenDoor = Callable[..., Any]


@pytest.fixture(scope="session")
def parts_dir() -> Iterator[Path]:
    """A short path: sockets have 108 bytes for theirs."""
    with tempfile.TemporaryDirectory(prefix="dw-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def opa_server(parts_dir: Path) -> Iterator[Opa]:
    with opa(parts_dir / "opa") as server:
        yield server


@pytest.fixture(scope="session")
def site(parts_dir: Path, opa_server: Opa) -> Iterator[Site]:
    """Every real part."""
    require("docker", "postgres")
    with ExitStack() as stack:
        database = stack.enter_context(postgres(parts_dir / "pg"))
        issuer = stack.enter_context(vault(parts_dir / "vault", database))
        engine = stack.enter_context(docker(parts_dir / "docker"))
        traces = stack.enter_context(jaeger(parts_dir / "jaeger"))
        yield Site(opa_server, database, issuer, engine, images(engine), traces, parts_dir)


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


def settings_of(site: Site, directory: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a gateway on the site's parts; `changes` are merged in."""
    settings: dict[str, Any] = {
        "state_dir": str(directory / "state"),
        "instance": "test",
        "ssh": {"listen": "127.0.0.1:0", "drain_seconds": 1},
        "policy": {
            "url": site.opa.url, "token": {"file": str(site.opa.token_files["gateway"])}, "lint_seconds": 1,
        },
        "door": {
            "listen": "127.0.0.1:0",
            "clients": {"ticketing": {"token": {"file": str(example.door_token(site.directory))}}},
        },
        "credentials": {"vault": {"url": site.vault.url, "token": {"file": str(site.vault.gateway_token_file)}}},
        "backends": {"docker": {"url": site.docker.host}},
        "telemetry": {"exporter": "otlp_http", "endpoint": site.jaeger.otlp_http},
    }  # fmt: skip
    return merged(settings, changes)


def merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {
        **tree,
        **{
            key: merged(tree[key], value) if isinstance(value, dict) and isinstance(tree.get(key), dict) else value
            for key, value in changes.items()
        },
    }
