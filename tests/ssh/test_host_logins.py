"""Logging in to a real host by a certificate that Vault signs for one session."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from hvac.exceptions import Forbidden, InvalidRequest

from gateway.backends.sshproxy.login import key_id
from gateway.model import Holder, SessionId
from tests.e2e.world import Door, grant_of
from tests.e2e.world import until as wait
from tests.ssh.hosts import on
from tests.ssh.world import ALICE, Site, running
from tests.stack import example
from tests.stack.opa import Opa
from tests.stack.require import require
from tests.stack.sshd import USER, Sshd, sshd
from tests.stack.vault import Vault

ROLE = {"vault": {"role": "doorward-proxy"}}
RECIPE = Path(__file__).parents[2] / "docs" / "hosts.md"
SIGN = "/v1/ssh-proxy/sign/doorward-proxy"


@pytest.fixture(scope="module", autouse=True)
def _there_is_an_sshd() -> None:
    require("sshd")


@pytest.fixture(scope="module")
def host(authority: Vault, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    public = authority.client().adapter.get("/v1/ssh-proxy/config/ca")["data"]["public_key"].strip()
    with sshd(tmp_path_factory.mktemp("host"), user_authority=public) as server:
        (server.directory / "authorized_keys").write_text("")
        yield server


def settings(authority: Vault, **changes: Any) -> dict[str, Any]:
    return {
        "credentials": {"vault": {"url": authority.url, "token": {"file": authority.gateway_token_file}, **changes}},
        "backends": {"sshproxy": {"vault": {"certificate_seconds": 60}}},
    }


async def refused(site: Site) -> str:
    async with site.connect() as alice:
        ran = await alice.run("echo in")
    assert (ran.exit_status, ran.stdout) == (254, ""), ran
    return str(ran.stderr)


async def test_the_host_s_own_log_names_person_grant_and_session_of_a_login_by_certificate(
    authority: Vault, host: Sshd, opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with running(opa_server, tmp_path, targets={"there": on(host, ROLE)}, **settings(authority)) as site:
        async with site.connect() as alice:
            assert (await alice.run("echo in")).stdout == "in\n"
        await site.nothing_left()
        [accepted] = [line for line in host.log.splitlines() if "Accepted publickey" in line]
        [workspace] = site.audit("workspace")
    assert f"ID doorward/alice/g1/{workspace['session']} (serial " in accepted
    assert workspace["login"] == "certificate of doorward-proxy"
    kept = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert not [path for path in kept if b"PRIVATE KEY" in path.read_bytes() and "ssh_host" not in path.name]


async def test_a_certificate_lives_minutes_and_is_for_the_account_alone(authority: Vault) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    gateway = authority.client(authority.gateway_token()).adapter
    asked = {"public_key": key, "cert_type": "user", "valid_principals": USER, "key_id": "x"}
    signed = gateway.post(SIGN, json={**asked, "ttl": "60s"})["data"]["signed_key"]
    certificate: Any = asyncssh.import_certificate(signed)
    assert certificate.principals == [USER]
    assert certificate._valid_before - certificate._valid_after <= 100
    for change in (
        {"valid_principals": "somebody"},
        {"cert_type": "host"},
        {"critical_options": {"force-command": "x"}},
    ):
        with pytest.raises(InvalidRequest):
            gateway.post(SIGN, json={**asked, **change})
    with pytest.raises(Forbidden):
        gateway.post("/v1/ssh-proxy/roles/doorward-proxy", json={"key_type": "ca"})


def test_a_key_id_is_one_word_whatever_a_grant_is_called() -> None:
    holder = Holder(SessionId("s1"), "alice", 'INC 1/"x\n', "there", "")
    assert re.fullmatch(r"doorward/alice/INC_1__x_/s1", key_id(holder))


@pytest.mark.parametrize(
    ("login", "said"),
    [
        ({"vault": {"role": "no-such-role"}}, "Vault refused signing this session's key"),
        ({"vault": {"role": "doorward-proxy", "principals": ["somebody"]}}, "signing this session's key"),
        ({"vault": {"role": "doorward-proxy", "principals": ["deploy"]}}, f"refused the login as {USER}"),
    ],
)
async def test_a_login_that_vault_or_the_host_does_not_give_is_told_as_theirs(
    authority: Vault,
    host: Sshd,
    opa_server: Opa,
    tmp_path: Path,
    unexpected: list[Any],
    login: dict[str, Any],
    said: str,
) -> None:
    async with running(opa_server, tmp_path, targets={"there": on(host, login)}, **settings(authority)) as site:
        assert said in await refused(site)
        await site.nothing_left()


async def test_without_vault_nobody_is_logged_in_and_a_session_that_is_goes_on(
    authority: Vault, host: Sshd, opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with running(opa_server, tmp_path, targets={"there": on(host, ROLE)}, **settings(authority)) as site:
        async with site.connect() as alice:
            assert (await alice.run("echo in")).stdout == "in\n"
            os.kill(authority.process.pid, signal.SIGSTOP)
            try:
                assert "Vault did not answer in time" in await refused(site)
                assert (await alice.run("echo on")).stdout == "on\n"
            finally:
                os.kill(authority.process.pid, signal.SIGCONT)
        await site.nothing_left()


async def test_a_gateway_that_has_nothing_signed_says_so(
    host: Sshd, opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    backends: dict[str, Any] = {"sshproxy": {}}
    async with running(opa_server, tmp_path, targets={"there": on(host, ROLE)}, backends=backends) as site:
        assert "[backends.sshproxy.vault] is missing" in await refused(site)


@dataclass(frozen=True)
class Place:
    """What a Door needs of a site."""

    directory: Path
    opa: Opa


def test_the_recipe_of_the_docs_puts_a_host_behind_a_gateway_that_serves(
    authority: Vault, opa_server: Opa, tmp_path: Path
) -> None:
    """docs/hosts.md, step by step, with a gateway in a process of its own; killed, it leaves no connection."""
    text = RECIPE.read_text()
    steps = dict(re.findall(r" +```(json|sh|toml)\n(.*?) +```\n", text, re.DOTALL))
    public = authority.client().adapter.get("/v1/ssh-proxy/config/ca")["data"]["public_key"].strip()
    lines = re.findall(r"^ +((?:TrustedUserCAKeys|AcceptEnv|LogLevel) .*)$", steps["sh"], re.MULTILINE)
    assert len(lines) == 3
    assert steps["toml"].strip() == "[backends.sshproxy.vault]"
    trusted = tmp_path / "ca.pub"
    trusted.write_text(f"{public}\n")
    with sshd(tmp_path / "host", *(line.replace("/etc/ssh/doorward_ca.pub", str(trusted)) for line in lines)) as server:
        target = json.loads(steps["json"])
        target["host"] |= {"address": "127.0.0.1", "port": server.port, "user": USER, "host_keys": [server.host_key]}
        example.load(opa_server, {"db1": target}, {ALICE: example.ssh_key(tmp_path, ALICE)})
        opa_server.put(f"grants/{ALICE}", {"INC-42": grant_of(target="db1")})
        door = Door(Place(tmp_path, opa_server), tmp_path)
        try:
            door.start(
                {
                    "state_dir": str(tmp_path / "state"),
                    "ssh": {"listen": "127.0.0.1:0", **example.OPEN},
                    "policy": {"url": opa_server.url, "token": {"file": str(opa_server.token_files["gateway"])}},
                    "credentials": {
                        "vault": {"url": authority.url, "token": {"file": str(authority.gateway_token_file)}}
                    },
                    "backends": {
                        "sshproxy": {"vault": {"mount": "ssh-proxy"}}
                    },  # TOML of the tests writes no empty table
                }
            )
            ran = door.ssh("echo $TRACEPARENT; exit 5")
            assert (ran.returncode, ran.stdout[:3]) == (5, b"00-"), ran.stderr
            blob = os.urandom(2**20) * 16
            assert door.ssh("cat", stdin=blob, seconds=60).stdout == blob
            with door.terminal("echo up; cat") as terminal:
                terminal.wait_for("up")
                assert server.children()
                door.stop(signal.SIGKILL)
                wait(lambda: not server.children(), 30)
        finally:
            door.stop()
            opa_server.delete("targets/db1")
        written = (tmp_path / "gateway.log").read_text() + (tmp_path / "state" / "audit.jsonl").read_text()
    assert "Traceback" not in written
    assert "cert-v01" not in written
    assert authority.gateway_token() not in written
