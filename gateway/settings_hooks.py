"""Settings of the webhooks that policy can have told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from gateway.sections import SecretRef, Section
from gateway.settings_authn import SecretUrl


class HookSettings(Section):
    """One webhook.  Policy names it; where it is and how it is signed is said here alone."""

    url: SecretUrl = Field(pattern=r"^https?://")
    secret: SecretRef = Field(description="key of the HMAC-SHA256 that signs each message")
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    timeout_seconds: float = Field(default=5, gt=0, le=30, description="for each attempt")
    attempts: int = Field(default=4, ge=1, le=10, description="of one message, with 1, 2, 4 ... s between them")

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> HookSettings:
        if self.client_key is not None and self.client_certificate is None:
            raise ValueError("client_key: belongs to a client_certificate, which is not named")
        return self
