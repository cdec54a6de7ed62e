"""What a stock client finds behind the door: one relay of channels to the agent, whatever the image."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import asyncssh
import pytest

from tests.conftest import OpenDoor
from tests.e2e.world import ALICE, Door, Site, until


@pytest.fixture
def granted(door: Door) -> Door:
    door.grant()
    return door


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_exit_status_propagates(granted: Door, status: int) -> None:
    assert granted.ssh(f"exit {status}").returncode == status


def test_a_command_that_is_not_there_is_127_with_the_shells_message(granted: Door) -> None:
    missing = granted.ssh("/no/such/program")
    assert missing.returncode == 127
    assert b"/no/such/program" in missing.stderr


async def test_a_death_by_signal_is_exit_signal_and_signals_reach_the_program(granted: Door) -> None:
    async with connected(granted) as connection:
        process = await connection.create_process(
            "trap 'echo got it; exit 5' USR1; echo up; while :; do sleep 0.01; done"
        )
        assert await process.stdout.readline() == "up\n"
        process.send_signal("USR1")
        assert await process.stdout.readline() == "got it\n"
        assert (await process.wait()).exit_status == 5

        killed = await connection.run("kill -TERM $$")
        assert killed.exit_signal is not None
        assert killed.exit_signal[0] == "TERM"


def test_stdout_and_stderr_are_apart_and_merged_on_a_terminal(granted: Door) -> None:
    apart = granted.ssh("echo out; echo err >&2")
    assert (apart.stdout, apart.stderr) == (b"out\n", b"err\n")
    with granted.terminal("echo out; echo err >&2") as terminal:
        assert terminal.wait_end() == 0
        assert "out\r\nerr\r\n" in terminal.seen


def test_a_command_is_interpreted_by_a_shell_byte_for_byte(granted: Door) -> None:
    command = "printf '%s|' \"a  b\" 'c\nd' $HOME \"é\" && true | cat; echo $((1+1)) > /tmp/x && cat /tmp/*"
    assert granted.ssh(command).stdout == "a  b|c\nd|/home/debug|é|2\n".encode()
    assert granted.ssh("/bin/echo a b | tr a z; echo $?").stdout == b"z b\n0\n"


def test_bytes_survive_both_ways_with_half_close(granted: Door) -> None:
    data = random.Random(7).randbytes(20 * 2**20) + bytes(range(256)) * 16
    echoed = granted.ssh("cat", stdin=data)
    assert hashlib.sha256(echoed.stdout).digest() == hashlib.sha256(data).digest()
    assert granted.ssh("sort | md5sum", stdin=b"b\na\n").stdout.startswith(b"dd8c6a395b5dd36c56d23275028f526c")


def test_output_after_stdin_has_ended_arrives(granted: Door) -> None:
    late = granted.ssh("cat >/dev/null; sleep 1; echo late; exit 3")
    assert (late.stdout, late.returncode) == (b"late\n", 3)


def test_a_client_that_closes_early_ends_the_program(granted: Door, site: Site) -> None:
    command = " ".join(f"'{word}'" for word in granted.ssh_command("yes"))
    ended = subprocess.run(["bash", "-c", f"{command} | head -1"], capture_output=True, timeout=15, check=True)
    assert ended.stdout == b"y\n"
    site.nothing_left()


def test_terminal_type_size_and_resize(granted: Door) -> None:
    with granted.terminal() as terminal:
        terminal.resize(33, 101)
        terminal.wait_for("$ ")
        terminal.type("stty size; echo $TERM\n")
        terminal.wait_for("33 101")
        terminal.resize(44, 122)
        terminal.type("sleep 0.2; stty size\n")
        terminal.wait_for("44 122")
        terminal.type("echo a'sleep'; sleep 100\n")
        terminal.wait_for("asleep")
        terminal.type("\x03")
        terminal.wait_for("^C")
        terminal.type("echo int'errupted'\n")
        terminal.wait_for("interrupted")
        terminal.type("\x04")
        assert terminal.wait_end() in (0, 130)


def test_the_environment_is_as_sshd_sets_it_and_policys_own_cannot_be_overridden(granted: Door) -> None:
    asked = ("-o", "SetEnv=LC_X=mine LD_PRELOAD=/x PGSERVICE=mine")
    seen = granted.ssh("env", options=asked).stdout.decode()
    found = dict(line.split("=", 1) for line in seen.splitlines() if "=" in line)
    assert found["LC_X"] == "mine"
    assert "LD_PRELOAD" not in found
    assert found["PGSERVICE"] == "orders"
    assert found["USER"] == found["LOGNAME"] == "debug"
    assert found["HOME"] == "/home/debug"
    assert found["SSH_CONNECTION"].endswith(f" 127.0.0.1 {granted.port}")
    assert found["SSH_CLIENT"].startswith("127.0.0.1 ")


@pytest.mark.parametrize("legacy", [(), ("-O",)])
def test_scp_both_ways(granted: Door, tmp_path: Path, legacy: tuple[str, ...]) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "up").write_bytes(data)
    # Up and down in one connection: what was put dies with its workspace.
    with master(granted, tmp_path) as options:
        scp = ["scp", "-q", *legacy, *options]
        subprocess.run([*scp, str(tmp_path / "up"), f"{ALICE}@127.0.0.1:/tmp/there"], check=True, timeout=30)
        subprocess.run([*scp, f"{ALICE}@127.0.0.1:/tmp/there", str(tmp_path / "down")], check=True, timeout=30)
    assert (tmp_path / "down").read_bytes() == data


def test_sftp(granted: Door, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    (tmp_path / "up").write_bytes(data)
    batch = f"put {tmp_path}/up a\nrename a b\nchmod 600 b\nsymlink b c\nls -l\nget c {tmp_path}/down\nrm b\n"
    ran = subprocess.run(
        ["sftp", "-q", "-b", "-", *client(granted), f"{ALICE}@127.0.0.1"],
        input=batch, text=True, capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "-rw-------" in ran.stdout
    assert (tmp_path / "down").read_bytes() == data


def test_channels_of_one_connection_share_one_workspace(granted: Door, site: Site, tmp_path: Path) -> None:
    with master(granted, tmp_path) as options:
        ssh = ["ssh", *options, f"{ALICE}@127.0.0.1"]
        running = [subprocess.Popen([*ssh, f"echo {n} >> /tmp/seen; cat /etc/hostname"]) for n in range(8)]
        assert [process.wait(20) for process in running] == [0] * 8
        seen = subprocess.run([*ssh, "sort /tmp/seen"], capture_output=True, text=True, timeout=10, check=True).stdout
        assert seen.split() == [str(n) for n in range(8)]
        assert len(site.containers()) == 1
    site.nothing_left()


def test_a_forward_that_is_permitted_works_and_another_is_prohibited_while_the_session_goes_on(
    granted: Door, site: Site, tmp_path: Path
) -> None:
    [good, bad] = free_ports(2)
    forwards = ("-L", f"{good}:orders-db:5432", "-L", f"{bad}:169.254.169.254:80")
    with granted.terminal("echo up; sleep 60", options=("-tt", "-o", "LogLevel=INFO", *forwards)) as terminal:
        terminal.wait_for("up")
        started = subprocess.run(
            ["psql", "-qAt", "-h", "127.0.0.1", "-p", str(good), "-U", "nobody", "-w", "-c", "select 1", "orders"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
        assert "no password supplied" in started.stderr or "authentication failed" in started.stderr
        with socket.create_connection(("127.0.0.1", bad)) as refused:
            assert refused.recv(1) == b""
        terminal.wait_for("administratively prohibited")
        assert terminal.process.poll() is None
    forwarded = [r for r in granted.audit("request") if r["input"]["request"]["kind"] == "direct-tcpip"]
    assert {r["outcome"] for r in forwarded} == {"allow", "deny"}


def test_remote_forward_x11_agent_and_unknown_subsystem_are_refused_and_the_session_goes_on(granted: Door) -> None:
    port = free_ports(1)[0]
    ran = granted.ssh("echo on", options=("-R", f"0:127.0.0.1:{port}", "-o", "ExitOnForwardFailure=no"))
    assert (ran.returncode, ran.stdout) == (0, b"on\n")
    assert granted.ssh("echo on", options=("-A",)).stdout == b"on\n"
    refused = granted.ssh("netconf", options=("-s",))
    assert refused.returncode == 254
    kinds = {r["input"]["request"]["kind"]: r["outcome"] for r in granted.audit("request")}
    assert kinds["tcpip-forward"] == "deny"
    assert kinds["subsystem"] == "deny"


def test_an_image_without_a_shell_serves_sftp_and_forwards(open_door: OpenDoor, site: Site, tmp_path: Path) -> None:
    with open_door(target=site.target(image=site.images.noshell)) as door:
        door.grant()
        (tmp_path / "up").write_bytes(b"content")
        with master(door, tmp_path) as options:
            scp = ["scp", "-q", *options]
            subprocess.run([*scp, str(tmp_path / "up"), f"{ALICE}@127.0.0.1:/tmp/there"], check=True, timeout=30)
            subprocess.run([*scp, f"{ALICE}@127.0.0.1:/tmp/there", str(tmp_path / "down")], check=True, timeout=30)
        assert (tmp_path / "down").read_bytes() == b"content"
        command = door.ssh("true")
        assert command.returncode == 127
        assert b"no shell" in command.stderr


def test_an_image_with_only_bin_sh_works_for_shell_exec_and_signals(open_door: OpenDoor, site: Site) -> None:
    with open_door(target=site.target(image=site.images.shonly)) as door:
        door.grant()
        assert door.ssh("echo $0 $HOME").stdout == b"sh /home/debug\n"
        with door.terminal() as terminal:
            terminal.wait_for("$ ")
            terminal.type("exit 9\n")
            assert terminal.wait_end() == 9


def test_policy_that_refuses_a_shell_shows_why_and_scp_still_works(
    open_door: OpenDoor, site: Site, tmp_path: Path
) -> None:
    allow = {**site.target()["allow"], "shell": False, "exec": False}
    with open_door(target=site.target(allow=allow)) as door:
        door.grant()
        refused = door.ssh("id")
        assert refused.returncode == 254
        assert b"doorward: " in refused.stderr
        assert b"decision " in refused.stderr
        (tmp_path / "up").write_bytes(b"x")
        subprocess.run(
            ["scp", "-q", *client(door), str(tmp_path / "up"), f"{ALICE}@127.0.0.1:/tmp/x"], check=True, timeout=30
        )


async def test_a_slow_reader_loses_nothing_and_the_gateway_keeps_little(granted: Door) -> None:
    async with connected(granted) as connection:
        process = await connection.create_process("head -c 100000000 /dev/zero | tr '\\0' x", encoding=None)
        before = resident(granted.process.pid)
        # Nobody reads: the window fills, and the program is held, not buffered.
        until(lambda: settled(granted), 20)
        assert resident(granted.process.pid) - before < 40 * 2**20
        assert len(await process.stdout.read()) == 100_000_000


def test_a_background_job_keeps_nothing_alive(granted: Door, site: Site) -> None:
    started = time.monotonic()
    assert granted.ssh("sleep 300 & echo done").stdout == b"done\n"
    assert time.monotonic() - started < 5
    site.nothing_left()


def test_a_workspace_killed_from_outside_gives_the_client_a_status_at_once(granted: Door, site: Site) -> None:
    with granted.terminal("echo up; sleep 300") as terminal:
        terminal.wait_for("up")
        site.docker.remove_workspaces()
        assert terminal.wait_end(5) != 0
    site.nothing_left()


def client(door: Door) -> list[str]:
    return ["-F", "none", "-P", str(door.port), "-i", str(door.site.directory / ALICE), *door.client_options()]


@contextmanager
def master(door: Door, directory: Path) -> Iterator[list[str]]:
    """Options of clients that share one connection."""
    path = Path("/tmp") / f"dw-mux-{os.getpid()}-{door.port}"
    command = door.ssh_command(options=("-M", "-N", "-S", str(path)))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        until(path.exists)
        yield ["-F", "none", "-o", f"ControlPath={path}", "-o", "ControlMaster=no"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def connected(door: Door) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
    return asyncssh.connect(
        "127.0.0.1",
        door.port,
        username=ALICE,
        client_keys=[str(door.site.directory / ALICE)],
        known_hosts=None,
        config=[],
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


_last = {"cpu": -1.0, "since": 0.0}


def settled(door: Door) -> bool:
    """Whether the gateway has done nothing to speak of for half a second."""
    fields = Path(f"/proc/{door.process.pid}/stat").read_text().rpartition(")")[2].split()
    cpu = float(fields[11]) + float(fields[12])
    if cpu - _last["cpu"] > 2 or _last["cpu"] < 0:
        _last.update(cpu=cpu, since=time.monotonic())
    return time.monotonic() - _last["since"] > 0.5
