"""Static secrets out of a real Vault's KV engine: which version, by whose right, and that nobody else sees them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.contracts.issuer import holder
from gateway.credentials import Issuer
from gateway.credentials.vault import VaultIssuer
from gateway.deliveries import CredentialSpec, FileDelivery, RedisDelivery, SecretFile, StaticSecret
from gateway.errors import CredentialsUnavailable
from tests.stack.kinds import SECRET, Kinds


@pytest.fixture
async def issuer(kinds: Kinds) -> AsyncIterator[Issuer]:
    async with VaultIssuer.open(kinds.settings()) as issuer:
        yield issuer


def secret(path: str = SECRET, **changes: Any) -> CredentialSpec:
    return CredentialSpec(
        name="supplier",
        issuer="vault",
        secret=StaticSecret(**{"mount": "kv", "path": path, **changes}),
        ttl_seconds=5,
        deliver=FileDelivery(kind="file", files=(SecretFile(path="supplier.json"),)),
    )


async def refusal(issuer: Issuer, *specs: CredentialSpec) -> CredentialsUnavailable:
    with pytest.raises(CredentialsUnavailable) as refused:
        async with issuer.lease(specs, holder()):
            pass
    return refused.value


async def test_the_newest_version_or_the_one_that_is_named(issuer: Issuer, kinds: Kinds) -> None:
    old, new = kinds.keep(api="old"), kinds.keep(api="new", port=8443)
    async with issuer.lease([secret(), secret(version=old)], holder()) as leases:
        newest, pinned = leases.items
    assert (newest.secret, newest.version) == ({"api": "new", "port": 8443}, new)
    assert (pinned.secret, pinned.version) == ({"api": "old"}, old)
    assert newest.facts() == {"name": "supplier", "lease_id": "", "mount": "kv", "path": SECRET, "version": new}


async def test_what_is_not_there_any_more_is_refused_by_name(issuer: Issuer, kinds: Kinds) -> None:
    old, _ = kinds.keep(api="old"), kinds.keep(api="new")
    kinds.vault.client().adapter.post(f"/v1/kv/delete/{SECRET}", json={"versions": [old]})
    for wanted, said in (
        (secret(version=old), f"no secret kv/data/{SECRET} in version {old}"),
        (secret(version=old + 99), f"no secret kv/data/{SECRET} in version {old + 99}"),
    ):
        refused = await refusal(issuer, wanted)
        assert refused.reasons[0].code == "credential_secret_unknown"
        assert said in refused.reasons[0].message


@pytest.mark.parametrize(
    "other",
    [{"path": "stock/other"}, {"path": "stock"}, {"path": f"{SECRET}/below"}, {"mount": "sys", "path": "x"}],
)
async def test_the_sessions_token_may_read_what_its_policy_names_alone(
    issuer: Issuer, kinds: Kinds, other: dict[str, str]
) -> None:
    kinds.keep("stock/other", api="x")
    assert (await refusal(issuer, secret(**other))).reasons[0].code == "vault_denied"


async def test_one_that_fails_takes_back_the_leases_beside_it(issuer: Issuer, kinds: Kinds) -> None:
    deliver = RedisDelivery(kind="redis", host="cache", port=6379)
    beside = CredentialSpec(name="c", issuer="vault", role="cache-readonly", ttl_seconds=600, deliver=deliver)
    await refusal(issuer, beside, secret("stock/none"))
    assert not [user for user in kinds.redis.command("ACL", "USERS").split() if user.startswith("V_")]


async def test_the_secret_is_in_no_log_and_no_repr(
    issuer: Issuer, kinds: Kinds, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    kinds.keep(api="s3cret-of-the-supplier")
    async with issuer.lease([secret()], holder()) as leases:
        shown = repr(leases.items) + str(leases.items[0].facts())
    assert "s3cret" not in shown
    assert "s3cret" not in "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)


async def test_a_token_that_is_revoked_outside_is_lost(issuer: Issuer, kinds: Kinds) -> None:
    kinds.keep(api="x")
    async with issuer.lease([secret()], holder("s-lost")) as leases:
        client = kinds.vault.client()
        for accessor in client.list("auth/token/accessors")["data"]["keys"]:
            found = client.adapter.post("/v1/auth/token/lookup-accessor", json={"accessor": accessor})["data"]
            if (found["meta"] or {}).get("doorward.session") == "s-lost":
                client.adapter.post("/v1/auth/token/revoke-accessor", json={"accessor": accessor})
        async with asyncio.timeout(30):
            assert "session's Vault token" in await leases.wait_lost()
