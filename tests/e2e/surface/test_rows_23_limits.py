"""Rows 23 to 25: time, keys that are wrong, and parts that are down."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.e2e.surface.ground import ALONE, Ground
from tests.e2e.surface.runtimes import Runtime
from tests.e2e.world import ALICE, in_time, until

OpenGround = Callable[..., AbstractContextManager[Ground]]
EXPLAINED_SECONDS = 3.0


@pytest.mark.row(23)
def test_the_clients_keepalive_is_answered(ground: Ground) -> None:
    quiet = ground.ssh("sleep 4; echo alive", options=("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2"))
    assert (quiet.stdout, quiet.returncode) == (b"alive\n", 0)


@pytest.mark.row(23)
def test_a_frozen_client_is_dropped_and_its_workspace_with_it(own_ground: OpenGround) -> None:
    with own_ground(ssh={"keepalive_seconds": 1, "keepalive_count": 2}) as ground:
        with ground.terminal("echo up; sleep 300", login=ALONE) as terminal:
            terminal.wait_for("up")
            os.kill(terminal.process.pid, signal.SIGSTOP)
            try:
                frozen = time.monotonic()
                until(lambda: not ground.workspaces("alone"))
                assert time.monotonic() - frozen > 1, "not before its time"
            finally:
                os.kill(terminal.process.pid, signal.SIGCONT)
        ground.nothing_left()


@pytest.mark.row(23)
def test_whoever_does_not_log_in_is_let_go(own_ground: OpenGround) -> None:
    import socket

    with own_ground(ssh={"login_grace_seconds": 1}) as ground:
        with socket.create_connection(("127.0.0.1", ground.port), timeout=15) as silent:
            while silent.recv(4096):
                pass  # to the end of it
        assert ground.ssh("echo on").stdout == b"on\n"


@pytest.mark.row(23)
@pytest.mark.parametrize(
    ("target", "warned", "code"),
    [("idle", "this idle session ends in", "idle"), ("short", "longest duration in", "max_duration")],
)
def test_idle_and_total_limits_warn_on_the_terminal_and_end(
    ground: Ground, target: str, warned: str, code: str
) -> None:
    with ground.terminal("echo up; sleep 300", login=f"{ALICE}+{target}") as terminal:
        terminal.wait_for("up")
        terminal.wait_for(warned)
        assert terminal.process.poll() is None
        assert terminal.wait_end() == 254
        assert f"doorward: {code}:" in terminal.seen
        assert terminal.seen.index(warned) < terminal.seen.index(f"doorward: {code}:")
    ground.nothing_left(target=target)


@pytest.mark.row(24)
def test_a_wrong_key_is_a_plain_denial_at_once(ground: Ground, tmp_path: Path) -> None:
    key = tmp_path / "wrong"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    command = [str(key) if word == str(ground.site.directory / ALICE) else word for word in ground.ssh_command("true")]

    def denied() -> float:
        started = time.monotonic()
        ran = subprocess.run(command, capture_output=True, timeout=30, check=False)
        assert ran.returncode == 255
        assert b"Permission denied (" in ran.stderr
        assert b"doorward" not in ran.stderr, "nothing is given away"
        return time.monotonic() - started

    in_time(3, denied)


@pytest.mark.row(24)
def test_few_tries(ground: Ground, tmp_path: Path) -> None:
    keys = [tmp_path / str(number) for number in range(10)]
    for key in keys:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    wrong = [word for key in keys for word in ("-i", str(key))]
    good = str(ground.site.directory / ALICE)
    command = [wrong[1] if word == good else word for word in ground.ssh_command("true", options=wrong)]
    ran = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert ran.returncode == 255
    assert b"Too many authentication failures" in ran.stderr


@pytest.mark.row(24)
def test_who_they_are_but_may_not_are_told_why_and_what_to_do(ground: Ground) -> None:
    refused = ground.ssh("true", login=f"{ALICE}+elsewhere")
    assert refused.returncode == 254
    assert b"doorward: no_grant:" in refused.stderr
    assert b"what to do:" in refused.stderr


@pytest.mark.row(25)
def test_opa_not_answering_is_explained_in_time(ground: Ground) -> None:
    """OPA gone, lying or undefined; Vault; Docker; the disk: tests/e2e/test_fail_closed.py."""
    pid = ground.site.opa.process.pid  # type: ignore[attr-defined]  # a Place has one
    os.kill(pid, signal.SIGSTOP)
    try:
        _explained(ground, "policy_timeout", 255, ALONE)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ground.ssh("echo back").stdout == b"back\n"


@pytest.mark.row(25)
def test_an_image_that_is_not_there_is_explained_in_time(ground: Ground) -> None:
    _explained(ground, ground.runtime.no_image, 254, f"{ALICE}+missing", ground.runtime.no_image_seconds)
    ground.nothing_left(target="missing")


@pytest.mark.row(25)
def test_a_runtime_that_is_down_is_explained_in_time(own_ground: OpenGround, runtime: Runtime, tmp_path: Path) -> None:
    """The socket of an engine that is not there; an API server that is not; an agent that cannot be run."""
    with own_ground(broken={runtime.name: runtime.down(tmp_path)}) as ground:
        _explained(ground, "workspace_unavailable", 254, ALONE)


def _explained(ground: Ground, code: str, status: int, login: str, seconds: float = EXPLAINED_SECONDS) -> None:
    def told() -> float:
        started = time.monotonic()
        ran = ground.ssh("true", options=("-o", "LogLevel=INFO"), login=login)
        took = time.monotonic() - started
        assert ran.returncode == status, ran.stderr.decode()
        assert f"doorward: {code}:".encode() in ran.stderr
        assert b"what to do:" in ran.stderr
        return took

    in_time(seconds, told)
