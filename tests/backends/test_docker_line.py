"""The way past the engine: who may come through it, and what happens where nobody can."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.assets import agent_binary
from gateway.backends.docker.attach import Attachment
from gateway.backends.docker.backend import DockerBackend
from gateway.backends.docker.line import STALE_SECONDS, TARGET, Line, Lines
from gateway.contracts.backend import agent, another, inside, sh
from gateway.errors import WorkspaceUnavailable
from gateway.settings import DockerSettings
from tests.backends.test_docker import INSTANCE, order_for
from tests.stack.docker import Docker
from tests.stack.images import images

PASSES_THE_ENGINE = "docker_stream_passes_the_engine"
PERL = 'socket(my $s, AF_UNIX, SOCK_STREAM, 0); connect($s, sockaddr_un($ARGV[0])) or die "$!\\n"'


@pytest.fixture
def state(parts_dir: Path) -> Path:
    return parts_dir / "line-state"


@pytest.fixture
def line(state: Path) -> Iterator[Line]:
    made = Lines(state).new()
    assert made is not None
    yield made
    made.close()


def connecting(path: Path, **options: Any) -> str:
    """What a program of this machine is told that connects there; nothing when it may."""
    command = ["/usr/bin/perl", "-MSocket", "-e", PERL, str(path)]
    return str(subprocess.run(command, capture_output=True, text=True, cwd="/", **options).stderr).strip()


def test_another_user_of_the_machine_does_not_get_in(line: Line, state: Path) -> None:
    path = Path(line.mount()["Source"])
    assert connecting(path) == ""
    for folder in (state, state.parent):  # so that it is the lines' own folder that keeps them out
        folder.chmod(0o755)
    assert (state / "lines").stat().st_mode & 0o777 == 0o700
    if os.geteuid() == 0:
        assert connecting(path, user=65534, group=65534, extra_groups=[]) == "Permission denied"


async def test_whoever_came_is_sent_away_when_nobody_waits_for_them_any_more(state: Path) -> None:
    """At whichever turn of the loop the wait is cancelled: the agent is handed over, or it hears the end."""
    handed, lines = [], Lines(state)
    ours, engines = socket.socketpair()
    attached, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    attachment = Attachment(attached, "c", lambda _: None)
    for turns in range(12):
        line = lines.new()
        assert line is not None
        waiting = asyncio.ensure_future(lines.taken(line, attachment))
        await asyncio.sleep(0)
        with socket.socket(socket.AF_UNIX) as agents:
            agents.connect(line.mount()["Source"])
            agents.settimeout(10)
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            (came,) = await asyncio.gather(waiting, return_exceptions=True)
            handed.append(isinstance(came, socket.socket))
            if isinstance(came, socket.socket):
                came.close()
            with suppress(ConnectionResetError):  # it was still in the queue
                assert agents.recv(1) == b""
    attached.abort()
    engines.close()
    await asyncio.sleep(0)
    gc.collect()  # one that was only dropped is a warning, and that is an error here
    assert handed[0] is False
    assert handed[-1] is True


async def test_it_lets_in_one_and_is_gone(engine: Docker, state: Path) -> None:
    order = order_for(images(engine).debug, "line-one")
    async with (
        DockerBackend.open(DockerSettings(url=engine.host), INSTANCE, agent_binary(), state=state) as backend,
        backend.workspace(order) as workspace,
    ):
        assert len(list((state / "lines").iterdir())) == 1
        async with agent(workspace) as connection:
            assert list((state / "lines").iterdir()) == []
            said, _ = await sh(connection, f"perl -MSocket -e '{PERL}' {TARGET}")
            assert said == "Connection refused"
            _, status = await sh(connection, f"echo x > {TARGET}; rm -f {TARGET}")
            assert status != 0
            said, _ = await sh(connection, "ls -l /proc/1/fd")
            assert "Permission denied" in said


async def test_the_bytes_pass_it_and_the_engine_sees_none(engine: Docker, state: Path) -> None:
    order = order_for(images(engine).debug, "line-bytes")
    async with (
        DockerBackend.open(DockerSettings(url=engine.host), INSTANCE, agent_binary(), state=state) as backend,
        backend.workspace(order) as workspace,
    ):
        attachment = workspace._attachment  # type: ignore[attr-defined]
        attachment.stdout = lambda data: pytest.fail(f"{len(data)} bytes by the engine")
        async with agent(workspace) as connection:
            assert len((await sh(connection, "head -c 1000000 /dev/zero | base64"))[0]) > 1_000_000


async def test_the_lifeline_alone_ends_everything(engine: Docker, state: Path) -> None:
    order = order_for(images(engine).debug, "line-life")
    async with (
        DockerBackend.open(DockerSettings(url=engine.host), INSTANCE, agent_binary(), state=state) as backend,
        backend.workspace(order) as workspace,
        agent(workspace) as connection,
    ):
        workspace._attachment.abort()  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            await connection.wait_closed()
            assert await workspace.wait_gone()


async def test_an_engine_that_does_not_see_our_files_gets_the_stream_the_other_way(
    engine: Docker, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What an engine on another machine says, and one beside a gateway that is in a container itself."""
    there = {"Type": "bind", "Source": "/nowhere/line", "Target": TARGET, "ReadOnly": True}
    monkeypatch.setattr(Line, "mount", lambda self: there)
    await falls_back(engine, state, caplog)


async def test_containers_that_cannot_reach_it_get_the_stream_the_other_way(
    engine: Docker, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What an engine in a virtual machine shows of our folder: a file where nobody listens."""
    deaf = state / "deaf"
    state.mkdir(exist_ok=True)
    deaf.touch()
    there = {"Type": "bind", "Source": str(deaf), "Target": TARGET, "ReadOnly": True}
    monkeypatch.setattr(Line, "mount", lambda self: there)
    await falls_back(engine, state, caplog)


async def falls_back(engine: Docker, state: Path, caplog: pytest.LogCaptureFixture) -> None:
    order = order_for(images(engine).debug, "line-none")
    with caplog.at_level(logging.WARNING):
        async with DockerBackend.open(
            DockerSettings(url=engine.host), INSTANCE, agent_binary(), state=state
        ) as backend:
            for _ in range(2):
                began = time.monotonic()
                async with inside(backend, another(order)) as connection:
                    assert await sh(connection, "echo here") == ("here", 0)
                assert time.monotonic() - began < 9  # it is not waited for
    assert [record.message for record in caplog.records].count(PASSES_THE_ENGINE) == 1
    assert list((state / "lines").iterdir()) == []


async def test_a_workspace_that_ended_before_its_agent_came_is_said_at_once(
    engine: Docker, state: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "agent"
    broken.write_bytes(b"#!/bin/false\n")
    order = order_for(images(engine).debug, "line-broken")
    async with (
        DockerBackend.open(DockerSettings(url=engine.host), INSTANCE, broken, state=state) as backend,
        backend.workspace(order) as workspace,
    ):
        began = time.monotonic()
        with pytest.raises(WorkspaceUnavailable, match="has ended"):
            await workspace.create_connection(asyncio.Protocol)
        assert time.monotonic() - began < 9


def test_what_a_killed_gateway_left_is_removed_and_a_long_path_is_no_failure(state: Path) -> None:
    old, young = state / "lines" / "old", state / "lines" / "young"
    old.parent.mkdir(parents=True, exist_ok=True)
    for path in (old, young):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    os.utime(old, (0, time.time() - STALE_SECONDS - 1))
    made = Lines(state).new()
    assert made is not None
    made.close()
    assert [path.name for path in old.parent.iterdir()] == ["young"]
    young.unlink()
    assert Lines(state / ("x" * 100)).new() is None
