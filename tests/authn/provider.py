"""An OpenID Connect provider with a device flow (RFC 8628), small enough to be told how to misbehave."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm
from pydantic import SecretStr

from gateway.authn import Evidence, Prompt, Verified
from gateway.authn.oidc import OidcVerifier
from gateway.errors import VerifierUnavailable
from gateway.proofs import Oidc
from gateway.settings_authn import AuthnSettings, OidcSettings
from tests.policy.servers import Handler, serving

CLIENT = "doorward"
KID = "key-1"
PENDING = "authorization_pending"
APPROVED = "approved"


def rsa(bits: int = 2048) -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=bits)


KEY = rsa()
Answer = Callable[[Mapping[str, str]], Awaitable[web.Response]]


def published(key: RSAPrivateKey, kid: str | None, **more: Any) -> dict[str, Any]:
    """The public half as a provider publishes it."""
    found: dict[str, Any] = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    found.pop("key_ops", None)
    return {**found, "use": "sig", **({"kid": kid} if kid else {}), **more}


class StandIn:
    """One provider.  What it is asked is kept; what it says can be replaced, path by path."""

    def __init__(self) -> None:
        self.url = ""
        self.polls: list[Any] = [APPROVED]
        """What it says to each poll, the last one for ever: a word of RFC 8628, a body, or a status without one."""
        self.keys: list[dict[str, Any]] = [published(KEY, KID)]
        self.instead: dict[str, Handler] = {}
        self.forge: Callable[[], str] = lambda: self.token()
        self.changes: dict[str, Any] = {}
        self.discovery: dict[str, Any] = {}
        self.invitation: dict[str, Any] = {}
        self.person: dict[str, Any] = {}
        self.asked: list[tuple[str, Mapping[str, str], Mapping[str, str]]] = []
        self.held = 0
        """Requests that wait for an answer."""

    @asynccontextmanager
    async def open(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[StandIn]:
        async with serving(self._answer, tls) as self.url:
            yield self

    def settings(self, **changes: Any) -> OidcSettings:
        return OidcSettings(**{"issuer": self.url, "client_id": CLIENT, "timeout_seconds": 5, **changes})

    def claims(self) -> dict[str, Any]:
        """Of a good token; `changes` replace, None removes."""
        now = int(time.time())
        good = {
            "iss": self.url, "sub": "f00d", "aud": CLIENT, "exp": now + 300, "iat": now, "azp": CLIENT,
            "preferred_username": "alice", "groups": ["oncall", "staff"], "email": "alice@example.com",
            "email_verified": True, "address": "secret street 1",
        }  # fmt: skip
        return {name: value for name, value in {**good, **self.changes}.items() if value is not None}

    def token(self, key: Any = KEY, algorithm: str = "RS256", kid: str | None = KID, **headers: Any) -> str:
        return jwt.encode(self.claims(), key, algorithm, {**({"kid": kid} if kid else {}), **headers})

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _, _ in self.asked)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        form = {name: values[0] for name, values in parse_qs(await request.text()).items()}
        self.asked.append((request.path, form, dict(request.headers)))
        self.held += 1
        try:
            if request.path in self.instead:
                return await self.instead[request.path](request)
            own: Answer = getattr(self, f"_{request.path.rpartition('/')[2].replace('-', '_')}")
            return await own(form)
        finally:
            self.held -= 1

    async def _openid_configuration(self, _form: Mapping[str, str]) -> web.Response:
        document = {
            "issuer": self.url,
            **{f"{name}_endpoint": f"{self.url}/{name}" for name in ("token", "userinfo", "revocation")},
            "device_authorization_endpoint": f"{self.url}/device",
            "jwks_uri": f"{self.url}/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            **self.discovery,
        }
        return web.json_response({name: value for name, value in document.items() if value is not None})

    async def _device(self, _form: Mapping[str, str]) -> web.Response:
        good = {
            "device_code": "device-code-secret", "user_code": "ABCD-EFGH", "verification_uri": f"{self.url}/activate",
            "verification_uri_complete": f"{self.url}/activate?user_code=ABCD-EFGH", "expires_in": 60, "interval": 0.1,
        }  # fmt: skip
        return web.json_response({**good, **self.invitation})

    async def _token(self, _form: Mapping[str, str]) -> web.Response:
        said = self.polls.pop(0) if len(self.polls) > 1 else self.polls[0]
        if isinstance(said, int):
            return web.Response(status=said)
        if isinstance(said, dict):
            return web.json_response(said, status=400 if "error" in said else 200)
        if said != APPROVED:
            return web.json_response({"error": said}, status=400)
        return web.json_response(
            {
                "access_token": "access-token-secret", "refresh_token": "refresh-token-secret", "token_type": "Bearer",
                "id_token": self.forge(), "expires_in": 60,
            }
        )  # fmt: skip

    async def _keys(self, _form: Mapping[str, str]) -> web.Response:
        return web.json_response({"keys": self.keys})

    async def _userinfo(self, _form: Mapping[str, str]) -> web.Response:
        return web.json_response({"sub": "f00d", **self.person})

    async def _revocation(self, _form: Mapping[str, str]) -> web.Response:
        return web.Response()


class Person:
    """Whoever is at the door: what they were shown, and what they were asked."""

    def __init__(self) -> None:
        self.shown = ""
        self.prompts: list[Prompt] = []

    async def __call__(self, instruction: str, prompts: Sequence[Prompt]) -> Sequence[SecretStr]:
        self.shown += instruction
        self.prompts += prompts
        return [SecretStr("") for _ in prompts]

    def evidence(self) -> Evidence:
        return Evidence(login="alice", connection_id="c1", client_address="192.0.2.1", ask=self)


@asynccontextmanager
async def verifying(provider: StandIn, **settings: Any) -> AsyncIterator[OidcVerifier]:
    async with OidcVerifier.open(AuthnSettings(oidc={"corp": provider.settings(**settings)})) as verifier:
        yield verifier


async def verified(provider: StandIn, person: Person | None = None, seconds: float = 20, **settings: Any) -> Verified:
    async with verifying(provider, **settings) as verifier:
        wanted = Oidc(kind="oidc", provider="corp", within_seconds=seconds)
        return await verifier.verify(wanted, (person or Person()).evidence())


async def unavailable(provider: StandIn, **settings: Any) -> str:
    """The code of the error."""
    with pytest.raises(VerifierUnavailable) as caught:
        await verified(provider, **settings)
    assert caught.value.reasons[0].remedy
    return caught.value.reasons[0].code


def hidden_in(text: str) -> list[str]:
    """The secrets of a login that stand in `text`."""
    # OPA's log has other tests' keys in it, and "eyJ" alone is in one of some thousand of those.
    tokens = re.findall(r"eyJ[\w-]+\.eyJ", text)
    return [
        *tokens,
        *(word for word in ("device-code-secret", "access-token-secret", "refresh-token-secret") if word in text),
    ]
