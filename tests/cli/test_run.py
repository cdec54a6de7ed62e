"""`doorward run` where it cannot: the field or the folder, and what to do, never a traceback."""

from __future__ import annotations

import fcntl
import socket
from pathlib import Path

import pytest

from tests.cli.commands import doorward


@pytest.mark.parametrize("listen", ["2222", "nonsense", "127.0.0.1:65536", "127.0.0.1:99999"])
async def test_an_address_that_is_none_is_named_before_anything_is_started(tmp_path: Path, listen: str) -> None:
    ran = await doorward("run", "--state", tmp_path / "state", "--listen", listen)

    assert ran.status == 1
    assert "doorward: settings: ssh.listen: " in ran.err
    assert "what to do:" in ran.err
    assert not (tmp_path / "state").exists()


async def test_a_state_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    ran = await doorward("run", "--state", tmp_path / "state")

    assert ran.status == 1
    assert f"state_dir {tmp_path / 'state'} cannot be made" in ran.err
    assert "what to do: Name a folder" in ran.err


@pytest.mark.parametrize("name", ["lock", "opa/gateway.token.new"])
async def test_what_cannot_be_written_there_is_named(tmp_path: Path, name: str) -> None:
    """As on a disk that is full."""
    (tmp_path / name).mkdir(parents=True)
    ran = await doorward("run", "--state", tmp_path)

    assert ran.status == 1
    assert f"doorward: settings: {tmp_path} cannot be used: " in ran.err
    assert str(tmp_path / name) in ran.err
    assert "--state" in ran.err


async def test_a_second_one_in_the_same_folder_is_told_of_the_first(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = await doorward("run", "--state", tmp_path)

    assert ran.status == 1
    assert f"a gateway runs in {tmp_path} already" in ran.err
    assert "--state" in ran.err
    assert not (tmp_path / "opa").exists()


async def test_an_address_that_is_taken_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = await doorward("run", "--state", tmp_path, "--listen", listen)

    assert ran.status == 1
    assert f"ssh.listen: cannot listen on {listen}" in ran.err
    assert "a port that is free" in ran.err


async def test_no_docker_engine_is_told_as_that(tmp_path: Path) -> None:
    env = {"DOCKER_HOST": f"unix://{tmp_path}/no-engine.sock"}
    ran = await doorward("run", "--state", tmp_path, "--backend", "docker", "--listen", "127.0.0.1:0", env=env)

    assert ran.status == 1
    assert "no Docker engine answers" in ran.err
    assert "BACKEND=sandbox" in ran.err
