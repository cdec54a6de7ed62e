"""Rows 29 to 32, and the long half of row 12: small images, forced commands, a thousand connections, algorithms."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.surface.ground import Ground
from tests.e2e.surface.test_rows_11_streams import MEGABYTE, resident
from tests.e2e.world import ALICE, until

CONNECTIONS = {"docker": 150, "kubernetes": 50, "sandbox": 1000, "sshproxy": 1000}
"""A container takes half a second of this machine, whatever leaks: a thousand connections are the sandbox's to show."""
AT_ONCE = 8


@pytest.mark.row(29)
@pytest.mark.no_host
def test_an_image_with_nothing_but_a_shell_works(ground: Ground) -> None:
    login = f"{ALICE}+shonly"
    assert ground.ssh("ls /bin; echo $0 $HOME; exit 3", login=login).stdout.split() == [b"sh", b"sh", b"/home/debug"]
    missing = ground.ssh("nothing", login=login)
    assert missing.returncode == 127
    assert b"not found" in missing.stderr
    with ground.terminal(login=login) as terminal:
        terminal.wait_for("$ ")
        terminal.type("echo r''eady; sleep 100\n")
        terminal.wait_for("ready\r\n")
        terminal.type("\x03")
        terminal.wait_for("^C")
        terminal.type("stty size; exit 9\n")
        assert terminal.wait_end() == 9


@pytest.mark.row(29)
@pytest.mark.no_host
def test_an_image_with_nothing_at_all_serves_files_and_says_so_of_commands(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"content")
    with ground.master("noshell") as connection:
        scp = ["scp", "-q", *connection.options]
        subprocess.run([*scp, str(tmp_path / "up"), f"{connection.destination}:/tmp/there"], check=True, timeout=30)
        subprocess.run([*scp, f"{connection.destination}:/tmp/there", str(tmp_path / "down")], check=True, timeout=30)
        assert (tmp_path / "down").read_bytes() == b"content"
        for words in (("true",), ()):
            refused = connection.ssh(*words)
            assert refused.returncode == 127
            assert b"no shell" in refused.stderr


@pytest.mark.row(30)
def test_a_forced_command_runs_whatever_is_asked_for(ground: Ground) -> None:
    login = f"{ALICE}+forced"
    assert ground.ssh("rm -rf /; 'é'", login=login).stdout == "forced: rm -rf /; 'é'\n".encode()
    assert ground.ssh(login=login, stdin=b"id\n").stdout == b"forced: nothing\nid\n"
    assert ground.ssh("x", options=("-o", "SetEnv=SSH_ORIGINAL_COMMAND=mine"), login=login).stdout == b"forced: x\n"
    with ground.terminal(login=login) as terminal:
        terminal.wait_for("forced: nothing")
        terminal.type("\x04")
        assert terminal.wait_end() == 0
    subsystem = ground.ssh("sftp", options=("-s",), login=login)
    assert subsystem.stdout == b"forced: internal-sftp\n"


@pytest.mark.row(31)
@pytest.mark.slow
async def test_nothing_grows_over_a_thousand_connections(ground: Ground) -> None:
    """Every tenth of them runs a program in a workspace of its own."""
    count = CONNECTIONS[ground.runtime.name]
    await _connect(ground, range(count // 5))
    descriptors, memory = await _settled(ground)
    await _connect(ground, range(count - count // 5))
    after, grown = await _settled(ground)
    print(f"{count} connections: {after - descriptors} descriptors and {(grown - memory) / MEGABYTE:.1f} MB more")
    assert after <= descriptors + 8, "less than one for each workspace"
    assert grown - memory < 16 * MEGABYTE


async def _connect(ground: Ground, numbers: range) -> None:
    waiting = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with waiting, ground.connected("alone") as connection:
            if number % 10 == 0:
                assert (await connection.run("echo on")).stdout == "on\n"

    await asyncio.gather(*map(one, numbers))


async def _settled(ground: Ground) -> tuple[int, int]:
    """Open descriptors and resident memory, once what there was has gone."""
    await asyncio.to_thread(ground.nothing_left, 30)
    folder = Path(f"/proc/{ground.process.pid}/fd")
    seen: list[int] = []

    def steady() -> bool:
        seen.append(len(os.listdir(folder)))
        return len(seen) > 10 and len(set(seen[-10:])) == 1

    await asyncio.to_thread(until, steady, 30, 0.05)
    return seen[-1], resident(ground.process.pid)


@pytest.mark.row(32)
def test_what_is_offered_is_modern_and_hybrid_first(ground: Ground) -> None:
    """All of it, by `ssh-audit`: tests/ssh/test_algorithms.py."""
    said = ground.ssh("true", options=("-vv",)).stderr.decode(errors="replace")
    offered = said.partition("peer server KEXINIT proposal")[2]
    found = dict(re.findall(r"debug2: ([^:\n]+): (\S+)", offered)[::-1])
    exchanges = found["KEX algorithms"].split(",")
    assert re.match(r"(mlkem|sntrup)", exchanges[0]), exchanges
    assert "kex-strict-s-v00@openssh.com" in exchanges
    assert "sha1" not in ",".join(exchanges)
    assert "ssh-rsa" not in found["host key algorithms"].split(",")
    ciphers, macs = found["ciphers stoc"].split(","), found["MACs stoc"].split(",")
    assert not [cipher for cipher in ciphers if "cbc" in cipher or cipher in ("none", "3des-cbc")]
    assert not [mac for mac in macs if "-etm@" not in mac]


@pytest.mark.row(12)
@pytest.mark.slow
def test_a_job_of_65_seconds_with_nothing_to_read_gives_its_output_and_status(ground: Ground) -> None:
    """It was started with the gateway, so that the rest of the table runs meanwhile."""
    out, error = ground.late.communicate(timeout=110)
    assert (out, ground.late.returncode) == (b"late\n", 7), error
