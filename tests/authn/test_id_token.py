"""ID tokens, from a provider that can be told to forge them: which prove somebody, and which prove nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.authn.kept import Kept
from gateway.authn.keys import AGAIN_SECONDS, FRESH_SECONDS, Keys, NoSuchKey
from gateway.authn.signed import TOKEN_LENGTH
from gateway.authn.web import Unreachable, Web
from gateway.proofs import Oidc
from tests.authn.provider import (
    APPROVED,
    CLIENT,
    KEY,
    KID,
    Person,
    StandIn,
    hidden_in,
    published,
    rsa,
    unavailable,
    verified,
    verifying,
)
from tests.policy.servers import always, never

ANOTHER = rsa()
WELL_KNOWN = "/.well-known/openid-configuration"


GOOD: dict[str, Callable[[StandIn], None]] = {
    "several audiences with azp": lambda it: it.changes.update(aud=[CLIENT, "other"]),
    "expired within the skew": lambda it: it.changes.update(exp=int(time.time()) - 20),
    "no azp": lambda it: it.changes.update(azp=None),
    "no kid and one key": lambda it: setattr(it, "forge", lambda: it.token(kid=None)),
    "the nonce": lambda it: setattr(it, "forge", lambda: with_nonce(it)),
}


def with_nonce(provider: StandIn) -> str:
    [nonce] = [form["nonce"] for path, form, _ in provider.asked if path == "/device"]
    provider.changes["nonce"] = nonce
    return provider.token()


@pytest.mark.parametrize("name", GOOD)
async def test_a_token_may_be(provider: StandIn, name: str) -> None:
    GOOD[name](provider)

    assert (await verified(provider)).proven


# -- a token that proves nothing --------------------------------------------------------------------------------------


def by_hand(header: dict[str, Any], claims: dict[str, Any], signature: Callable[[bytes], bytes]) -> str:
    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{encoded(signature(signed.encode()))}"


def hs256_with_the_public_key(provider: StandIn) -> str:
    pem = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "typ": "JWT", "kid": KID}
    return by_hand(header, provider.claims(), lambda text: hmac.new(pem, text, hashlib.sha256).digest())


def tampered(provider: StandIn) -> str:
    header, _, signature = provider.token().split(".")
    provider.changes["groups"] = ["admin"]
    return ".".join([header, provider.token().split(".")[1], signature])


def weak(provider: StandIn) -> str:
    key = rsa(1024)
    provider.keys = [published(key, KID)]
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        return provider.token(key)


def changed(**claims: Any) -> Callable[[StandIn], str]:
    def forge(provider: StandIn) -> str:
        provider.changes = claims
        return provider.token()

    return forge


def with_keys(keys: list[dict[str, Any]], kid: str | None = KID) -> Callable[[StandIn], str]:
    def forge(provider: StandIn) -> str:
        provider.keys = keys
        return provider.token(kid=kid)

    return forge


def nonsense(provider: StandIn, **claims: Any) -> str:
    """Of claims that no library of tokens would make."""
    return signed({**provider.claims(), **claims})


def signed(claims: Any) -> str:
    return signed_text(json.dumps(claims).encode())


def signed_text(text: bytes) -> str:
    return jwt.PyJWS().encode(text, KEY, "RS256", {"kid": KID})


def soon(seconds: int) -> int:
    return int(time.time()) + seconds


UNPUBLISHED = "signed by a key that the provider does not publish"

BAD: dict[str, tuple[str, Callable[[StandIn], str]]] = {
    "signed by another key": ("InvalidSignatureError", lambda it: it.token(ANOTHER)),
    "a key that is not published": (UNPUBLISHED, lambda it: it.token(ANOTHER, kid="key-2")),
    "no kid where there are two keys": (
        UNPUBLISHED,
        with_keys([published(KEY, KID), published(ANOTHER, "key-2")], kid=None),
    ),
    "a key for encryption": (UNPUBLISHED, with_keys([published(KEY, KID, use="enc")])),
    "a key for another algorithm": (UNPUBLISHED, with_keys([published(KEY, KID, alg="RS512")])),
    "two keys of one name": (UNPUBLISHED, with_keys([published(KEY, KID), published(ANOTHER, KID)])),
    "a weak key": ("InvalidKeyError", weak),
    "alg none": ("InvalidAlgorithmError", lambda it: by_hand({"alg": "none"}, it.claims(), lambda _: b"")),
    "alg none with a kid": (
        "InvalidAlgorithmError",
        lambda it: by_hand({"alg": "none", "kid": KID}, it.claims(), lambda _: b""),
    ),
    "alg nOnE": ("InvalidAlgorithmError", lambda it: by_hand({"alg": "nOnE", "kid": KID}, it.claims(), lambda _: b"")),
    "alg a list": (
        "InvalidAlgorithmError",
        lambda it: by_hand({"alg": ["RS256"], "kid": KID}, it.claims(), lambda _: b"x"),
    ),
    "HS256 with the public key": ("InvalidAlgorithmError", hs256_with_the_public_key),
    "an algorithm that is not allowed": ("InvalidAlgorithmError", lambda it: it.token(algorithm="RS384")),
    "ES256 by the key's owner, of RSA": (
        UNPUBLISHED,
        lambda it: it.token(ec.generate_private_key(ec.SECP256R1()), "ES256"),
    ),
    "an extension that must be understood": ("InvalidTokenError", lambda it: it.token(crit=["x"], x=1)),
    "tampered with": ("InvalidSignatureError", tampered),
    "another audience": ("InvalidAudienceError", changed(aud="other")),
    "no audience": ("MissingRequiredClaimError", changed(aud=None)),
    "several audiences without azp": ("MissingRequiredClaimError", changed(aud=[CLIENT, "other"], azp=None)),
    "azp another": ("InvalidAudienceError", changed(azp="other")),
    "another issuer": ("InvalidIssuerError", changed(iss="https://other.example")),
    "the issuer with a slash": ("InvalidIssuerError", lambda it: changed(iss=f"{it.url}/")(it)),
    "expired": ("ExpiredSignatureError", changed(exp=soon(-3600))),
    "no expiry": ("MissingRequiredClaimError", changed(exp=None)),
    "expiring never": ("DecodeError", lambda it: nonsense(it, exp=float("inf"))),
    "expiring at a list": ("DecodeError", lambda it: nonsense(it, exp=[1])),
    "issued at an object": ("InvalidIssuedAtError", lambda it: nonsense(it, iat={})),
    "begun at a text": ("DecodeError", lambda it: nonsense(it, nbf="soon")),
    "begun never": ("DecodeError", lambda it: nonsense(it, nbf=float("inf"))),
    "for an audience that is a number": ("InvalidAudienceError", lambda it: nonsense(it, aud=7)),
    "for audiences that are objects": ("InvalidAudienceError", lambda it: nonsense(it, aud=[{}])),
    "by an issuer that is a list": ("InvalidIssuerError", lambda it: nonsense(it, iss=[it.url])),
    "with claims that are a list": ("DecodeError", lambda it: signed([it.claims()])),
    "with claims that are deep": ("DecodeError", lambda it: signed_text(b"[" * 50_000)),
    "not yet": ("ImmatureSignatureError", changed(nbf=soon(3600))),
    "issued in the future": ("ImmatureSignatureError", changed(iat=soon(3600))),
    "no iat": ("MissingRequiredClaimError", changed(iat=None)),
    "no subject": ("MissingRequiredClaimError", changed(sub=None)),
    "an empty subject": ("InvalidTokenError", changed(sub="")),
    "a long subject": ("InvalidTokenError", changed(sub="x" * 256)),
    "a number for a subject": ("InvalidSubjectError", changed(sub=7)),
    "another login's nonce": ("InvalidTokenError", changed(nonce="other")),
    "no JWT": ("DecodeError", lambda _: "eyJ.nonsense"),
    "endless": ("DecodeError", lambda it: it.token() + "A" * TOKEN_LENGTH),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_token_proves_nothing_when_it_is(
    provider: StandIn, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    why, forge = BAD[name]
    provider.forge = lambda: forge(provider)

    with caplog.at_level(logging.DEBUG):
        code = await unavailable(provider)

    assert code == "provider_token_refused"
    [told] = [record for record in caplog.records if record.getMessage() == "id_token_refused"]
    assert vars(told)["why"] == why
    assert hidden_in("".join(str(vars(record)) for record in caplog.records)) == []
    assert provider.count("/revocation") == 1, "what came with it is given back"


async def test_no_id_token_is_no_proof(provider: StandIn) -> None:
    provider.polls = [{"access_token": "access-token-secret", "token_type": "Bearer"}]

    assert await unavailable(provider) == "provider_malformed"


async def test_userinfo_about_somebody_else_is_no_proof(provider: StandIn) -> None:
    provider.person = {"sub": "somebody-else"}

    assert await unavailable(provider, userinfo=True) == "provider_malformed"


# -- keys -------------------------------------------------------------------------------------------------------------


async def test_keys_and_discovery_are_asked_for_once_for_many_logins(provider: StandIn) -> None:
    provider.polls = [APPROVED]
    async with verifying(provider) as verifier:
        wanted = Oidc(kind="oidc", provider="corp")
        await asyncio.gather(*(verifier.verify(wanted, Person().evidence()) for _ in range(5)))

    assert provider.count("/token") == 5
    assert provider.count("/keys") == 1
    assert provider.count(WELL_KNOWN) == 1


async def test_a_new_key_is_fetched_but_not_at_each_unknown_one_and_an_old_one_is_dropped(provider: StandIn) -> None:
    now = 0.0
    async with Web.open("x", None, 5) as site:
        keys = Keys(site, lambda: now)
        url = f"{provider.url}/keys"
        assert (await keys.find(url, KID, "RS256")).key_id == KID

        provider.keys = [published(ANOTHER, "key-2")]
        with pytest.raises(NoSuchKey):
            await keys.find(url, "key-2", "RS256")
        assert provider.count("/keys") == 1, "not so soon again"

        now += AGAIN_SECONDS + 1
        assert (await keys.find(url, "key-2", "RS256")).key_id == "key-2"
        with pytest.raises(NoSuchKey):
            await keys.find(url, KID, "RS256")
        assert provider.count("/keys") == 2

        provider.keys = []
        now += FRESH_SECONDS + 1
        with pytest.raises(NoSuchKey):
            await keys.find(url, "key-2", "RS256")


async def test_an_old_document_is_not_used_when_the_provider_is_down(provider: StandIn) -> None:
    now = 0.0
    async with Web.open("x", None, 5) as site:
        kept = Kept(site, lambda: now)
        await kept.read(f"{provider.url}/keys", 10)
        provider.instead["/keys"] = always(status=503)
        assert await kept.read(f"{provider.url}/keys", 10)
        now = 11.0
        with pytest.raises(Unreachable):
            await kept.read(f"{provider.url}/keys", 10)


async def test_who_waits_for_the_requests_of_others_gives_up(provider: StandIn) -> None:
    provider.instead["/keys"] = never
    async with Web.open("x", None, 0.2) as site:
        kept = Kept(site)
        began = time.monotonic()
        reads = [kept.read(f"{provider.url}/keys", 10) for _ in range(50)]
        found = await asyncio.gather(*reads, return_exceptions=True)

    assert all(isinstance(one, Unreachable) for one in found)
    assert time.monotonic() - began < 5, "not fifty times the timeout"
