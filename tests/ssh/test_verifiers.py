"""Each way of proving, from the stock `ssh` to what really proves it, named by OPA's data alone."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import argon2
import asyncssh
import pyotp
import pytest
from aiohttp import web

from tests.authn.containerssh import Directory, values
from tests.authn.serving import serving
from tests.ssh.askpass import Typist
from tests.ssh.world import ALICE, BOB, Site, running
from tests.stack.ldap import GROUPS, PEOPLE, ldap
from tests.stack.opa import Opa
from tests.stack.process import write_secret
from tests.stack.require import require
from tests.stack.vault import bare_vault

PASSWORD = "correct-horse-battery"
SECRET = pyotp.random_base32()
METHODS = ["publickey", "password", "keyboard-interactive"]


class Everything(logging.Handler):
    """All that is logged, with every field."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{record.getMessage()} {vars(record)} {record.exc_text}\n"


@asynccontextmanager
async def door(opa: Opa, directory: Path, rules: dict[str, Any], authn: dict[str, Any]) -> AsyncIterator[Site]:
    """A gateway with the settings `authn`, whose OPA says `rules` for everybody; nothing typed is left anywhere."""
    logged, gateway = Everything(), logging.getLogger("gateway")
    level = gateway.level
    gateway.addHandler(logged)
    gateway.setLevel(logging.DEBUG)
    try:
        async with running(opa, directory, authn=authn, telemetry={"exporter": "file"}) as site:
            opa.put("door", rules)
            yield site
    finally:
        opa.put("door", {})
        gateway.removeHandler(logged)
        gateway.setLevel(level)
    traces, records = ((directory / "state" / name).read_text() for name in ("traces.jsonl", "audit.jsonl"))
    decisions = opa.decision_log.read_text()
    assert ALICE in decisions
    assert ALICE in records
    assert '"authn"' in traces
    for secret in (PASSWORD, SECRET):
        assert secret not in traces + records + decisions + logged.text


def password_file(directory: Path) -> Path:
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
    return write_secret(directory / "passwords", f"{ALICE}:{hasher.hash(PASSWORD)}\n")


def totp_file(directory: Path) -> Path:
    uri = pyotp.TOTP(SECRET).provisioning_uri(name=ALICE, issuer_name="doorward")
    return write_secret(directory / "totp", f"{ALICE} {uri}\n")


def code(periods: int = 0) -> str:
    return pyotp.TOTP(SECRET).at(int(time.time()) + 30 * periods)


def facts(site: Site) -> dict[str, Any]:
    """The claims of the last proof that policy saw."""
    seen = [one["input"]["attempt"] for one in site.audit("authn") if "input" in one]
    claims: dict[str, Any] = [attempt["claims"] for attempt in seen if attempt["verified_by"]][-1]
    return claims


async def test_a_password(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    rules = {"methods": METHODS, "chain": [["password"]], "verify": {"password": {"kind": "argon2"}}}
    async with door(opa_server, tmp_path, rules, {"password_file": password_file(tmp_path)}) as site:
        person = Typist(site, tmp_path)

        assert (await person.ssh(password=PASSWORD, methods="password")).is_in
        assert person.asked() == [f"{ALICE}@127.0.0.1's password: "]
        assert (await person.ssh(password=PASSWORD, methods="keyboard-interactive")).is_in
        wrong = await person.ssh(password="wrong")
        unknown = await person.ssh(login="mallory", password="wrong")
        assert wrong.is_denied
        assert unknown.is_denied
        assert unknown.err.replace("mallory", ALICE) == wrong.err


async def test_a_key_then_a_code_and_no_code_twice(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    rules = {"chain": [["publickey", "totp"]], "verify": {"totp": {"kind": "totp", "source": "local"}}}
    async with door(opa_server, tmp_path, rules, {"totp": {"secrets_file": totp_file(tmp_path)}}) as site:
        person, key = Typist(site, tmp_path), site.keys[ALICE]
        used = code()

        assert (await person.ssh(key=key, code=used)).is_in
        assert [prompt.partition(") ")[2] for prompt in person.asked()] == ["One-time code: "]
        assert (await person.ssh(key=key, code=used)).is_denied
        assert facts(site)["used_before"] is True
        assert (await person.ssh(key=key, code=code(1))).is_in
        assert (await person.ssh(key=key, code="000000")).is_denied
        asked = len(person.asked())
        assert (await person.ssh(key=site.keys[BOB], code=code(1))).is_denied
        assert (await person.ssh(code=code(1))).is_denied
        assert len(person.asked()) == asked  # without the key nobody is asked


async def test_a_password_then_a_code(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    verify = {"password": {"kind": "argon2"}, "totp": {"kind": "totp", "source": "local"}}
    rules = {"methods": METHODS, "chain": [["password", "totp"]], "verify": verify}
    authn = {"password_file": password_file(tmp_path), "totp": {"secrets_file": totp_file(tmp_path)}}
    async with door(opa_server, tmp_path, rules, authn) as site:
        person = Typist(site, tmp_path)

        assert (await person.ssh(password=PASSWORD, code=code())).is_in
        assert (await person.ssh(password=PASSWORD, code="000000")).is_denied
        assert (await person.ssh(password="wrong", code=code(1))).is_denied


async def test_a_key_that_is_listed_elsewhere(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    key, other = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    lists = {f"/{ALICE}.keys": key.export_public_key().decode()}

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=lists[request.path]) if request.path in lists else web.Response(status=404)

    async with serving(answer) as served:
        url = f"{served.url}/{{person}}.keys"
        listed = {"kind": "key_list", "url": url, "fresh_seconds": 0, "stale_seconds": 3600}
        rules = {"verify": {"publickey": listed}}
        async with door(opa_server, tmp_path, rules, {"key_lists": {"origins": [served.url]}}) as site:
            person = Typist(site, tmp_path)

            assert (await person.ssh(key=key)).is_in
            assert facts(site)["stale"] is False
            assert (await person.ssh(key=other)).is_denied
            assert (await person.ssh(login="mallory", key=key)).is_denied
            lists.clear()
            assert (await person.ssh(key=key)).is_denied
            lists[f"/{ALICE}.keys"] = key.export_public_key().decode()
            assert (await person.ssh(key=key)).is_in
            await served.stop()
            assert (await person.ssh(key=key)).is_in
            assert facts(site)["stale"] is True
            opa_server.put("door", {"verify": {"publickey": {**listed, "stale_seconds": 0}}})
            refused = await person.ssh(key=key)
            assert refused.status == 255
            assert "the list of keys cannot be reached" in refused.err
            assert (await person.ssh(key=site.keys[ALICE])).is_in  # a registered key needs no list


async def test_a_containerssh_server(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = " ".join(key.export_public_key().decode().split()[:2])
    directory = Directory({ALICE: PASSWORD}, {ALICE: public}, {ALICE}, config={"backend": "docker"})
    directory.also = {"metadata": {**values(team="payments"), **values(sensitive=True, pin="s3cret-pin")}}
    async with serving(directory.answer) as served:
        asking = {"kind": "webhook", "name": "old", "authz": True, "config": True}
        rules = {"methods": METHODS, "chain": [["publickey"], ["password"]],
                 "verify": {"password": asking, "publickey": {"kind": "webhook", "name": "old"}}}  # fmt: skip
        authn = {"webhooks": {"old": {"url": served.url, "config_url": f"{served.url}/config"}}}
        async with door(opa_server, tmp_path, rules, authn) as site:
            person = Typist(site, tmp_path)

            assert (await person.ssh(password=PASSWORD, methods="password")).is_in
            assert facts(site) == {
                "webhook": "old", "authenticated_username": ALICE, "metadata": {"team": "payments"},
                "authz": True, "config": {"backend": "docker"},
            }  # fmt: skip
            asked = directory.asked[0][1]
            assert asked["clientVersion"].startswith("SSH-2.0-OpenSSH_")
            assert asked["remoteAddress"].startswith("127.0.0.1:")
            assert asked["remoteAddress"] != "127.0.0.1:0"
            directory.authorized.clear()
            assert (await person.ssh(password=PASSWORD, methods="password")).is_denied
            assert facts(site)["authz"] is False
            assert (await person.ssh(key=key)).is_in  # of keys policy does not ask it
            assert (await person.ssh(key=asyncssh.generate_private_key("ssh-ed25519"), password="wrong")).is_denied
            assert (await person.ssh(login="mallory", password=PASSWORD)).is_denied
            await served.stop()
            refused = await person.ssh(password=PASSWORD, methods="password")
            assert refused.status == 255
            assert "the webhook server old cannot be reached" in refused.err
        records = (tmp_path / "state" / "audit.jsonl").read_text() + opa_server.decision_log.read_text()
        assert "s3cret-pin" not in records


async def test_vault_and_ldap_behind_it(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    require("slapd")
    with bare_vault(tmp_path / "vault") as vault, ldap(tmp_path, {ALICE: PASSWORD}) as server:
        adapter = vault.client().adapter
        adapter.post("/v1/sys/auth/ldap", json={"type": "ldap"})
        where = {"userdn": PEOPLE, "userattr": "uid", "groupdn": GROUPS, "groupattr": "cn"}
        adapter.post("/v1/auth/ldap/config", json={"url": server.url, **where, "groupfilter": "(member={{.UserDN}})"})
        adapter.post("/v1/sys/mounts/totp", json={"type": "totp"})
        uri = pyotp.TOTP(SECRET).provisioning_uri(name=ALICE, issuer_name="doorward")
        adapter.post(f"/v1/totp/keys/{ALICE}", json={"url": uri})
        verify = {
            "password": {"kind": "vault_password", "backend": "ldap", "mount": "ldap"},
            "totp": {"kind": "totp", "source": "vault"},
        }
        rules = {"methods": METHODS, "chain": [["password", "totp"]], "verify": verify}
        authn = {"vault": {"url": vault.url, "token": {"file": vault.root_token_file}}, "totp": {}}
        async with door(opa_server, tmp_path, rules, authn) as site:
            person, used = Typist(site, tmp_path), code()

            assert (await person.ssh(password=PASSWORD, code=used)).is_in
            assert (await person.ssh(password=PASSWORD, code=used)).is_denied
            assert (await person.ssh(password="wrong", code=code(1))).is_denied
            server.process.end()
            refused = await person.ssh(password=PASSWORD, code=code(1))
            assert refused.status == 255
            assert "Vault cannot check passwords at ldap" in refused.err


@pytest.mark.parametrize("rules", [
    {"methods": METHODS, "chain": [["password"]], "verify": {"password": {"kind": "argon2"}}},
    {"methods": METHODS, "chain": [["password"]], "verify": {"password": {"kind": "webhook", "name": "old"}}},
])  # fmt: skip
async def test_what_is_not_set_up_is_said_and_admits_nobody(
    opa_server: Opa, tmp_path: Path, unexpected: Any, rules: dict[str, Any]
) -> None:
    async with door(opa_server, tmp_path, rules, {}) as site:
        refused = await Typist(site, tmp_path).ssh(password=PASSWORD, methods="password")

        assert refused.status == 255
        assert "which this gateway has not set up" in refused.err
