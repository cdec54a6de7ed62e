"""One gateway for each backend for the whole table; every row gets it as `ground`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.surface.ground import Ground, Place, Shared, reversing, standing
from tests.e2e.surface.runtimes import MARK, RUNTIMES, Runtime, reachable_directory
from tests.e2e.world import ALICE
from tests.stack import example
from tests.stack.opa import opa
from tests.stack.sshd import TAKEN, Sshd, machine

LATE = "sleep 65; echo late; exit 7"
OpenGround = Callable[..., AbstractContextManager[Ground]]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What no host can do is not asked of one."""
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    beyond = [item for item in ours if item.get_closest_marker("no_host") and _runtime_of(item) == "sshproxy"]
    if beyond:
        items[:] = [item for item in items if item not in beyond]
        config.hook.pytest_deselected(items=beyond)


def _runtime_of(item: pytest.Item) -> str:
    called = getattr(item, "callspec", None)
    return str(called.params.get("runtime", "")) if called else ""


@pytest.fixture(scope="session")
def echo() -> Iterator[int]:
    with reversing() as port:
        yield port


@pytest.fixture(scope="session")
def host_machine() -> Iterator[Sshd]:
    with reachable_directory() as directory, machine(directory, f"{TAKEN} {MARK}") as server:
        yield server


@pytest.fixture(scope="session", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    with reachable_directory() as directory:
        yield RUNTIMES[request.param](request, directory)


@pytest.fixture(scope="session")
def place(runtime: Runtime, parts_dir: Path) -> Iterator[Place]:
    """An OPA of the table's own: other tests empty theirs of grants."""
    directory = parts_dir / f"surface-{runtime.name}"
    directory.mkdir()
    with opa(directory / "opa") as server:
        server.put("grants", {})
        example.load(server, {}, {ALICE: example.ssh_key(directory)})
        yield Place(directory, server)


@pytest.fixture(scope="session")
def ground(runtime: Runtime, place: Place, echo: int) -> Iterator[Ground]:
    """The gateway that the rows share."""
    with standing(runtime, place, place.directory / "shared", echo) as started:
        late = started.ssh_command(LATE, login=f"{ALICE}+late")
        started.late = subprocess.Popen(late, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            yield started
        finally:
            started.late.kill()
            started.late.communicate()


@pytest.fixture
def own_ground(runtime: Runtime, place: Place, echo: int, tmp_path: Path) -> OpenGround:
    """`with own_ground(**settings) as ground`: a gateway that the test may stop, or that is set otherwise."""

    def opening(**changes: Any) -> AbstractContextManager[Ground]:
        return standing(runtime, place, tmp_path / "own", echo, **changes)

    return opening


@pytest.fixture(scope="module")
def shared(ground: Ground) -> Iterator[Shared]:
    """A connection to a workspace with tools, for rows that do not need one of their own."""
    with ground.master() as connection:
        yield connection
