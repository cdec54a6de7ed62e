"""Rows 17 to 19: files by every stock client, subsystems, and many channels of one connection."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import asyncssh
import pytest

from tests.e2e.surface.ground import Ground, Shared
from tests.e2e.world import until

SIZE = 50 * 2**20


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.fixture
def big(tmp_path: Path) -> Path:
    file = tmp_path / "big"
    file.write_bytes(os.urandom(SIZE))
    return file


@pytest.mark.row(17)
@pytest.mark.parametrize("legacy", [(), ("-O",)], ids=["sftp", "legacy"])
def test_scp_both_ways(shared: Shared, big: Path, legacy: tuple[str, ...]) -> None:
    scp = ("scp", "-q", "-p", *legacy, *shared.options)
    big.chmod(0o640)
    run(*scp, str(big), f"{shared.destination}:/tmp/scp-é")
    run(*scp, f"{shared.destination}:/tmp/scp-é", str(big.with_name("back")))
    assert big.with_name("back").read_bytes() == big.read_bytes()
    assert shared.out("stat -c %a /tmp/scp-*; rm /tmp/scp-*") == b"640\n"
    (big.parent / "tree" / "deep").mkdir(parents=True)
    (big.parent / "tree" / "deep" / "é").write_text("x")
    run(*scp, "-r", str(big.parent / "tree"), f"{shared.destination}:/tmp/")
    assert shared.out("cat /tmp/tree/deep/é; rm -r /tmp/tree") == b"x"


@pytest.mark.row(17)
def test_sftp(shared: Shared, big: Path) -> None:
    half = big.with_name("half")
    half.write_bytes(big.read_bytes()[: SIZE // 2])
    batch = f"""
        put {half} /tmp/a
        reput {big} /tmp/a
        rename /tmp/a /tmp/b
        chmod 600 /tmp/b
        symlink b /tmp/c
        mkdir /tmp/d
        ls -l /tmp
        get /tmp/c {big.parent}/down
        rm /tmp/b
        rm /tmp/c
        rmdir /tmp/d
        -get /tmp/nowhere {big.parent}/nowhere
        reget /etc/hostname {big.parent}/hostname
    """.replace("reget /etc/hostname", "get /etc/passwd")
    ran = subprocess.run(
        ["sftp", "-q", "-b", "-", *shared.options, shared.destination],
        input=batch, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "-rw-------" in ran.stdout
    assert "not found" in ran.stderr
    assert (big.parent / "down").read_bytes() == big.read_bytes()
    assert shared.out("ls /tmp | grep -x '[abcd]' || echo none") == b"none\n"


@pytest.mark.row(17)
def test_sftp_resumes_a_download(shared: Shared, big: Path) -> None:
    shared.out("cat > /tmp/whole", stdin=big.read_bytes())
    part = big.with_name("part")
    part.write_bytes(big.read_bytes()[: SIZE // 3])
    subprocess.run(
        ["sftp", "-q", "-b", "-", *shared.options, shared.destination],
        input=f"reget /tmp/whole {part}\nrm /tmp/whole\n", text=True, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert part.read_bytes() == big.read_bytes()


@pytest.mark.row(17)
def test_rsync_push_and_pull(shared: Shared, big: Path) -> None:
    remote = " ".join(["ssh", *shared.options])
    tree = big.parent / "tree"
    tree.mkdir()
    big.rename(tree / "big")
    (tree / "link").symlink_to("big")
    run("rsync", "-a", "-e", remote, f"{tree}/", f"{shared.destination}:/tmp/tree/")
    with (tree / "big").open("ab") as file:
        file.write(b"more")
    second = run("rsync", "-a", "--stats", "-e", remote, f"{tree}/", f"{shared.destination}:/tmp/tree/")
    assert "Literal data: 0 bytes" not in second.stdout
    run("rsync", "-az", "-e", remote, f"{shared.destination}:/tmp/tree/", f"{big.parent}/back/")
    assert (big.parent / "back" / "big").read_bytes() == (tree / "big").read_bytes()
    assert (big.parent / "back" / "link").is_symlink()
    shared.out("rm -r /tmp/tree")


@pytest.mark.row(17)
def test_git_clone_and_push(shared: Shared, tmp_path: Path) -> None:
    remote = f"ssh {' '.join(shared.options)}"
    who = {f"GIT_{role}_{part}": "x@y" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    shared.out("git init -q --bare /tmp/repository.git")
    url = f"{shared.destination}:/tmp/repository.git"
    run("git", "clone", "-q", url, str(tmp_path / "one"), GIT_SSH_COMMAND=remote)
    (tmp_path / "one" / "file").write_bytes(os.urandom(2**20))
    for words in (("add", "file"), ("commit", "-qm", "first"), ("push", "-q", "origin", "HEAD:main")):
        run("git", "-C", str(tmp_path / "one"), *words, GIT_SSH_COMMAND=remote, **who)
    run("git", "clone", "-q", "-b", "main", url, str(tmp_path / "two"), GIT_SSH_COMMAND=remote)
    assert (tmp_path / "two" / "file").read_bytes() == (tmp_path / "one" / "file").read_bytes()
    shared.out("rm -rf /tmp/repository.git")


@pytest.mark.row(17)
def test_files_alone_where_policy_allows_no_program(ground: Ground, tmp_path: Path) -> None:
    refused = ground.ssh("id", login="alice+files")
    assert refused.returncode == 254
    assert b"exec_refused" in refused.stderr
    (tmp_path / "up").write_bytes(b"x")
    with ground.master("files") as connection:
        run("scp", "-q", *connection.options, str(tmp_path / "up"), f"{connection.destination}:/tmp/x")
        run("scp", "-q", *connection.options, f"{connection.destination}:/tmp/x", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == b"x"


@pytest.mark.row(18)
async def test_an_unknown_subsystem_is_a_channel_failure_and_the_connection_lives_on(ground: Ground) -> None:
    async with ground.connected() as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_process(subsystem="netconf")
        assert (await connection.run("echo on")).stdout == "on\n"


@pytest.mark.row(18)
def test_an_unknown_subsystem_is_explained_to_who_uses_ssh(shared: Shared) -> None:
    refused = shared.ssh("netconf", options=("-s",))
    assert refused.returncode == 255
    # Best effort: the client drops what it has not written when it hears of the failure.
    until(lambda: b"subsystem_refused" in shared.ssh("netconf", options=("-s",)).stderr)
    assert shared.out("echo on") == b"on\n"


@pytest.mark.row(19)
def test_channels_of_one_connection_share_one_workspace(ground: Ground) -> None:
    with ground.master("alone") as connection:
        running = [subprocess.Popen(connection.command(f"echo {n} >> /tmp/seen; sleep 0.2")) for n in range(12)]
        assert [process.wait(30) for process in running] == [0] * 12
        assert sorted(map(int, connection.out("cat /tmp/seen").split())) == list(range(12))
        assert len(ground.workspaces("alone")) == 1
    ground.nothing_left()


@pytest.mark.row(19)
def test_the_limit_counts_what_lives_not_what_ever_was(ground: Ground) -> None:
    with ground.master("few") as connection:
        assert [connection.ssh("true").returncode for _ in range(8)] == [0] * 8
        living = [
            subprocess.Popen(connection.command("echo up; cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(3)
        ]
        assert [one.stdout.readline() for one in living if one.stdout] == [b"up\n"] * 3
        refused = connection.ssh("true")
        assert refused.returncode == 254
        assert b"too_many_channels" in refused.stderr
        living[0].communicate(timeout=10)
        until(lambda: connection.ssh("true").returncode == 0)
        for one in living[1:]:
            one.communicate(timeout=10)
