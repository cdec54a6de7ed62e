"""One-time codes by a real Vault's TOTP engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pyotp
import pytest
from pydantic import SecretStr

from gateway.authn.totp import TotpVerifier
from gateway.authn.used_codes import UsedCodes
from gateway.contracts.verifier import MakeTry, Outage, Try, VerifierContract, found, refusal, with_answer
from gateway.errors import VerifierUnavailable
from gateway.proofs import Totp
from gateway.sections import SecretRef
from gateway.settings_authn import TotpSettings, VaultAuthnSettings
from tests.stack.process import write_secret
from tests.stack.vault import Vault, bare_vault
from tests.waiting import until


def attempt(answer: str, account: str = "alice") -> Try:
    return with_answer(Totp.model_validate({"kind": "totp", "source": "vault", "account": account}), answer)


POLICY = (Path(__file__).parents[2] / "secrets" / "vault" / "policies" / "doorward-authn.hcl").read_text()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    with bare_vault(tmp_path_factory.mktemp("vault")) as vault:
        yield vault


@pytest.fixture
def vault(request: pytest.FixtureRequest, shared: Vault, tmp_path: Path) -> Iterator[Vault]:
    """The shared one, or one that may be taken away."""
    if "outage" not in request.fixturenames:
        yield shared
        return
    with bare_vault(tmp_path / "vault") as own:
        yield own


@pytest.fixture
def settings(vault: Vault, tmp_path: Path) -> VaultAuthnSettings:
    client = vault.client()
    if "totp/" not in client.sys.list_mounted_secrets_engines():
        client.adapter.post("/v1/sys/mounts/totp", json={"type": "totp"})
    client.sys.create_or_update_policy("doorward-authn", POLICY)
    made = client.auth.token.create(policies=["doorward-authn"], no_default_policy=True, period="60s")
    token = write_secret(tmp_path / "vault-authn.token", made["auth"]["client_token"])
    return VaultAuthnSettings(url=vault.url, token=SecretRef(file=token))


class TestVault(VerifierContract):
    """Each attempt that is right is another account's: Vault has its own clock, and takes no code twice."""

    @pytest.fixture
    async def verifier(self, settings: VaultAuthnSettings, tmp_path: Path) -> AsyncIterator[TotpVerifier]:
        async with TotpVerifier.open(TotpSettings(), settings, tmp_path) as opened:
            yield opened

    @pytest.fixture
    def accounts(self, request: pytest.FixtureRequest) -> Iterator[str]:
        return (f"{abs(hash(request.node.name))}-{number}" for number in count())

    @pytest.fixture
    def right(self, vault: Vault, accounts: Iterator[str]) -> MakeTry:
        def make() -> Try:
            account, secret = next(accounts), pyotp.random_base32()
            uri = pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name="x")
            vault.client().adapter.post(f"/v1/totp/keys/{account}", json={"url": uri})
            return attempt(pyotp.TOTP(secret).now(), account)

        ready = [make() for _ in range(3)]  # before the outage
        return lambda: ready.pop(0)

    @pytest.fixture
    def wrong(self, right: MakeTry) -> MakeTry:
        account = right().verification.account
        return lambda: attempt("000000", account)

    @pytest.fixture
    def unknown(self) -> MakeTry:
        return lambda: attempt("000000", "mallory")

    @pytest.fixture
    def outage(self, vault: Vault) -> Outage:
        async def end() -> None:
            await asyncio.to_thread(vault.process.end)

        return end

    async def test_no_code_is_good_twice_whoever_refuses_it(
        self, verifier: TotpVerifier, right: MakeTry, settings: VaultAuthnSettings, tmp_path: Path
    ) -> None:
        first, second = right(), right()
        assert (await found(verifier, first)).proven
        assert (await found(verifier, first)).claims == {"source": "vault", "used_before": True}

        # The gateway may have lost its state; Vault has not.
        async with TotpVerifier.open(TotpSettings(), settings, tmp_path / "another") as fresh:
            assert (await found(fresh, first)).claims == {"source": "vault", "used_before": True}

        # Vault forgets what it saw when it is restarted; the gateway does not.
        account = f"vault/totp/{second.verification.account}"
        assert await UsedCodes(tmp_path / "totp").claim(account, None, SecretStr(second.secrets[0]))
        assert (await found(verifier, second)).claims == {"source": "vault", "used_before": True}

    @pytest.mark.parametrize("name", [".", "..", "al ice", "älice", "a?b", "a%2fb"])
    async def test_a_name_that_vault_cannot_spell_is_wrong_and_no_error(
        self, verifier: TotpVerifier, name: str
    ) -> None:
        assert not (await found(verifier, attempt("123456", name))).proven

    async def test_an_engine_that_is_not_there_is_an_error(self, verifier: TotpVerifier) -> None:
        words = {"kind": "totp", "source": "vault", "mount": "nowhere", "account": "alice"}
        error = await refusal(verifier, with_answer(Totp.model_validate(words), "123456"))
        assert error.reasons[0].code == "vault_failed"

    async def test_the_token_may_check_codes_and_no_more(self, settings: VaultAuthnSettings, vault: Vault) -> None:
        assert settings.token is not None
        client = vault.client(settings.token.read().get_secret_value())
        for path in ("totp/keys/alice", "totp/keys", "totp/code/alice", "sys/mounts", "auth/token/create"):
            with pytest.raises(Exception, match=r"permission denied|Forbidden"):
                client.adapter.get(f"/v1/{path}")

    async def test_a_token_that_vault_does_not_know_is_an_error(
        self, settings: VaultAuthnSettings, vault: Vault, tmp_path: Path
    ) -> None:
        write_secret(tmp_path / "vault-authn.token", "hvs.nothing")
        async with TotpVerifier.open(TotpSettings(), settings, tmp_path) as verifier:
            await refusal(verifier, attempt("123456"))
            with pytest.raises(VerifierUnavailable, match="refuses the gateway's token"):
                await verifier.check()

    async def test_the_gateways_own_token_is_renewed(
        self, verifier: TotpVerifier, settings: VaultAuthnSettings, vault: Vault
    ) -> None:
        assert settings.token is not None
        token = settings.token.read().get_secret_value()

        def renewed() -> bool:
            return bool(vault.client().auth.token.lookup(token)["data"].get("last_renewal"))

        assert await until(renewed)
