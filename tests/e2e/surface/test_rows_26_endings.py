"""Rows 26 to 28: every way out, and what is left after it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.e2e.surface.ground import ALONE, Ground
from tests.e2e.world import in_time, until

OpenGround = Callable[..., AbstractContextManager[Ground]]


@pytest.mark.row(26)
def test_a_clean_exit_removes_the_workspace_within_a_second(ground: Ground) -> None:
    def ending() -> float:
        assert ground.ssh("true", login=ALONE).returncode == 0
        ended = time.monotonic()
        ground.nothing_left()
        return time.monotonic() - ended

    in_time(ground.runtime.removal_seconds, ending)


@pytest.mark.row(26)
@pytest.mark.parametrize("way", ["killed", "escape", "closed"])
def test_a_client_that_goes_away_leaves_nothing(ground: Ground, way: str) -> None:
    with ground.terminal("trap '' HUP; echo up; while :; do sleep 1; done", login=ALONE) as terminal:
        terminal.wait_for("up")
        assert ground.workspaces("alone")
        if way == "killed":
            terminal.process.kill()
        elif way == "escape":
            terminal.type("\n~.")
        else:
            terminal.process.send_signal(signal.SIGHUP)  # as when the window is closed
        assert terminal.process.wait(30) != 0
        ground.nothing_left()


@pytest.mark.row(27)
@pytest.mark.parametrize(
    "options",
    [pytest.param((), id="command", marks=pytest.mark.no_host), pytest.param(("-tt",), id="terminal")],
)
def test_a_background_job_keeps_nothing_alive(ground: Ground, options: tuple[str, ...]) -> None:
    started = time.monotonic()
    ran = ground.ssh("sleep 300 & echo done", options=options, login=ALONE)
    assert ran.stdout.rstrip() == b"done"
    assert ran.returncode == 0
    assert time.monotonic() - started < 10
    ground.nothing_left()


@pytest.mark.row(27)
def test_a_background_job_without_a_hold_on_the_output_lives_while_the_connection_does(ground: Ground) -> None:
    with ground.master("alone") as connection:
        connection.out("(sleep 0.5; echo kept > /tmp/kept) > /dev/null 2>&1 &")
        until(lambda: connection.ssh("cat /tmp/kept").stdout == b"kept\n")
    ground.nothing_left()


@pytest.mark.row(27)
def test_a_workspace_killed_from_outside_gives_a_status_at_once(ground: Ground) -> None:
    with ground.terminal("echo up; sleep 300", login=ALONE) as terminal:
        terminal.wait_for("up")
        ground.runtime.kill(f"{ground.mark}-alone")
        assert terminal.wait_end() == 254
        assert "doorward: workspace_gone:" in terminal.seen
    ground.nothing_left()


@pytest.mark.row(28)
def test_sigterm_of_the_gateway_drains_then_ends_with_a_message(own_ground: OpenGround) -> None:
    with own_ground(ssh={"drain_seconds": 4}) as ground:
        short = subprocess.Popen(
            ground.ssh_command("echo up; read line; echo in time; exit 5", login=ALONE),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert short.stdout is not None
        assert short.stdout.readline() == b"up\n"
        with ground.terminal("echo up; sleep 300", login=ALONE) as terminal:
            terminal.wait_for("up")
            ground.process.send_signal(signal.SIGTERM)
            terminal.wait_for("this session ends in")
            assert ground.ssh("echo new").returncode == 255, "no new connections"
            assert short.communicate(b"\n", timeout=30)[0] == b"in time\n"
            assert short.returncode == 5
            assert terminal.wait_end() == 254
            assert "doorward: gateway_shutdown:" in terminal.seen
        assert ground.process.wait(20) == 0
        ground.nothing_left()


@pytest.mark.row(28)
def test_sigkill_of_the_gateway_leaves_nothing_and_it_starts_again(own_ground: OpenGround) -> None:
    with own_ground() as ground:
        with ground.terminal("trap '' HUP TERM; echo up; while :; do sleep 1; done", login=ALONE) as terminal:
            terminal.wait_for("up")
            ground.stop(signal.SIGKILL)
            assert terminal.wait_end() == 255
            ground.nothing_left()
        ground.start_again()
        assert ground.ssh("echo back", login=ALONE).stdout == b"back\n"
        assert ground.doorward("audit", "verify").returncode == 0
        ground.nothing_left()
