"""Settings of what proves who somebody is: what a verification that policy names is made with."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from gateway.sections import ClientName, SecretRef, Section

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a key that only the provider has.  `none` and HS* cannot be allowed: everybody could make one."""

Word = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,256}$")]


def is_safe(url: str) -> bool:
    """Whether tokens may travel to and from `url`: by TLS, or within this machine."""
    address = urlsplit(url)
    host = address.hostname or ""
    try:
        is_here = ip_address(host).is_loopback
    except ValueError:  # a name; 127.0.0.1.example is somebody else's
        is_here = host == "localhost"
    return address.scheme == "https" or is_here


def _tls_but_on_loopback(url: str) -> str:
    if not is_safe(url):
        raise ValueError("must be https: secrets travel to it and back (plain http is for loopback only)")
    return url


ProviderUrl = Annotated[
    str,
    StringConstraints(max_length=500, pattern=r"^https?://[^/?#\s]+[^?#\s]*$"),
    AfterValidator(_tls_but_on_loopback),
]

OWN_CLAIMS = frozenset({"provider", "issuer", "failure", "left_out"})
"""Names of facts that are the gateway's own words, so no provider may speak them."""


class OidcSettings(Section):
    """An OpenID Connect provider whose device flow proves who somebody is."""

    issuer: ProviderUrl = Field(pattern=r"^https?://")
    client_id: Word
    client_secret: SecretRef | None = None
    scopes: tuple[Word, ...] = ("openid", "profile", "email")
    ca_file: Path | None = None
    timeout_seconds: float = Field(default=5, gt=0, le=30, description="for each request")
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "PS256", "ES256", "EdDSA"), min_length=1)
    clock_skew_seconds: float = Field(default=30, ge=0, le=300)
    groups_claim: Word = "groups"
    extra_claims: tuple[Word, ...] = Field(default=(), max_length=20)
    userinfo: bool = False

    @model_validator(mode="after")
    def _sensible(self) -> OidcSettings:
        if "openid" not in self.scopes:
            raise ValueError("scopes: must hold openid: without it there is no ID token")
        if taken := OWN_CLAIMS.intersection((*self.extra_claims, self.groups_claim)):
            raise ValueError(f"extra_claims: {', '.join(sorted(taken))}: the gateway itself states these")
        return self


class GithubSettings(Section):
    """GitHub, or a GitHub Enterprise Server, whose device flow proves who somebody is."""

    client_id: Word
    client_secret: SecretRef | None = None
    url: ProviderUrl = Field(default="https://github.com", pattern=r"^https?://")
    api_url: ProviderUrl = Field(default="https://api.github.com", pattern=r"^https?://")
    scopes: tuple[Word, ...] = ("read:org",)
    ca_file: Path | None = None
    timeout_seconds: float = Field(default=5, gt=0, le=30, description="for each request")


SecretUrl = Annotated[
    str,
    StringConstraints(max_length=500, pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$"),
    AfterValidator(_tls_but_on_loopback),
]
"""Where secrets are sent to."""

Origin = Annotated[
    str, StringConstraints(max_length=300, pattern=r"^https?://[^/?#@\s]+$"), AfterValidator(_tls_but_on_loopback)
]


class VaultAuthnSettings(Section):
    """A Vault whose auth methods prove passwords, and whose TOTP engine proves codes."""

    url: SecretUrl = Field(pattern=r"^https?://")
    token: SecretRef | None = Field(default=None, description="for the TOTP engine; passwords need none")
    ca_file: Path | None = None
    namespace: str | None = None
    timeout_seconds: float = Field(default=5, gt=0, le=30, description="for each verification")


class WebhookSettings(Section):
    """A server that speaks ContainerSSH's protocol."""

    url: SecretUrl = Field(pattern=r"^https?://", description="/password, /pubkey and /authz are below it")
    config_url: SecretUrl | None = Field(default=None, pattern=r"^https?://")
    token: SecretRef | None = Field(default=None, description="sent as bearer token")
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    timeout_seconds: float = Field(default=5, gt=0, le=30, description="for each request")

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> WebhookSettings:
        if self.client_key is not None and self.client_certificate is None:
            raise ValueError("client_key: belongs to a client_certificate, which is not named")
        return self


class KeyListsSettings(Section):
    """Where lists of keys may be fetched from."""

    origins: tuple[Origin, ...] = Field(default=(), description="such as https://github.com; none: no list at all")
    ca_file: Path | None = None
    timeout_seconds: float = Field(default=5, gt=0, le=30, description="for each verification")


class TotpSettings(Section):
    """One-time codes."""

    secrets_file: Path | None = Field(default=None, description="absent: only Vault's TOTP engine")
    attempts: int = Field(default=5, ge=1, le=100, description="wrong codes of one account before it has to wait")
    within_seconds: float = Field(default=300, ge=1, le=86400, description="for how long a wrong code counts")


class AuthnSettings(Section):
    """What proofs can be checked with.  Public keys and certificates need nothing here."""

    password_file: Path | None = None
    vault: VaultAuthnSettings | None = None
    webhooks: dict[ClientName, WebhookSettings] = Field(default_factory=dict)
    key_lists: KeyListsSettings | None = None
    totp: TotpSettings | None = None
    oidc: dict[ClientName, OidcSettings] = Field(default_factory=dict)
    github: dict[ClientName, GithubSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_provider_for_a_name(self) -> AuthnSettings:
        if twice := self.oidc.keys() & self.github.keys():
            raise ValueError(f"github: {', '.join(sorted(twice))}: oidc has a provider of this name already")
        return self
