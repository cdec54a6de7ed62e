"""Settings of the grants door and the admin API: where they listen, and whom they know."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from gateway.sections import ClientName, Listen, SecretRef, Section
from gateway.settings_authn import Algorithm, ProviderUrl, Word

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


CertificateName = Annotated[str, StringConstraints(pattern=r"^(CN|DNS|URI|EMAIL):[\x20-\x7e]{1,256}$")]


class DoorClient(Section):
    """One automation, and how it proves who it is.  What it may do is policy's data: `data.automations`."""

    token: SecretRef | None = Field(default=None, description="the token itself; better is its hash")
    token_sha256: tuple[Sha256, ...] = Field(default=(), description="hashes of tokens; two while one is replaced")
    certificates: tuple[CertificateName, ...] = Field(default=(), description="such as DNS:ticketing.internal")

    @model_validator(mode="after")
    def _can_be_proven(self) -> DoorClient:
        if self.token is None and not self.token_sha256 and not self.certificates:
            raise ValueError("name token_sha256 (`doorward grants token` makes one), certificates, or token")
        return self

    def hashes(self) -> list[bytes]:
        """SHA-256 of each of its tokens.  Raises SettingsError for one that cannot be read."""
        own = [] if self.token is None else [hashlib.sha256(self.token.read().get_secret_value().encode()).digest()]
        return [*own, *map(bytes.fromhex, self.token_sha256)]


class DoorIssuer(Section):
    """Who issues JWTs to clients: a Vault's identity tokens, or an OpenID Connect provider's."""

    issuer: Word = Field(description="the claim `iss`, exactly")
    audience: Word = Field(description="the claim `aud`: this door")
    jwks_url: ProviderUrl = Field(pattern=r"^https?://", description="where its keys are published")
    client_claim: Word = Field(default="sub", description="the claim that names the client")
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "PS256", "ES256", "EdDSA"), min_length=1)
    clock_skew_seconds: float = Field(default=30, ge=0, le=300)
    ca_file: Path | None = None
    timeout_seconds: float = Field(default=5, gt=0, le=30, description="for each request")


class DoorSettings(Section):
    """What automation reaches: the grants door, OPA's data API in shape, and the admin API; judged and recorded."""

    listen: Listen | None = Field(default=None, description="absent: no grants door")
    admin_listen: Listen | None = Field(
        default=None, description="the admin API for automation, known by the same proofs; absent: its socket alone"
    )
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    plain_http: bool = Field(default=False, description="tokens travel in the clear to here; TLS ends before the door")
    client_ca_file: Path | None = Field(default=None, description="who signs clients' certificates")
    clients: dict[ClientName, DoorClient] = Field(default_factory=dict)
    issuers: dict[ClientName, DoorIssuer] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _tokens_do_not_travel_in_the_clear(self) -> DoorSettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: name both or neither")
        self._certificates_can_be_checked()
        if len({issuer.issuer for issuer in self.issuers.values()}) < len(self.issuers):
            raise ValueError("issuers: two have the same issuer, so nobody could tell whose a token is")
        for name, address in (("listen", self.listen), ("admin_listen", self.admin_listen)):
            host = (address or "").rpartition(":")[0].strip("[]")
            is_loopback = host in ("", "localhost", "::1") or host.startswith("127.")
            if not (self.tls_certificate or self.plain_http or is_loopback):
                raise ValueError(
                    f"{name}: {host} is not loopback, so tls_certificate and tls_key are needed"
                    " (or plain_http = true, where TLS ends before the door)"
                )
        return self

    def _certificates_can_be_checked(self) -> None:
        if self.client_ca_file is not None and self.tls_certificate is None:
            raise ValueError("client_ca_file: clients show certificates over TLS alone: name tls_certificate too")
        names = [name for client in self.clients.values() for name in client.certificates]
        if names and self.client_ca_file is None:
            raise ValueError("client_ca_file: name who signs the certificates that clients have")
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"clients: {', '.join(sorted(twice))} is there twice")
