"""Host keys that Vault certifies: a stock client that knows the authority alone, renewal, and a Vault that is gone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import hvac
import pytest
from hvac.exceptions import Forbidden, InvalidRequest

from gateway.cli import checks
from gateway.errors import CredentialsUnavailable
from gateway.settings import Settings
from tests.ssh.test_host_keys import make_key, ssh
from tests.ssh.world import ALICE, Site, running
from tests.stack.opa import Opa
from tests.stack.vault import HOST_NAME, Vault
from tests.waiting import until

SIGN = "/v1/ssh-host/sign/doorward-host"


def certified(server: Vault, key: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a gateway whose host key Vault certifies."""
    return {
        "ssh": {"host_keys": [key], "host_certificate": {"vault": {"principals": [HOST_NAME], **changes}}},
        "credentials": {"vault": {"url": server.url, "token": {"file": server.gateway_token_file}}},
    }


def knows_the_authority(server: Vault, file: Path) -> Path:
    public = server.client().adapter.get("/v1/ssh-host/config/ca")["data"]["public_key"]
    file.write_text(f"@cert-authority {HOST_NAME} {public.strip()}\n")
    return file


def write_key(site: Site) -> None:
    path = site.directory / ALICE
    path.write_bytes(site.keys[ALICE].export_private_key())
    path.chmod(0o600)


async def test_a_client_that_knows_only_vaults_authority_logs_in_and_the_certificate_is_renewed(
    authority: Vault, opa_server: Opa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.host_keys.RETRY_SECONDS", 0.2)
    monkeypatch.setattr("gateway.host_keys.RENEWED_AT", 0.0)
    known = knows_the_authority(authority, tmp_path / "known_hosts")
    settings = certified(authority, make_key(tmp_path, "host"), ttl_seconds=60)
    async with running(opa_server, tmp_path, **settings) as site:
        write_key(site)
        status, said = await ssh(site, known=known)
        assert (status, "in\n" in said) == (0, True), said

        [first] = site.gateway.host_keys.certificates
        await until(lambda: site.gateway.host_keys.certificates[0]._serial != first._serial)
        assert first.principals == [HOST_NAME]
        assert first._valid_before - first._valid_after <= 120
        status, said = await ssh(site, known=known)
        assert (status, "in\n" in said) == (0, True), said


async def test_a_vault_that_refuses_is_told_loudly_and_the_old_certificate_and_the_bare_key_still_serve(
    authority: Vault, opa_server: Opa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.host_keys.RETRY_SECONDS", 0.2)
    monkeypatch.setattr("gateway.host_keys.RENEWED_AT", 0.0)
    known = knows_the_authority(authority, tmp_path / "known_hosts")
    settings = certified(authority, make_key(tmp_path, "host"))
    role = authority.client().adapter.get("/v1/ssh-host/roles/doorward-host")["data"]
    try:
        async with running(opa_server, tmp_path, **settings) as site:
            write_key(site)
            authority.client().adapter.delete("/v1/ssh-host/roles/doorward-host")
            await until(lambda: "host_certificate_not_renewed" in caplog.text)
            status, said = await ssh(site, known=known)
            assert (status, "in\n" in said) == (0, True), said
            assert len(site.gateway.host_keys.certificates) == 1
    finally:
        authority.client().adapter.post("/v1/ssh-host/roles/doorward-host", json=role)
    errors = [record for record in caplog.records if record.message == "host_certificate_not_renewed"]
    assert all(record.levelno == logging.ERROR for record in errors)
    assert authority.gateway_token() not in caplog.text


async def test_without_vault_the_door_opens_with_the_bare_key(
    authority: Vault, opa_server: Opa, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = certified(authority, make_key(tmp_path, "host"))
    settings["credentials"]["vault"]["url"] = "http://127.0.0.1:1"
    async with running(opa_server, tmp_path, **settings) as site, site.connect() as connection:
        assert (await connection.run("echo in")).stdout == "in\n"
    assert "host_certificate_not_renewed" in caplog.text


async def test_check_says_whether_vault_signs(authority: Vault, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, **certified(authority, make_key(tmp_path, "host")))
    host = settings.ssh.host_certificate.vault
    assert host is not None
    assert await checks._host_certificate(settings, host) == f"ssh-host signs for {HOST_NAME}"
    with pytest.raises(CredentialsUnavailable):
        await checks._host_certificate(settings, host.model_copy(update={"role": "another"}))
    with pytest.raises(CredentialsUnavailable):
        await checks._host_certificate(settings, host.model_copy(update={"principals": ("other.test",)}))


def test_the_gateways_token_can_have_hosts_of_this_name_signed_and_nothing_else(authority: Vault) -> None:
    gateway: hvac.Client = authority.client(authority.gateway_token())
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE6l6aSqmnhPf9itWlNpTJFDIjRDy4FdbQNPgbpVTNEH"
    body = {"public_key": key, "cert_type": "host", "valid_principals": HOST_NAME}

    assert gateway.adapter.post(SIGN, json=body)["data"]["signed_key"].startswith("ssh-ed25519-cert-v01@openssh.com ")
    for wrong in ({"cert_type": "user"}, {"valid_principals": "other.test"}, {"valid_principals": f"x.{HOST_NAME}"}):
        with pytest.raises(InvalidRequest):
            gateway.adapter.post(SIGN, json={**body, **wrong})
    with pytest.raises(Forbidden):
        gateway.adapter.post("/v1/ssh-host/roles/doorward-host", json={"allow_user_certificates": True})
