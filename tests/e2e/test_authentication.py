"""Who is at the door, with everything real: the stock client, Vault as the certificate authority, OPA, Docker."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import OpenDoor
from tests.e2e.world import ALICE, Door, Site
from tests.stack import example


@pytest.fixture
def certified(site: Site, open_door: OpenDoor) -> Iterator[Door]:
    """A door that trusts Vault's authority, and at which Alice has a certificate in place of a key."""
    public = site.vault.client().adapter.get("/v1/ssh-user/config/ca")["data"]["public_key"]
    with open_door() as door:
        site.opa.put("authorities", {"vault": {"public_key": public}})
        site.opa.put(f"people/{ALICE}", {"keys": [], "groups": ["oncall"]})
        door.grant()
        try:
            yield door
        finally:
            site.opa.put("authorities", {})


def certificate(site: Site, door: Door, **asked: str) -> tuple[str, ...]:
    """Options of `ssh` with a certificate that Vault signs now."""
    public = example.ssh_key(site.directory)
    body = {"public_key": public, "valid_principals": ALICE, **asked}
    signed = site.vault.client().adapter.post("/v1/ssh-user/sign/doorward-user", json=body)["data"]["signed_key"]
    file = door.directory / "alice-cert.pub"
    file.write_text(signed)
    return ("-o", f"CertificateFile={file}")


def test_a_certificate_of_vaults_opens_a_workspace_and_names_every_record(site: Site, certified: Door) -> None:
    ran = certified.ssh("psql -tAc 'select count(*) > 0 from orders'", options=certificate(site, certified))
    assert (ran.returncode, ran.stdout) == (0, b"t\n"), ran.stderr

    records = certified.audit()
    [config] = certified.audit("config")
    assert config["input"]["identity"]["via"] == ["certificate"]
    key_id = config["input"]["identity"]["key_id"]
    later = [record for record in records if record["seq"] >= config["seq"] and record.get("session")]
    assert {record.get("key_id") for record in later} == {key_id}
    shown = subprocess.run(["ssh-keygen", "-L", "-f", certified.directory / "alice-cert.pub"], capture_output=True)
    assert json.dumps(key_id).encode() in shown.stdout

    site.opa.put("authorities/vault/revoked", {"key_ids": [key_id]})
    again = certified.ssh("true", options=(*certificate(site, certified), "-o", "LogLevel=INFO"))
    assert again.returncode == 255
    assert b"doorward: certificate_revoked:" in again.stderr


def test_a_forced_command_that_vault_signed_runs_in_the_workspace(site: Site, certified: Door) -> None:
    asked = {"extensions": {}, "critical_options": {"force-command": "echo forced, not $SSH_ORIGINAL_COMMAND"}}
    options = certificate(site, certified, **asked)  # type: ignore[arg-type]  # nested objects are what Vault takes
    ran = certified.ssh("psql", options=options)
    assert (ran.returncode, ran.stdout) == (0, b"forced, not psql\n"), ran.stderr
