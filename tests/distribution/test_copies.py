"""Two gateways with an OPA each: what is written at the source's door holds at the copy's, and what the copy does not
hear, it does not judge by for long."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from gateway import assets
from tests.distribution.opal import Opal, packages
from tests.distribution.opas import COPY, prepared, start
from tests.distribution.publisher import Publisher, publisher, serving, token_file
from tests.door.engineer import connected, granted
from tests.door.running import Running, running
from tests.fakes import ProcessBackend
from tests.policy.world import ALICE, grant
from tests.stack.opa import Opa
from tests.stack.process import Processes
from tests.stack.process import Running as Process
from tests.waiting import eventually

USABLE_SECONDS = 15
PATIENCE = 60
WRITES = 10

pytestmark = pytest.mark.slow


@dataclass
class World:
    """The source, its copy, and OPAL between them."""

    site: Publisher
    url: str
    directory: Path
    source: Opa
    copy: Opa
    copy_processes: Processes
    opal: Opal
    server: Process
    client: Process

    def restart_copy(self) -> None:
        self.copy.process.end()
        self.copy = _start_copy(self.site, self.url, self.directory, self.copy_processes, _port(self.copy))


def _port(opa: Opa) -> int:
    return int(opa.url.rpartition(":")[2])


def _sets(directory: Path) -> dict[str, str | int]:
    return {"services.bundles.credentials.bearer.token_path": str(token_file(directory))}


def _start_copy(site: Publisher, url: str, directory: Path, processes: Processes, port: int = 0) -> Opa:
    return start(processes, COPY, site.public_key, url, _sets(directory), port=port)


@pytest.fixture(scope="module", autouse=True)
def fetched() -> None:
    """Not within the time of a test."""
    packages()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("copies")
    parts = {name: Processes(directory / name) for name in ("source", "copy", "opal")}
    try:
        with publisher(directory) as site, serving(site) as url:
            site.publish("p1")
            site.publish_tokens(prepared(parts["source"].directory))
            for token in parts["source"].directory.glob("opa-*.token"):
                shutil.copy(token, parts["copy"].directory)
            source = start(parts["source"], "http.yaml", site.public_key, url, _sets(directory))
            copy = _start_copy(site, url, directory, parts["copy"])
            opal = Opal(parts["opal"], source, copy, USABLE_SECONDS)
            opal.prepare()
            server, client = opal.start_server(), opal.start_client()
            yield World(site, url, directory, source, copy, parts["copy"], opal, server, client)
    finally:
        for processes in reversed(parts.values()):
            processes.end()


@dataclass(frozen=True)
class Doors:
    """`written` is the gateway at the source, `other` the one at the copy."""

    written: Running
    other: Running


@pytest.fixture
async def doors(world: World, tmp_path: Path) -> AsyncIterator[Doors]:
    (tmp_path / "other").mkdir()
    backends = [ProcessBackend(assets.agent_binary())]
    async with (
        granted(tmp_path, world.source) as written,
        running(tmp_path / "other", world.copy, backends=backends) as other,
    ):
        assert await eventually(lambda: lets_in(other), PATIENCE)
        yield Doors(written, other)


async def lets_in(door: Running) -> bool:
    try:
        async with connected(door) as connection:
            return bool((await connection.run("true")).exit_status == 0)
    except asyncssh.PermissionDenied:
        return False  # the copy knows nobody yet


async def test_a_grant_written_at_one_door_is_usable_and_ends_at_the_other(doors: Doors) -> None:
    usable: list[float] = []
    ended: list[float] = []
    await doors.written.http.delete(f"/v1/data/grants/{ALICE}/INC-1")
    for number in range(WRITES):
        assert await eventually(lambda: refused(doors.other), PATIENCE)
        told = time.monotonic()
        assert (await doors.written.put(f"{ALICE}/T-{number}", grant())).status_code == 204
        assert await eventually(lambda: lets_in(doors.other), PATIENCE)
        usable.append(time.monotonic() - told)
        async with connected(doors.other) as connection:
            process = await connection.create_process("echo up; cat")
            assert await process.stdout.readline() == "up\n"
            told = time.monotonic()
            assert (await doors.written.http.delete(f"/v1/data/grants/{ALICE}/T-{number}")).status_code == 204
            completed = await process.wait()
            ended.append(time.monotonic() - told)
            assert (completed.exit_status, "withdrawn" in str(completed.stderr)) == (254, True)

    for what, seconds in (("usable", sorted(usable)), ("ended", sorted(ended))):
        print(f"{what} at the other door after p50 {seconds[len(seconds) // 2]:.2f} s, longest {seconds[-1]:.2f} s,"
              f" of {len(seconds)}")  # fmt: skip


async def refused(door: Running) -> bool:
    return not await lets_in(door)


async def test_nothing_is_written_at_the_copys_door(doors: Doors) -> None:
    answer = await doors.other.put(f"{ALICE}/T-1", grant())
    assert answer.status_code == 403
    assert [error["code"] for error in answer.json()["errors"]] == ["copy_only"]


async def test_a_copy_that_starts_again_has_everything_again(world: World, doors: Doors) -> None:
    world.restart_copy()
    assert await eventually(lambda: lets_in(doors.other), PATIENCE)


async def test_without_the_opal_server_copying_goes_on(world: World, doors: Doors) -> None:
    world.server.end()
    try:
        await doors.written.http.delete(f"/v1/data/grants/{ALICE}/INC-1")
        assert await eventually(lambda: refused(doors.other), PATIENCE)
        assert (await doors.written.put(f"{ALICE}/INC-1", grant())).status_code == 204
        assert await eventually(lambda: lets_in(doors.other), PATIENCE)
    finally:
        world.server = world.opal.start_server()


async def test_a_copy_that_hears_nothing_is_not_judged_by_for_long(world: World, doors: Doors) -> None:
    """What was deleted meanwhile ends too, by then."""
    async with connected(doors.other) as connection:
        process = await connection.create_process("echo up; cat")
        assert await process.stdout.readline() == "up\n"
        world.client.end()
        told = time.monotonic()
        try:
            await doors.written.http.delete(f"/v1/data/grants/{ALICE}/INC-1")
            completed = await process.wait()
            took = time.monotonic() - told
            assert (completed.exit_status, "not heard for too long" in str(completed.stderr)) == (254, True)
            assert not await lets_in(doors.other)
        finally:
            world.client = world.opal.start_client()

    print(f"the session on a deleted grant lived {took:.2f} s, with a copy usable for {USABLE_SECONDS} s")
    assert (await doors.written.put(f"{ALICE}/INC-1", grant())).status_code == 204
    assert await eventually(lambda: lets_in(doors.other), PATIENCE)
