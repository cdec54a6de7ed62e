"""OIDC by a provider that can be told what to say: what is proven, what policy learns, and what is left behind."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.authn import Verified
from gateway.authn.device_flow import Invitation, NotGranted, granted
from gateway.authn.web import Web
from gateway.proofs import Oidc
from gateway.sections import SecretRef
from tests.authn.provider import (
    APPROVED,
    CLIENT,
    PENDING,
    Person,
    StandIn,
    hidden_in,
    verified,
    verifying,
)
from tests.policy.servers import always, never
from tests.waiting import until

WELL_KNOWN = "/.well-known/openid-configuration"


# -- proven -----------------------------------------------------------------------------------------------------------


async def test_an_approval_proves_who_it_is_and_says_what_policy_may_know(provider: StandIn) -> None:
    person = Person()
    provider.polls = [PENDING, APPROVED]

    found = await verified(provider, person)

    assert found == Verified(
        True,
        {
            "provider": "corp",
            "issuer": provider.url,
            "sub": "f00d",
            "preferred_username": "alice",
            "email": "alice@example.com",
            "email_verified": True,
            "groups": ["oncall", "staff"],
        },
    )
    assert f"{provider.url}/activate\n" in person.shown
    assert "ABCD-EFGH within 20 s" in person.shown
    assert "user_code=ABCD-EFGH" in person.shown
    assert person.prompts == []
    assert person.shown.isascii()
    assert len(person.shown) < 1024, "ssh cuts what is longer"


async def test_a_question_is_asked_where_policy_wants_one_and_holds_all_that_is_needed(provider: StandIn) -> None:
    person = Person()
    async with verifying(provider) as verifier:
        found = await verifier.verify(Oidc(kind="oidc", provider="corp", prompt="Press Enter: "), person.evidence())

    assert found.proven
    assert person.shown == ""
    [prompt] = person.prompts
    assert prompt.echo
    assert "ABCD-EFGH" in prompt.text
    assert prompt.text.endswith("\nPress Enter: ")


async def test_more_claims_come_when_the_settings_name_them_and_userinfo_cannot_overrule_the_token(
    provider: StandIn,
) -> None:
    provider.changes = {"roles": ["dba"], "groups": None, "department": "ops"}
    provider.person = {"email": "other@example.com", "team": "blue"}

    found = await verified(
        provider, groups_claim="roles", extra_claims=("department", "team", "nothing"), userinfo=True
    )

    assert found.claims["groups"] == ["dba"]
    assert found.claims["department"] == "ops"
    assert found.claims["team"] == "blue"
    assert found.claims["email"] == "alice@example.com"
    assert "address" not in found.claims
    assert "nothing" not in found.claims


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("groups", [f"group-{number}-{'x' * 60}" for number in range(1000)]),
        ("groups", "oncall"),
        ("groups", ["x" * 300]),
        ("groups", [{"name": "oncall"}]),
        ("email", "x" * 40_000),
        ("email", "\ud800"),
        ("auth_time", float("nan")),
        ("amr", [float("inf")]),
    ],
    ids=["many", "no list", "long name", "objects", "long text", "half a character", "no number", "endless"],
)
async def test_a_claim_that_does_not_fit_is_left_out_whole_and_named(provider: StandIn, claim: str, value: Any) -> None:
    provider.changes = {claim: value}

    found = await verified(provider)

    assert found.proven
    assert claim not in found.claims
    assert found.claims["left_out"] == [claim]
    assert found.claims["sub"] == "f00d"


async def test_all_claims_together_are_bounded(provider: StandIn) -> None:
    provider.person = {f"claim{number}": "x" * 30_000 for number in range(4)}

    found = await verified(provider, userinfo=True, extra_claims=("claim0", "claim1", "claim2", "claim3"))

    assert len(json.dumps(dict(found.claims))) < 50_000
    assert found.claims["left_out"] == ["claim1", "claim2", "claim3"]


# -- no approval ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "failure"), [("access_denied", "denied"), ("expired_token", "expired")])
async def test_no_approval_is_no_proof(provider: StandIn, said: str, failure: str) -> None:
    provider.polls = [PENDING, said]

    assert await verified(provider) == Verified(False, {"provider": "corp", "failure": failure})
    assert provider.count("/token") == 2, "nobody asks again"


async def test_who_never_answers_is_waited_for_as_long_as_policy_says(provider: StandIn) -> None:
    provider.polls = [PENDING]

    assert await verified(provider, seconds=0.5) == Verified(False, {"provider": "corp", "failure": "unanswered"})


async def test_nobody_waits_longer_than_the_code_is_good(provider: StandIn) -> None:
    provider.polls = [PENDING]
    provider.invitation = {"expires_in": 1}
    person = Person()

    assert (await verified(provider, person, seconds=900)).claims["failure"] == "unanswered"
    assert "within 1 s" in person.shown


async def test_polling_is_as_slow_as_the_provider_asks() -> None:
    said: list[tuple[int, dict[str, Any]]] = [
        (400, {"error": "authorization_pending"}),
        (400, {"error": "slow_down"}),
        (200, {"error": "slow_down", "interval": 40}),
        (503, {}),
        (503, {}),
        (200, {"access_token": "a", "token_type": "bearer"}),
    ]
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    async def token(_request: web.Request) -> web.StreamResponse:
        status, body = said.pop(0)
        return web.json_response(body, status=status)

    provider = StandIn()
    provider.instead["/token"] = token
    async with provider.open(), Web.open("x", None, 5) as site:
        invitation = Invitation(device_code="d", user_code="u", verification_uri="http://x/", expires_in=60, interval=7)
        await granted(site, f"{provider.url}/token", {"client_id": CLIENT}, {}, invitation, sleep)

    assert waited == [7, 7, 12, 40, 80, 160]
    form = provider.asked[0][1]
    assert form == {
        "client_id": CLIENT,
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": "d",
    }


async def test_expiry_by_github_s_other_name_is_expiry() -> None:
    provider = StandIn()
    provider.polls = ["token_expired"]
    async with provider.open(), Web.open("x", None, 5) as site:
        invitation = Invitation(
            device_code="d", user_code="u", verification_url="http://x/", expires_in=60, interval=0.1
        )
        with pytest.raises(NotGranted, match="expired"):
            await granted(site, f"{provider.url}/token", {}, {}, invitation)


@pytest.mark.parametrize("where", [WELL_KNOWN, "/device", "/token", "/keys", "/userinfo", "/revocation"])
async def test_cancelled_it_lets_go(provider: StandIn, where: str) -> None:
    provider.instead[where] = never
    provider.polls = [APPROVED]
    async with verifying(provider, userinfo=True, timeout_seconds=1) as verifier:
        task = asyncio.ensure_future(verifier.verify(Oidc(kind="oidc", provider="corp"), Person().evidence()))
        await until(lambda: provider.count(where))

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: provider.held == 0)

    if where in ("/keys", "/userinfo"):
        assert provider.count("/revocation") == 1, "a token that was had is given back all the same"


# -- the client, and what it leaves behind ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("methods", "basic"), [(["client_secret_basic"], True), (["client_secret_post"], False), (None, True)]
)
async def test_a_secret_travels_as_the_provider_wants_it(
    provider: StandIn, methods: list[str] | None, basic: bool, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("a b:c\n")
    provider.discovery = {"token_endpoint_auth_methods_supported": methods}

    assert (await verified(provider, client_secret=SecretRef(file=tmp_path / "secret"))).proven

    pair = base64.b64encode(b"doorward:a+b%3Ac").decode()
    for path, form, headers in provider.asked:
        if path in ("/device", "/token", "/revocation"):
            assert form["client_id"] == CLIENT
            assert (headers.get("Authorization") == f"Basic {pair}") is basic
            assert (form.get("client_secret") == "a b:c") is not basic


async def test_tokens_are_given_back_and_one_that_is_not_taken_back_is_told(
    provider: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await verified(provider)).proven
    [form] = [form for path, form, _ in provider.asked if path == "/revocation"]
    assert form["token"] == "refresh-token-secret"

    provider.instead["/revocation"] = always(status=503)
    assert (await verified(provider)).proven
    [told] = [record for record in caplog.records if record.getMessage() == "provider_kept_token"]
    assert vars(told)["provider"] == "corp"

    provider.discovery = {"revocation_endpoint": None}
    assert (await verified(provider)).proven
    assert provider.count("/revocation") == 2


async def test_no_cookie_of_one_login_is_sent_with_another(provider: StandIn) -> None:
    async def device(_request: web.Request) -> web.StreamResponse:
        answer = await provider._device({})
        answer.set_cookie("session", "one")
        return answer

    provider.instead["/device"] = device
    provider.polls = [APPROVED]
    async with verifying(provider) as verifier:
        for _ in range(2):
            await verifier.verify(Oidc(kind="oidc", provider="corp"), Person().evidence())

    assert not [headers for _, _, headers in provider.asked if "Cookie" in headers]


def test_what_holds_tokens_does_not_show_them() -> None:
    from gateway.authn.device_flow import Tokens
    from gateway.authn.web import Answer

    tokens = Tokens("access-token-secret", "eyJ", "refresh-token-secret")  # type: ignore[arg-type]  # the worst case

    assert hidden_in(repr(tokens)) == []
    assert hidden_in(repr(Answer(200, {"access_token": "access-token-secret"}))) == []
