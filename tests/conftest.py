"""Fixtures of the whole suite: the real parts once a run, a gateway for each test that wants one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.world import ALICE, TARGET, Door, Site, settings_of, standing_site
from tests.stack import example
from tests.stack.opa import Opa, opa
from tests.stack.require import require

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
    require("docker", "images", "postgres")
    with standing_site(parts_dir, opa_server) as everything:
        yield everything


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
