"""The gateway known to Vault by its pod's service account: a real Vault has a real cluster review the token."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.credentials.vault import VaultIssuer
from gateway.credentials.vault_signer import Signer
from gateway.errors import CredentialsUnavailable
from gateway.settings import VaultSettings
from tests.credentials.test_vault import HOLDER, TTL, spec
from tests.stack.cluster import NAMESPACE, Cluster
from tests.stack.postgres import postgres
from tests.stack.process import write_secret
from tests.stack.vault import Vault, vault
from tests.waiting import SECONDS, until

ACCOUNT = "doorward-gateway"


@dataclass(frozen=True)
class Place:
    vault: Vault
    cluster: Cluster
    token_file: Path

    def settings(self, **kubernetes: Any) -> VaultSettings:
        own = {"role": ACCOUNT, "token_file": self.token_file, **kubernetes}
        return VaultSettings.model_validate({"url": self.vault.url, "kubernetes": own})

    def revoke_all(self) -> None:
        """Every token that a login has given."""
        client = self.vault.client()
        client.adapter.put("/v1/sys/leases/revoke-prefix/auth/kubernetes/login")


@pytest.fixture(scope="module")
def place(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("kubernetes")
    with postgres(directory / "postgres") as database, vault(directory / "vault", database, cluster) as server:
        file = write_secret(directory / "account.token", cluster.token_of(ACCOUNT, NAMESPACE, "vault"))
        yield Place(server, cluster, file)


async def refused(settings: VaultSettings) -> CredentialsUnavailable:
    async with VaultIssuer.open(settings) as issuer:
        with pytest.raises(CredentialsUnavailable) as caught:
            await issuer.check()
    return caught.value


async def test_the_service_account_is_all_that_it_takes(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with VaultIssuer.open(place.settings()) as issuer:
        await issuer.check()
        async with issuer.lease([spec()], HOLDER) as leases:
            assert leases.items[0].username
        token = issuer._token.read().get_secret_value()
    said = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert [record.message for record in caplog.records].count("vault_logged_in") == 1
    assert token not in said
    assert place.token_file.read_text() not in said


async def test_its_token_is_periodic_and_has_the_gateways_policies_alone(place: Place) -> None:
    async with VaultIssuer.open(place.settings()) as issuer:
        token = issuer._token.read().get_secret_value()
        found = place.vault.client(token).auth.token.lookup_self()["data"]
    assert found["policies"] == [ACCOUNT, "doorward-host", "doorward-proxy"]
    assert (found["period"], found["orphan"], found["explicit_max_ttl"]) == (86400, True, 0)


async def test_a_token_that_is_lost_is_replaced_and_its_sessions_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.credentials.vault.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("gateway.credentials.vault_token.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("gateway.credentials.vault_token.LONGEST_SECONDS", 0.2)
    async with VaultIssuer.open(place.settings()) as issuer:
        before = issuer._token.read()
        async with issuer.lease([spec()], HOLDER) as leases:
            await asyncio.to_thread(place.revoke_all)
            assert "was revoked" in await asyncio.wait_for(leases.wait_lost(), TTL + SECONDS)
        await until(lambda: issuer._token.read() != before)
        await issuer.check()
        async with issuer.lease([spec()], HOLDER):
            pass


async def test_the_token_of_the_account_is_read_anew_at_each_login(place: Place, tmp_path: Path) -> None:
    file = write_secret(tmp_path / "token", "not a token")
    settings = place.settings(token_file=file)
    async with VaultIssuer.open(settings) as issuer:
        with pytest.raises(CredentialsUnavailable, match="does not know the gateway"):
            await issuer.check()
        write_secret(file, place.token_file.read_text())
        await issuer.check()


async def test_signing_logs_in_the_same_way(place: Place) -> None:
    async with Signer.open(place.settings(), "ssh-host") as signer:
        with pytest.raises(CredentialsUnavailable) as caught:
            await signer.signed("signing nothing", "doorward-host", public_key="none", cert_type="host")
    assert caught.value.reasons[0].code == "vault_failed", "Vault has looked at the key, so it let us in"


async def test_whoever_is_not_the_gateway_is_refused_with_a_remedy(place: Place, tmp_path: Path) -> None:
    another = write_secret(tmp_path / "another", place.cluster.token_of("default", NAMESPACE, "vault"))
    astray = write_secret(tmp_path / "astray", place.cluster.token_of(ACCOUNT, NAMESPACE))
    for wrong in (
        {"token_file": another}, {"token_file": astray}, {"role": "no-such-role"}, {"mount": "elsewhere"},
    ):  # fmt: skip
        reason = (await refused(place.settings(**wrong))).reasons[0]
        assert reason.code == "vault_login_denied", wrong
        assert "credentials.vault.kubernetes.role" in reason.remedy
    reason = (await refused(place.settings(token_file=tmp_path / "none"))).reasons[0]
    assert reason.code == "vault_token_missing"
    assert "credentials.vault.kubernetes.token_file" in reason.remedy


async def test_a_cluster_that_does_not_answer_refuses_in_time_and_whoever_is_in_goes_on(place: Place) -> None:
    async with VaultIssuer.open(place.settings()) as inside:
        await inside.check()
        with place.cluster.stopped_api():
            began = time.monotonic()
            assert (await refused(place.settings())).reasons[0].code == "vault_unreachable"
            assert time.monotonic() - began < SECONDS
            async with inside.lease([spec()], HOLDER):
                pass
    async with VaultIssuer.open(place.settings()) as again:
        await again.check()
