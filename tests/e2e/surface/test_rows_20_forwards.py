"""Rows 20 to 22: forwards in both directions, over TCP and Unix sockets, X11 and the key agent."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.surface.ground import INSIDE, NOBODY, Ground, Shared, ask, connect
from tests.ssh.openssh import X_CLIENT, KeyAgent, x_server
from tests.stack.process import free_port

AGENT = ("-A", "-o", "IdentityAgent=SSH_AUTH_SOCK")


@contextmanager
def forwarding(ground: Ground, *options: str, target: str = "plain") -> Iterator[Shared]:
    with ground.master(target, *options) as connection:
        yield connection


def to_echo(ground: Ground) -> str:
    host, port = ground.echo
    return f"{host}:{port}"


@pytest.mark.row(20)
def test_many_connections_at_once_each_with_its_half_close(ground: Ground) -> None:
    port = free_port()
    with forwarding(ground, "-L", f"{port}:{to_echo(ground)}") as connection:
        said = [os.urandom(300_000) + bytes([number]) for number in range(20)]
        with ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(lambda one: ask(connect(port), one), said))
        assert answers == [one[::-1] for one in said]
        assert connection.out("echo on") == b"on\n"


@pytest.mark.row(20)
def test_a_dynamic_forward(ground: Ground) -> None:
    port = free_port()
    with forwarding(ground, "-D", str(port)):
        assert ask(through_socks(port, *ground.echo), b"stressed") == b"desserts"


def through_socks(port: int, host: str, to: int) -> socket.socket:
    """SOCKS 5, by name, without authentication (RFC 1928)."""
    proxy = connect(port)
    proxy.sendall(b"\x05\x01\x00")
    assert proxy.recv(2) == b"\x05\x00"
    proxy.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + struct.pack(">H", to))
    answer = proxy.recv(10)
    assert answer[1] == 0, answer
    return proxy


@pytest.mark.row(20)
def test_a_closed_port_is_connect_failed_and_the_session_goes_on(ground: Ground) -> None:
    refused = ground.ssh(options=("-o", "LogLevel=INFO", "-W", f"127.0.0.1:{NOBODY}"))
    assert b"connect failed" in refused.stderr
    assert b"prohibited" not in refused.stderr


@pytest.mark.row(20)
@pytest.mark.parametrize("asked", [0, INSIDE])
def test_a_listener_inside_is_told_its_port_and_ends_when_it_is_cancelled(
    ground: Ground, echo: int, asked: int
) -> None:
    with ground.master() as connection:
        forward = ("-R", f"{asked}:127.0.0.1:{echo}")
        granted = subprocess.run(
            connection.command(options=("-O", "forward", *forward)), capture_output=True, timeout=30, check=True
        )
        port = int(re.findall(rb"\d+", granted.stdout)[-1]) if asked == 0 else asked
        # bash's own, where the image has bash: half-closed by the end of the subshell's output.
        reached = f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached"
        assert connection.out(f"bash -c '{reached}'") == b"reached\n"
        subprocess.run(
            connection.command(options=("-O", "cancel", *forward)), capture_output=True, timeout=30, check=True
        )
        assert connection.ssh(f"bash -c '{reached}'").returncode != 0


@pytest.mark.row(20)
def test_unix_sockets_at_both_ends(ground: Ground, tmp_path: Path) -> None:
    with KeyAgent(Path(os.path.relpath(tmp_path)) if len(str(tmp_path)) > 80 else tmp_path) as env:
        here = f"/tmp/dw-{os.getpid()}.sock"
        options = ("-R", f"/tmp/back.sock:{env['SSH_AUTH_SOCK']}", "-L", f"{here}:/tmp/there.sock")
        with forwarding(ground, *options) as connection:
            assert b"(ED25519)" in connection.out("SSH_AUTH_SOCK=/tmp/back.sock ssh-add -l")
            connection.out("ssh-agent -a /tmp/there.sock > /dev/null")
            asked = subprocess.run(
                ["ssh-add", "-l"],
                env={**os.environ, "SSH_AUTH_SOCK": here},
                capture_output=True,
                timeout=30,
                check=False,
            )
            assert b"no identities" in asked.stdout
        Path(here).unlink(missing_ok=True)


@pytest.mark.row(20)
@pytest.mark.no_host
def test_an_image_with_nothing_at_all_serves_forwards(ground: Ground) -> None:
    port = free_port()
    with forwarding(ground, "-L", f"{port}:{to_echo(ground)}", target="noshell"):
        assert ask(connect(port), b"stressed") == b"desserts"


@pytest.mark.row(21)
def test_a_destination_that_policy_refuses_is_prohibited_and_the_session_goes_on(ground: Ground) -> None:
    good, bad = free_port(), free_port()
    forwards = ("-L", f"{good}:{to_echo(ground)}", "-L", f"{bad}:169.254.169.254:80")
    with ground.terminal("echo up; cat", options=("-tt", "-o", "LogLevel=INFO", *forwards)) as terminal:
        terminal.wait_for("up")
        with connect(bad) as refused:
            assert refused.recv(1) == b""
        terminal.wait_for("administratively prohibited")
        assert ask(connect(good), b"stressed") == b"desserts"
        terminal.type("still here\n")
        terminal.wait_for("still here")
    outcomes = {
        (asked["host"], record["outcome"])
        for record in ground.audit("request")
        if (asked := record["input"]["request"])["kind"] == "direct-tcpip"
    }
    assert {(ground.echo[0], "allow"), ("169.254.169.254", "deny")} <= outcomes


@pytest.mark.row(21)
def test_whatever_is_refused_the_command_runs(ground: Ground, tmp_path: Path) -> None:
    with KeyAgent(tmp_path) as env:
        wishes = (*AGENT, "-X", "-R", "0:127.0.0.1:9", "-R", "/tmp/x:/tmp/y", "-o", "XAuthLocation=/nonexistent")
        command = ground.ssh_command("echo on; ssh-add -l", options=wishes, login="alice+walled")
        ran = subprocess.run(
            command, env={**env, "DISPLAY": "127.0.0.1:1"}, capture_output=True, timeout=30, check=False
        )
        assert ran.stdout.startswith(b"on\n")
        assert b"ED25519" not in ran.stdout
    kinds = {
        record["input"]["request"]["kind"]: record["outcome"]
        for record in ground.audit("request")
        if record["target"] == "walled"
    }
    for kind in ("auth-agent-req@openssh.com", "x11-req", "tcpip-forward", "streamlocal-forward@openssh.com"):
        assert kinds[kind] == "deny"


@pytest.mark.row(22)
def test_the_key_agent_is_there_where_policy_allows_it(ground: Ground, tmp_path: Path) -> None:
    with KeyAgent(tmp_path) as env:
        command = ground.ssh_command("ssh-add -l", options=AGENT)
        listed = subprocess.run(command, env=env, capture_output=True, timeout=30, check=False)
        assert b"(ED25519)" in listed.stdout, listed.stderr
        without = subprocess.run(
            ground.ssh_command("echo ${SSH_AUTH_SOCK-none}"), env=env, capture_output=True, timeout=30, check=False
        )
        assert without.stdout == b"none\n"


@pytest.mark.row(22)
async def test_a_display_is_there_with_its_cookie(ground: Ground) -> None:
    async with x_server() as (display, seen):
        command = ground.ssh_command(X_CLIENT, options=("-X", "-o", "XAuthLocation=/nonexistent"))
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, "DISPLAY": display}, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, error = await asyncio.wait_for(process.communicate(), 30)
        assert out == b"hello\n", error
        assert len(seen) == 1
