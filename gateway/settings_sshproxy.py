"""Settings of the backend that relays to real SSH hosts."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from gateway.sections import ClientName, Section


class SshProxyVaultSettings(Section):
    """An SSH secrets engine of the Vault in `credentials.vault` that signs a certificate for each session."""

    mount: str = "ssh-proxy"
    certificate_seconds: int = Field(
        default=120, ge=30, le=3600, description="a certificate's life, which has to last for the login alone"
    )


class SshProxySettings(Section):
    """Real hosts.  Where they are and what they are known by is policy's to say."""

    keys: dict[ClientName, Path] = Field(
        default_factory=dict, description="private keys that a permit can name, each a file of the gateway's own, 0600"
    )
    vault: SshProxyVaultSettings | None = None
    connect_seconds: float = Field(default=10, gt=0, le=60, description="until a host must be logged in to")
    keepalive_seconds: float = Field(default=15, gt=0)
    keepalive_count: int = Field(default=3, ge=1)
