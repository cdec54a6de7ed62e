"""One OpenID Connect provider: its discovery document, its device flow, its ID tokens."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import quote_plus

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, StringConstraints, ValidationError

from gateway.authn.claims import facts
from gateway.authn.device_flow import Invitation, Tokens, granted, invite, refused
from gateway.authn.id_token import checked
from gateway.authn.kept import Kept
from gateway.authn.keys import FRESH_SECONDS, Keys
from gateway.authn.web import Malformed, Web
from gateway.settings_authn import OidcSettings, is_safe

Endpoint = Annotated[str, StringConstraints(max_length=1000, pattern=r"^https?://[\x21-\x7e]+$")]


class Discovery(BaseModel):
    """What we use of OpenID Connect Discovery 1.0, section 3, and of RFC 8628 section 4."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    issuer: str
    device_authorization_endpoint: Endpoint
    token_endpoint: Endpoint
    jwks_uri: Endpoint
    userinfo_endpoint: Endpoint | None = None
    revocation_endpoint: Endpoint | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = Field(default=("client_secret_basic",))

    def endpoints(self) -> list[str]:
        return [value for name, value in self if name.endswith(("endpoint", "uri")) and value]


class OpenId:
    """See `oidc.Provider`."""

    def __init__(self, settings: OidcSettings, web: Web) -> None:
        self._settings = settings
        self._secret = settings.client_secret.read() if settings.client_secret else None
        self._web = web
        self._document = Kept(web)
        self._keys = Keys(web)

    @classmethod
    @asynccontextmanager
    async def open(cls, name: str, settings: OidcSettings) -> AsyncIterator[OpenId]:
        """Raises SettingsError; a provider that is down is noticed when it is needed."""
        async with Web.open(f"authn.oidc.{name}", settings.ca_file, settings.timeout_seconds) as web:
            yield cls(settings, web)

    async def login(self) -> OpenIdLogin:
        found = await self.discovered()
        form, headers = self._client(found)
        # RFC 8628 knows no nonce, and who does not know it ignores it; where it comes back, it must be this login's.
        nonce = secrets.token_urlsafe(24)
        asked = {**form, "scope": " ".join(self._settings.scopes), "nonce": nonce}
        invitation = await invite(self._web, found.device_authorization_endpoint, asked, headers)
        return OpenIdLogin(self, found, invitation, nonce)

    async def discovered(self) -> Discovery:
        """Raises VerifierUnavailable, also for a document that is another issuer's."""
        url = self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
        document = await self._document.read(url, FRESH_SECONDS)
        try:
            found = Discovery.model_validate(document)
        except ValidationError as error:
            raise Malformed(
                "the identity provider has no device flow",
                remedy="Nothing is wrong with what you typed. Platform team: its discovery document lacks what "
                "RFC 8628 and OpenID Connect need.",
            ) from error
        if found.issuer != self._settings.issuer:
            raise Malformed("the identity provider calls itself by another name than the settings do")
        if not all(map(is_safe, found.endpoints())):
            raise Malformed("the identity provider wants tokens to travel in the clear")
        return found

    async def granted(self, found: Discovery, invitation: Invitation) -> Tokens:
        form, headers = self._client(found)
        return await granted(self._web, found.token_endpoint, form, headers, invitation)

    async def facts(self, found: Discovery, tokens: Tokens, nonce: str) -> Mapping[str, JsonValue]:
        if tokens.id is None:
            raise Malformed("the identity provider sent no ID token")
        claims = await checked(tokens.id, self._keys, found.jwks_uri, self._settings, nonce)
        if self._settings.userinfo:
            claims = {**await self._userinfo(found, tokens.access, claims["sub"]), **claims}
        return {"issuer": found.issuer, **facts(claims, self._settings.groups_claim, self._settings.extra_claims)}

    async def _userinfo(self, found: Discovery, access: SecretStr, subject: str) -> Mapping[str, Any]:
        """What the provider adds; about somebody else, it is refused (OpenID Connect Core section 5.3.2)."""
        if found.userinfo_endpoint is None:
            raise Malformed("the identity provider has no userinfo endpoint")
        headers = {"authorization": f"Bearer {access.get_secret_value()}"}
        answer = await self._web.call("GET", found.userinfo_endpoint, headers=headers)
        if answer.status != 200:
            raise refused("userinfo", answer)
        if answer.members().get("sub") != subject:
            raise Malformed("the identity provider's userinfo is about somebody else")
        return answer.members()

    async def forget(self, found: Discovery, tokens: Tokens) -> None:
        """RFC 7009: the refresh token takes its access token with it.  Raises VerifierUnavailable."""
        if found.revocation_endpoint is None:
            return
        form, headers = self._client(found)
        token = tokens.refresh or tokens.access
        answer = await self._web.call(
            "POST", found.revocation_endpoint, data={**form, "token": token.get_secret_value()}, headers=headers
        )
        if answer.status != 200:
            raise refused("revocation", answer)

    def _client(self, found: Discovery) -> tuple[dict[str, str], dict[str, str]]:
        """Form and headers that say who we are (RFC 6749 section 2.3.1)."""
        client = self._settings.client_id
        if self._secret is None:
            return {"client_id": client}, {}
        secret = self._secret.get_secret_value()
        if "client_secret_basic" not in found.token_endpoint_auth_methods_supported:
            return {"client_id": client, "client_secret": secret}, {}
        pair = base64.b64encode(f"{quote_plus(client)}:{quote_plus(secret)}".encode()).decode()
        return {"client_id": client}, {"authorization": f"Basic {pair}"}


class OpenIdLogin:
    """See `oidc.Login`."""

    def __init__(self, provider: OpenId, found: Discovery, invitation: Invitation, nonce: str) -> None:
        self.invitation = invitation
        self._provider = provider
        self._found = found
        self._nonce = nonce

    async def granted(self) -> Tokens:
        return await self._provider.granted(self._found, self.invitation)

    async def facts(self, tokens: Tokens) -> Mapping[str, JsonValue]:
        return await self._provider.facts(self._found, tokens, self._nonce)

    async def forget(self, tokens: Tokens) -> None:
        await self._provider.forget(self._found, tokens)
