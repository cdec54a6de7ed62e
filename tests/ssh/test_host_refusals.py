"""What a host's own sshd refuses: told as its refusal, and on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.ssh.hosts import EVERYTHING, known, on
from tests.ssh.openssh import KeyAgent, OpenSSH
from tests.ssh.world import running
from tests.stack.opa import Opa
from tests.stack.require import require
from tests.stack.sshd import sshd


@pytest.fixture(scope="module", autouse=True)
def _there_is_an_sshd() -> None:
    require("sshd")


async def test_what_its_sshd_refuses_is_said_to_be_its_refusal(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    strict = (
        "AllowTcpForwarding no", "AllowStreamLocalForwarding no", "PermitTTY no", "AllowAgentForwarding no",
        "AcceptEnv NOTHING",
    )  # fmt: skip
    with sshd(tmp_path / "strict", *strict) as server:
        allow = {**EVERYTHING, "forwards": [{"host": "127.0.0.1", "port": 9}]}
        targets = {"there": on(server, allow=allow)}
        async with running(opa_server, tmp_path, targets=targets, backends=known(server)) as site:
            name = f"the host 127.0.0.1:{server.port}"
            async with site.connect() as alice:
                with pytest.raises(asyncssh.ChannelOpenError, match=f"{name} refused: "):
                    await alice.open_connection("127.0.0.1", 9)
                with pytest.raises(asyncssh.ChannelListenError):
                    await alice.forward_remote_port("localhost", 0, "127.0.0.1", 9)
                terminal = await alice.run("true", term_type="dumb")
                assert terminal.exit_status == 254
                assert f"{name} refused a terminal; this door had allowed it" in str(terminal.stderr)
                assert (await alice.run("echo still")).stdout == "still\n"
            declined = site.audit("declined")
    assert [record["request"]["kind"] for record in declined] == ["direct-tcpip", "pty-req"]
    for record in declined:
        assert (record["outcome"], record["person"]) == ("failed", "alice")
        assert record["reasons"][0]["code"] == "host_refused"
        assert name in record["reasons"][0]["message"]


async def test_a_display_and_a_key_agent_that_its_sshd_refuses_are_not_there_and_on_record(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    with sshd(tmp_path / "strict", "AllowAgentForwarding no", "X11Forwarding no") as server, KeyAgent(tmp_path) as env:
        targets = {"there": on(server, allow=EVERYTHING)}
        async with running(opa_server, tmp_path, targets=targets, backends=known(server)) as site:
            asked = ("-A", "-X", "-o", "IdentityAgent=SSH_AUTH_SOCK", "-o", "XAuthLocation=/nonexistent")
            status, out, _ = await OpenSSH(site, tmp_path).run(
                "echo ${SSH_AUTH_SOCK-none} ${DISPLAY-none}", options=asked, env={**env, "DISPLAY": "127.0.0.1:1"}
            )
            outcomes = {record["kind"]: record["outcome"] for record in site.audit("listener")}
    assert (status, out) == (0, "none none\n")
    assert outcomes == {"x11-req": "failed", "auth-agent-req@openssh.com": "failed"}


async def test_a_subsystem_that_its_sshd_has_not_is_said_to_be_its_refusal(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    with sshd(tmp_path / "bare", "Subsystem other /bin/true") as bare:
        async with (
            running(opa_server, tmp_path, targets={"there": on(bare)}, backends=known(bare)) as site,
            site.connect() as alice,
        ):
            ran = await alice.run(subsystem="sftp", encoding=None)
            [record] = site.audit("declined")
    assert ran.exit_status == 254
    assert isinstance(ran.stderr, bytes)
    assert f"the host 127.0.0.1:{bare.port} refused this subsystem; this door had allowed it" in ran.stderr.decode()
    assert record["request"] == {"kind": "subsystem", "name": "sftp"}
