"""OIDC against a real Keycloak: its device flow, its tokens, its groups, and a person with a browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.authn import Evidence, Prompt, Verified
from gateway.authn.oidc import OidcVerifier
from gateway.authn.openid import OpenId
from gateway.errors import VerifierUnavailable
from gateway.proofs import Oidc
from gateway.sections import SecretRef
from gateway.settings_authn import AuthnSettings, OidcSettings
from tests.stack.keycloak import CLIENT, CLIENT_SECRET, CLIENT_WITH_SECRET, Keycloak, answer

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]  # Keycloak starts in twenty seconds, or a minute when busy


class Reader:
    """Whoever reads the address and goes there."""

    def __init__(self, name: str, password: str, *, approve: bool = True) -> None:
        self._way = (name, password)
        self._approve = approve
        self.page = ""

    async def __call__(self, instruction: str, prompts: Sequence[Prompt]) -> Sequence[SecretStr]:
        url = re.findall(r"^Or open (\S+)$", instruction, re.M)[0]
        self.page = await asyncio.to_thread(answer, url, *self._way, approve=self._approve)
        return []


async def verified(server: Keycloak, reader: Reader, **settings: Any) -> Verified:
    corp = OidcSettings(**{"issuer": server.issuer, "client_id": CLIENT, "timeout_seconds": 30, **settings})
    async with OidcVerifier.open(AuthnSettings(oidc={"corp": corp})) as verifier:
        evidence = Evidence(login="alice", connection_id="c1", client_address="192.0.2.1", ask=reader)
        return await verifier.verify(Oidc(kind="oidc", provider="corp", within_seconds=120), evidence)


async def test_an_approval_proves_who_it_is_and_leaves_nobody_logged_in(identity_provider: Keycloak) -> None:
    password = identity_provider.add_user("carol", ["oncall", "staff"])
    reader = Reader("carol", password)

    found = await verified(identity_provider, reader, userinfo=True, extra_claims=("family_name",))

    assert found.proven
    assert "Device Login Successful" in reader.page
    claims: dict[str, Any] = dict(found.claims)
    assert claims.pop("sub")
    assert claims.pop("auth_time")
    assert sorted(claims.pop("groups")) == ["oncall", "staff"]
    assert claims == {
        "provider": "corp",
        "issuer": identity_provider.issuer,
        "preferred_username": "carol",
        "email": "carol@example.com",
        "email_verified": True,
        "acr": "1",
        "family_name": "Example",
    }
    assert identity_provider.sessions("carol") == [], "the tokens were given back, and the session with them"


async def test_a_client_with_a_secret_is_known_by_it_alone(identity_provider: Keycloak, tmp_path: Path) -> None:
    password = identity_provider.add_user("frank")
    file = tmp_path / "secret"
    client = {"client_id": CLIENT_WITH_SECRET, "client_secret": SecretRef(file=file)}

    file.write_text(CLIENT_SECRET)
    assert (await verified(identity_provider, Reader("frank", password), **client)).proven
    assert identity_provider.sessions("frank") == []

    file.write_text("wrong")
    with pytest.raises(VerifierUnavailable) as caught:
        await verified(identity_provider, Reader("frank", password), **client)
    assert caught.value.reasons[0].code == "provider_refused"


async def test_a_denial_is_no_proof(identity_provider: Keycloak) -> None:
    password = identity_provider.add_user("dave")

    found = await verified(identity_provider, Reader("dave", password, approve=False))

    assert found == Verified(False, {"provider": "corp", "failure": "denied"})


async def test_a_client_that_keycloak_does_not_know_is_told_apart_from_a_person_who_may_not(
    identity_provider: Keycloak,
) -> None:
    with pytest.raises(VerifierUnavailable) as caught:
        await verified(identity_provider, Reader("nobody", ""), client_id="nobody")
    assert caught.value.reasons[0].code == "provider_refused"


async def test_an_issuer_by_another_of_its_names_is_refused(identity_provider: Keycloak) -> None:
    with pytest.raises(VerifierUnavailable, match="another name"):
        await verified(identity_provider, Reader("nobody", ""), issuer=f"{identity_provider.issuer}/")


async def test_a_token_of_another_login_is_refused_by_its_nonce(identity_provider: Keycloak) -> None:
    """RFC 8628 has no nonce; Keycloak puts the one that it is sent with into the token."""
    password = identity_provider.add_user("erin")
    corp = OidcSettings(issuer=identity_provider.issuer, client_id=CLIENT, timeout_seconds=30)
    async with OpenId.open("corp", corp) as provider:
        mine, other = await provider.login(), await provider.login()
        url = mine.invitation.verification_uri_complete
        assert url
        await asyncio.to_thread(answer, url, "erin", password)
        tokens = await mine.granted()

        assert (await mine.facts(tokens))["preferred_username"] == "erin"
        with pytest.raises(VerifierUnavailable, match="does not prove"):
            await other.facts(tokens)
