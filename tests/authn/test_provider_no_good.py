"""A provider that is down, slow, huge, or none: nothing is proven, in bounded time, and the operator learns why."""

from __future__ import annotations

import logging
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.authn.fetch import ANSWER_BYTES
from gateway.authn.web import Malformed, Web
from gateway.contracts.verifier import everything_in
from gateway.errors import SettingsError, VerifierUnavailable
from gateway.proofs import Oidc
from gateway.settings_authn import AuthnSettings
from tests.authn.provider import (
    APPROVED,
    CLIENT,
    KID,
    Person,
    StandIn,
    hidden_in,
    unavailable,
    verified,
    verifying,
)
from tests.policy.servers import always, never
from tests.policy.test_opa import certificates

WELL_KNOWN = "/.well-known/openid-configuration"


# -- the provider is no good ------------------------------------------------------------------------------------------


async def inflates(_request: web.Request) -> web.StreamResponse:
    packed = zlib.compress(b" " * 32 * 2**20, 9)
    return web.Response(body=packed, headers={"Content-Encoding": "deflate", "Content-Type": "application/json"})


NO_GOOD: dict[str, tuple[Callable[[StandIn], Any], str]] = {
    "answers 500 to discovery": (
        lambda it: it.instead.update({WELL_KNOWN: always(status=500)}),
        "provider_unreachable",
    ),
    "answers 404 to discovery": (lambda it: it.instead.update({WELL_KNOWN: always(status=404)}), "provider_malformed"),
    "answers HTML": (lambda it: it.instead.update({WELL_KNOWN: always(b"<html>")}), "provider_malformed"),
    "answers a list": (lambda it: it.instead.update({WELL_KNOWN: always([])}), "provider_malformed"),
    "answers without end": (
        lambda it: it.instead.update({WELL_KNOWN: always(b'{"a": "' + b"x" * ANSWER_BYTES + b'"}')}),
        "provider_malformed",
    ),
    "answers very deep": (lambda it: it.instead.update({WELL_KNOWN: always(b"[" * 100_000)}), "provider_malformed"),
    "wants tokens in the clear": (
        lambda it: it.discovery.update(token_endpoint="http://127.0.0.1.example/token"),
        "provider_malformed",
    ),
    "is another issuer": (lambda it: it.discovery.update(issuer="https://other.example"), "provider_malformed"),
    "has no device flow": (lambda it: it.discovery.update(device_authorization_endpoint=None), "provider_malformed"),
    "refuses the client": (
        lambda it: it.instead.update({"/device": always({"error": "invalid_client"}, 401)}),
        "provider_refused",
    ),
    "gives a code that would command a terminal": (
        lambda it: it.invitation.update(user_code="\x1b]0;x\x07"),
        "provider_malformed",
    ),
    "gives an address that is none": (
        lambda it: it.invitation.update(verification_uri="javascript:alert(1)"),
        "provider_malformed",
    ),
    "says what no provider says": (lambda it: it.polls.insert(0, "server_on_fire"), "provider_refused"),
    "gives a token of no type": (lambda it: it.polls.insert(0, {"access_token": "x"}), "provider_malformed"),
    "fails at each poll": (lambda it: it.polls.__setitem__(slice(None), [503]), "provider_unreachable"),
    "has no keys": (lambda it: it.instead.update({"/keys": always({})}), "provider_malformed"),
    "has too many keys": (lambda it: it.keys.extend(it.keys * 100), "provider_malformed"),
    "has a broken key": (lambda it: it.keys.__setitem__(0, {"kty": "RSA", "kid": KID, "n": "!"}), "provider_malformed"),
}


@pytest.mark.parametrize("name", NO_GOOD)
async def test_nothing_is_proven_when_the_provider(
    provider: StandIn, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, code = NO_GOOD[name]
    spoil(provider)

    with caplog.at_level(logging.DEBUG):
        assert await unavailable(provider) == code

    assert hidden_in("".join(str(vars(record)) for record in caplog.records)) == []


@pytest.mark.parametrize(
    ("sent", "why"),
    [(inflates, "nonsense"), (always(b" " * (ANSWER_BYTES + 1)), "more than anybody should read")],
    ids=["inflates", "long"],
)
async def test_no_more_is_read_than_a_provider_has_to_say(provider: StandIn, sent: Any, why: str) -> None:
    """Blanks alone, once unpacked and all of them read, would be an empty answer."""
    provider.instead["/keys"] = sent
    async with Web.open("x", None, 5) as site:
        with pytest.raises(Malformed, match=why):
            await site.call("GET", f"{provider.url}/keys")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/token", b'{"access_token": "access-token-secret", "id'),
        ("/token", {"access_token": ["access-token-secret"], "token_type": "Bearer"}),
        ("/device", {"device_code": "device-code-secret", "user_code": "x"}),
    ],
    ids=["breaks off", "of another type", "half a code"],
)
async def test_an_error_does_not_quote_the_answer(provider: StandIn, path: str, said: Any) -> None:
    provider.instead[path] = always(said)
    with pytest.raises(Malformed) as caught:
        await verified(provider)

    assert hidden_in("".join(traceback.format_exception(caught.value)) + everything_in(caught.value)) == []


async def test_nobody_is_followed_elsewhere(provider: StandIn) -> None:
    async def elsewhere(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(f"{provider.url}/other")

    provider.instead = {"/device": elsewhere, "/other": always({})}
    with pytest.raises(Malformed, match="elsewhere"):
        await verified(provider)
    assert provider.count("/other") == 0


async def test_a_provider_that_is_down_or_silent_is_given_up_in_time(provider: StandIn) -> None:
    provider.instead[WELL_KNOWN] = never
    began = time.monotonic()

    assert await unavailable(provider, timeout_seconds=0.2) == "provider_unreachable"
    assert await unavailable(provider, issuer="http://127.0.0.1:1") == "provider_unreachable"
    assert time.monotonic() - began < 10


async def test_endpoints_in_the_clear_are_refused_and_a_certificate_must_be_of_the_ca(
    tmp_path: Path,
) -> None:
    import ssl

    ca, certificate, key = certificates(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with StandIn().open(tls) as provider:
        provider.polls = [APPROVED]
        assert (await verified(provider, ca_file=ca)).proven
        assert await unavailable(provider) == "verifier_untrusted"
        # This one is on loopback and so may do it; only the name of the issuer makes it another.
        issuer = provider.url.replace("127.0.0.1", "idp.example")
        with pytest.raises(ValueError, match="https"):
            provider.settings(issuer=issuer.replace("https", "http"))


async def test_a_ca_file_that_is_none_is_a_settings_error(provider: StandIn, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"authn\.oidc\.corp\.ca_file"):
        await verified(provider, ca_file=tmp_path / "none.pem")


async def test_a_provider_that_the_settings_do_not_have_is_named(provider: StandIn) -> None:
    async with verifying(provider) as verifier:
        with pytest.raises(VerifierUnavailable, match="'other'"):
            await verifier.verify(Oidc(kind="oidc", provider="other"), Person().evidence())


async def test_nothing_can_be_shown_without_keyboard_interactive(provider: StandIn) -> None:
    from dataclasses import replace

    async with verifying(provider) as verifier:
        with pytest.raises(VerifierUnavailable, match="browser"):
            await verifier.verify(Oidc(kind="oidc", provider="corp"), replace(Person().evidence(), ask=None))


# -- settings ---------------------------------------------------------------------------------------------------------

OIDC = {"issuer": "https://idp.example/realms/corp", "client_id": CLIENT}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"issuer": "http://idp.example"}, "issuer"),
        ({"issuer": "http://127.0.0.1.example"}, "issuer"),
        ({"issuer": "http://localhost.example"}, "issuer"),
        ({"issuer": "https://idp.example/?x=1"}, "issuer"),
        ({"algorithms": ("HS256",)}, "algorithms"),
        ({"algorithms": ("none",)}, "algorithms"),
        ({"algorithms": ()}, "algorithms"),
        ({"scopes": ("profile",)}, "openid"),
        ({"extra_claims": ("provider",)}, "extra_claims"),
        ({"groups_claim": "issuer"}, "extra_claims"),
        ({"clock_skew_seconds": 3600}, "clock_skew_seconds"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
    ],
    ids=str,
)
def test_settings_that_would_be_a_hole_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        AuthnSettings(oidc={"corp": {**OIDC, **change}})


def test_a_name_is_one_provider_s() -> None:
    with pytest.raises(ValueError, match="corp"):
        AuthnSettings(oidc={"corp": OIDC}, github={"corp": {"client_id": "x"}})
