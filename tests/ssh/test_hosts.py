"""Real hosts behind the door: the same relay, what they must prove, and whose refusal it was."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_DISCONNECT
from asyncssh.packet import String, UInt32

from gateway.cli import checks
from gateway.settings import Settings
from gateway.ssh import agent
from tests.ssh.hosts import EVERYTHING, host_target, hostile_host, known, on
from tests.ssh.openssh import OpenSSH, answering
from tests.ssh.test_hostile_agent import KINDS, MALFORMED, exit_7, refusals
from tests.ssh.world import HostileChannel, HostileConnection, Site, running, target
from tests.stack.opa import Opa
from tests.stack.process import free_port
from tests.stack.require import require
from tests.stack.sshd import USER, Sshd, make_key, sshd
from tests.waiting import until


@pytest.fixture(scope="module", autouse=True)
def _there_is_an_sshd() -> None:
    require("sshd")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("host")) as server:
        yield server


async def refused(site: Site) -> tuple[str, dict[str, Any]]:
    """What Alice is told who gets no program, and the record of the step that failed."""
    async with site.connect() as alice:
        ran = await alice.run("echo in")
    assert (ran.exit_status, ran.stdout) == (254, ""), ran
    await site.nothing_left()
    failed = [record for record in site.audit() if record["outcome"] == "failed"]
    return str(ran.stderr), failed[0] if failed else {}


async def test_programs_files_and_forwards_are_relayed_and_on_record(
    host: Sshd, opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with answering() as port:
        allow = {**EVERYTHING, "forwards": [{"host": "127.0.0.1", "port": port}]}
        there = on(host, env={"FIXED": "by policy"}, allow=allow)
        async with running(opa_server, tmp_path, targets={"there": there}, backends=known(host)) as site:
            async with site.connect() as alice:
                ran = await alice.run("echo $FIXED $GREETING $TRACEPARENT; echo err >&2; exit 3",
                                      env={"FIXED": "by hand", "GREETING": "hello"})  # fmt: skip
                assert (ran.exit_status, ran.stderr) == (3, "err\n")
                assert str(ran.stdout).startswith("by policy hello 00-")
                blob = os.urandom(2**20) * 8
                assert (await alice.run("cat", input=blob, encoding=None)).stdout == blob
                killed = await alice.run("kill -USR1 $$")
                assert killed.exit_signal is not None
                assert killed.exit_signal[0] == "USR1"
                assert "/dev/pts/" in str((await alice.run("tty", term_type="dumb")).stdout)
                async with alice.start_sftp_client() as files:
                    await files.put(str(host.key.with_suffix(".pub")), str(tmp_path / "put"))
                reader, writer = await alice.open_connection("127.0.0.1", port, encoding=None)
                writer.write(b"abc")
                writer.write_eof()
                assert await reader.read() == b"cba"
                back = await alice.forward_remote_port("localhost", 0, "127.0.0.1", port)
                there_reader, there_writer = await asyncio.open_connection("127.0.0.1", back.get_port())
                there_writer.write(b"abc")
                there_writer.write_eof()
                assert await there_reader.read() == b"cba"
                there_writer.close()
            await site.nothing_left()
            [reached] = site.audit("agent")
            [workspace] = site.audit("workspace")
    assert (tmp_path / "put").read_text() == host.key.with_suffix(".pub").read_text()
    assert workspace["user"] == USER
    assert workspace["login"] == "key main"
    assert (
        reached["host_key"]
        in subprocess.run(
            ["ssh-keygen", "-lf", host.directory / "host_key.pub"], capture_output=True, text=True, check=True
        ).stdout
    )


async def test_a_host_with_another_key_is_sent_nothing_and_the_sentence_names_both(
    host: Sshd, opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    wrong = make_key(tmp_path / "wrong")
    before = host.log.count("Accepted")
    there = host_target(host.port, [wrong])
    async with running(opa_server, tmp_path, targets={"there": there}, backends=known(host)) as site:
        said, record = await refused(site)
    assert f"127.0.0.1:{host.port} is not the host that policy knows" in said
    assert said.count("SHA256:") == 2
    assert (record["event"], record["reasons"][0]["code"]) == ("agent", "host_key_mismatch")
    assert host.log.count("Accepted") == before


async def test_a_host_that_has_no_key_of_the_pinned_type_is_not_the_host(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    wrong = make_key(tmp_path / "wrong")
    with sshd(tmp_path / "rsa", f"HostKey {_ecdsa(tmp_path)}") as server:
        there = host_target(server.port, [wrong])
        async with running(opa_server, tmp_path, targets={"there": there}, backends=known(server)) as site:
            said, record = await refused(site)
    assert "is not the host that policy knows" in said
    assert record["reasons"][0]["code"] == "host_key_mismatch"


def _ecdsa(directory: Path) -> Path:
    path = directory / "ecdsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", path], check=True)
    return path


CERTIFIED = {
    "for the address": (["-n", "127.0.0.1"], ""),
    "for another": (["-n", "db.example"], "principal"),
    "for nobody": ([], "principal"),
    "over": (["-n", "127.0.0.1", "-V", "-2d:-1d"], "expired"),
    "signed with SHA-1": (["-n", "127.0.0.1", "-t", "ssh-rsa"], "of a kind that is not taken"),
}


@pytest.mark.parametrize("case", CERTIFIED)
async def test_an_authority_can_be_pinned_and_its_certificate_has_to_be_for_the_address(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], case: str
) -> None:
    options, why = CERTIFIED[case]
    key = asyncssh.generate_private_key("ssh-rsa", key_size=3072)
    key.write_private_key(tmp_path / "authority")
    (tmp_path / "authority").chmod(0o600)
    authority = key.export_public_key().decode().strip()
    make_key(tmp_path / "host" / "host_key")
    public = tmp_path / "host" / "host_key.pub"
    sign = ["ssh-keygen", "-q", "-h", "-s", str(tmp_path / "authority"), "-I", "a host", *options, str(public)]
    subprocess.run(sign, check=True)
    with sshd(tmp_path / "host", f"HostCertificate {tmp_path}/host/host_key-cert.pub") as server:
        there = host_target(server.port, [f"@cert-authority {authority}"])
        async with running(opa_server, tmp_path, targets={"there": there}, backends=known(server)) as site:
            if not why:
                async with site.connect() as alice:
                    assert (await alice.run("echo in")).stdout == "in\n"
                return
            said, record = await refused(site)
    assert why in said
    assert record["reasons"][0]["code"] == "host_key_mismatch"


async def test_a_login_that_the_host_refuses_is_said_to_be_its_refusal(
    host: Sshd, opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    make_key(tmp_path / "stranger")
    keys = {"keys": {"main": tmp_path / "stranger"}}
    async with running(opa_server, tmp_path, targets={"there": on(host)}, backends=known(host, **keys)) as site:
        said, record = await refused(site)
    assert f"the host 127.0.0.1:{host.port} refused the login as {USER}; this door had let you in" in said
    assert record["reasons"][0]["code"] == "host_refused"


@pytest.mark.parametrize("fault", ["unknown", "open", "no key", "gone"])
async def test_a_key_of_the_settings_that_cannot_be_used_is_told_without_where_it_is(
    host: Sshd, opa_server: Opa, tmp_path: Path, unexpected: list[Any], fault: str
) -> None:
    path = tmp_path / "used.key"
    shutil.copy(host.key, path)
    match fault:
        case "open":
            path.chmod(0o644)
        case "no key":
            path.write_text("no key\n")
        case "gone":
            path.unlink()
    keys = {"keys": {"other" if fault == "unknown" else "main": path}}
    async with running(opa_server, tmp_path, targets={"there": on(host)}, backends=known(host, **keys)) as site:
        said, record = await refused(site)
    assert "the key 'main'" in said or "own key 'main'" in said
    assert str(path) not in said
    assert record["event"] == "workspace"


@pytest.mark.parametrize("kind", ["nobody", "silent", "garbage", "malformed", "hangs up"])
async def test_whoever_does_not_answer_as_a_host_is_given_up_on_in_time(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], kind: str
) -> None:
    silent: list[asyncio.StreamWriter] = []

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)
        if kind == "garbage":
            writer.write(b"\0" * 100_000 + b"SSH-2.0-x\r\n" + os.urandom(100_000))
        if kind == "malformed":
            writer.write(MALFORMED)
        if kind in ("garbage", "hangs up"):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = free_port() if kind == "nobody" else server.sockets[0].getsockname()[1]
        make_key(tmp_path / "key")
        backends = {"sshproxy": {"keys": {"main": tmp_path / "key"}, "connect_seconds": 1}}
        there = host_target(port, [make_key(tmp_path / "pinned")])
        async with running(opa_server, tmp_path, targets={"there": there}, backends=backends) as site:
            async with asyncio.timeout(30):
                said, record = await refused(site)
        for writer in silent:
            writer.close()
    expected = {"nobody": "does not answer", "silent": "within 1 s"}.get(kind, "could not be logged in to")
    assert f"the host 127.0.0.1:{port}" in said
    assert expected in said
    assert record["event"] == "agent"
    code = "host_unreachable" if kind in ("nobody", "silent") else "host_refused"
    assert record["reasons"][0]["code"] == code


async def test_rules_by_path_are_refused_where_nothing_keeps_them(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.Agent, "judges_files", False)
    ruled = target(allow={"sftp": {"read": ["/srv/**"], "write": []}})
    async with running(opa_server, tmp_path, targets={"ruled": ruled}) as site, site.connect() as alice:
        ran = await alice.run(subsystem="sftp", encoding=None)
        assert ran.exit_status == 254
        assert "rules for files cannot be kept on the workspace" in _text(ran.stderr)
        assert (await alice.run("echo on")).stdout == "on\n"


@pytest.mark.parametrize(
    "change",
    [
        {"host": {"host_keys": []}},
        {"credentials": [{"name": "db", "issuer": "vault", "role": "r", "ttl_seconds": 60,
                          "deliver": {"host": "db", "port": 5432, "dbname": "d"}}]},
        {"network": {"egress": [{"host": "db", "port": 5432}]}},
        {"image": "debug"},
        {"allow": {"sftp": {"read": ["/srv/**"], "write": []}}},
    ],
)  # fmt: skip
async def test_a_target_that_asks_of_a_host_what_none_can_keep_opens_nothing(
    host: Sshd, opa_server: Opa, tmp_path: Path, unexpected: list[Any], change: dict[str, Any]
) -> None:
    async with running(opa_server, tmp_path, targets={"there": on(host, **change)}, backends=known(host)) as site:
        said, _ = await refused(site)
        assert not site.audit("workspace")
    assert "the target's own entry has a fault" in said


@pytest.mark.parametrize(("taken", "said"), [("SSH_ORIGINAL_COMMAND", "forced: id\n"), ("NOTHING", "")])
async def test_a_forced_command_runs_where_it_can_find_what_was_asked_for(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], taken: str, said: str
) -> None:
    with sshd(tmp_path / "host", f"AcceptEnv {taken}") as server:
        there = on(server, force_command='echo "forced: $SSH_ORIGINAL_COMMAND"')
        async with (
            running(opa_server, tmp_path, targets={"there": there}, backends=known(server)) as site,
            site.connect() as alice,
        ):
            ran = await alice.run("id")
    assert ran.stdout == said
    if not said:
        assert ran.exit_status == 254
        assert "AcceptEnv SSH_ORIGINAL_COMMAND" in str(ran.stderr)


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGKILL, "closed the connection"), (signal.SIGSTOP, "answered nothing any more")]
)
async def test_a_host_that_is_gone_ends_the_session_with_its_reason(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], number: signal.Signals, said: str
) -> None:
    with sshd(tmp_path / "host") as server:
        backends = known(server, keepalive_seconds=0.5, keepalive_count=2)
        async with running(opa_server, tmp_path, targets={"there": on(server)}, backends=backends) as site:
            ssh = OpenSSH(site, tmp_path)
            async with ssh.started("echo inside; cat") as client:
                await client.says("inside")
                [child] = server.children()
                stopped = [child, *descendants(child)]
                for pid in stopped:
                    os.kill(pid, number)
                try:
                    status, _, err = await client.end()
                finally:
                    for pid in stopped:
                        _kill(pid)
            await site.nothing_left()
    assert status == 254
    assert f"the host 127.0.0.1:{server.port} {said}" in err
    assert "fresh workspace" not in err


async def test_a_hostile_host_opens_nothing_that_was_not_granted(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    codes: list[int] = []

    async def script(connection: HostileConnection, channel: HostileChannel) -> None:
        codes.extend(await refusals(connection))
        channel.request(b"exec", String("touch /tmp/never"))
        connection._send_global_request(b"tcpip-forward", String("0.0.0.0"), UInt32(0), want_reply=True)
        connection._send_global_request(b"hostkeys-00@openssh.com", String(b"x" * 30_000), want_reply=False)
        await exit_7(channel)

    make_key(tmp_path / "key")
    async with hostile_host(script) as (port, key):
        backends = {"sshproxy": {"keys": {"main": tmp_path / "key"}}}
        async with running(opa_server, tmp_path, targets={"bad": host_target(port, [key])}, backends=backends) as site:
            async with site.connect() as alice:
                assert (await alice.run("x")).exit_status == 7
            await site.nothing_left()
    assert len(codes) == len(KINDS)


async def test_a_host_s_last_words_reach_the_engineer_printable(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async def script(connection: HostileConnection, channel: HostileChannel) -> None:
        await until(lambda: channel.received)  # it has begun
        connection.send_packet(MSG_DISCONNECT, UInt32(11), String("going\x1b[2Jdown" + "x" * 10_000), String(""))

    make_key(tmp_path / "key")
    async with hostile_host(script) as (port, key):
        backends = {"sshproxy": {"keys": {"main": tmp_path / "key"}}}
        async with running(opa_server, tmp_path, targets={"bad": host_target(port, [key])}, backends=backends) as site:
            async with site.connect() as alice:
                ran = await alice.run("x", input="go")
            await site.nothing_left()
    assert "ended the connection: going" in str(ran.stderr)
    assert "\x1b" not in str(ran.stderr)
    assert len(str(ran.stderr)) < 1500


async def test_doorward_check_logs_in_to_each_host_and_says_what_is_wrong(
    host: Sshd, opa_server: Opa, tmp_path: Path
) -> None:
    targets = {"right": on(host), "wrong": host_target(host.port, [make_key(tmp_path / "wrong")])}
    for name, entry in targets.items():
        opa_server.put(f"targets/{name}", entry)
    settings = Settings(
        state_dir=tmp_path / "state",
        policy={"url": opa_server.url, "token": {"file": opa_server.token_files["gateway"]}},
        backends=known(host),
    )
    try:
        found = {finding.what: finding for finding in await checks._findings(settings)}
    finally:
        for name in targets:
            opa_server.delete(f"targets/{name}")
    assert found["backend sshproxy"].ok
    assert found["target right"].ok, found["target right"]
    assert found["target right"].says == f"logged in to 127.0.0.1:{host.port}"
    assert not found["target wrong"].ok
    assert "is not the host that policy knows" in found["target wrong"].says


def _text(said: bytes | str | None) -> str:
    assert isinstance(said, bytes)
    return said.decode()


def descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
