"""Settings of the front: the SSH port, who may begin there, and what it costs to misbehave."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, IPvAnyNetwork, StringConstraints

from gateway.sections import Listen, Section


def _startups(text: str) -> str:
    start, rate, full = map(int, text.split(":"))
    if not (1 <= start <= full and rate <= 100):
        raise ValueError("must be start:rate:full, with 1 <= start <= full and a rate of at most 100")
    return text


Startups = Annotated[str, StringConstraints(pattern=r"^\d{1,6}:\d{1,3}:\d{1,6}$"), AfterValidator(_startups)]


class PenaltySettings(Section):
    """What a source pays for a connection that ended before anybody was authenticated (sshd's PerSourcePenalties)."""

    auth_fail_seconds: float = Field(default=5, ge=0)
    no_auth_seconds: float = Field(default=1, ge=0)
    crash_seconds: float = Field(default=90, ge=0)
    grace_exceeded_seconds: float = Field(default=10, ge=0)
    min_seconds: float = Field(default=15, gt=0, description="what has to add up before a source is refused")
    max_seconds: float = Field(default=600, ge=0, description="what a source can owe at most; 0: no penalties")
    max_sources: int = Field(default=65536, ge=1, description="remembered, of IPv4 and of IPv6 each")
    overflow: Literal["permissive", "deny_all"] = Field(
        default="permissive", description="when more misbehave: forget who owes least, or refuse everybody"
    )
    exempt: tuple[IPvAnyNetwork, ...] = Field(default=(), description="never penalised, nor limited by source")


class VaultHostCertificateSettings(Section):
    """An SSH secrets engine of the Vault in `credentials.vault` that signs our host keys."""

    mount: str = "ssh-host"
    role: str = "doorward-host"
    principals: tuple[str, ...] = Field(min_length=1, description="names that engineers type for this door")
    ttl_seconds: int = Field(default=86400, ge=60)


class HostCertificateSettings(Section):
    """Who signs our host keys."""

    vault: VaultHostCertificateSettings | None = None


class SshSettings(Section):
    """The door itself."""

    listen: Listen = "127.0.0.1:2222"
    host_keys: tuple[Path, ...] = Field(default=(), description="empty: one ed25519 key made in state_dir")
    next_host_keys: tuple[Path, ...] = Field(default=(), description="announced to clients, and not used yet")
    host_certificates: tuple[Path, ...] = Field(default=(), description="of keys in host_keys")
    host_certificate: HostCertificateSettings = HostCertificateSettings()
    proxy_from: tuple[IPvAnyNetwork, ...] = Field(
        default=(), description="balancers that must open each connection with a PROXY protocol v2 header"
    )
    login_grace_seconds: float = Field(default=30, gt=0)
    channel_grace_seconds: float = Field(default=600, gt=0, description="for the first channel, once authenticated")
    max_auth_tries: int = Field(default=6, ge=1)
    max_connections: int = Field(default=200, ge=1)
    max_connections_per_person: int = Field(default=50, ge=1, description="authenticated, on this gateway")
    max_startups: Startups = Field(default="10:30:100", description="unauthenticated at once, as sshd's MaxStartups")
    max_startups_per_source: int = Field(default=8, ge=1)
    source_prefix_v4: int = Field(default=32, ge=0, le=32, description="bits that make one source")
    source_prefix_v6: int = Field(default=64, ge=0, le=128, description="bits that make one source")
    penalties: PenaltySettings = PenaltySettings()
    keepalive_seconds: float = Field(default=15, gt=0)
    keepalive_count: int = Field(default=3, ge=1)
    rekey_bytes: int = Field(default=2**30, ge=2**20, description="new keys after so many bytes either way")
    rekey_seconds: float = Field(default=3600, gt=0)
    drain_seconds: float = Field(default=5, ge=0, description="on SIGTERM, how long running sessions may go on")
