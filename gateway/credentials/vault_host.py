"""Vault's SSH secrets engine as the signer of our host keys, with the gateway's own token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gateway.credentials.vault_signer import Signer
from gateway.settings import VaultSettings
from gateway.settings_ssh import VaultHostCertificateSettings


class HostSigner:
    """Has public keys signed as host keys."""

    def __init__(self, signer: Signer, host: VaultHostCertificateSettings) -> None:
        self._signer = signer
        self._host = host

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: VaultSettings, host: VaultHostCertificateSettings) -> AsyncIterator[HostSigner]:
        async with Signer.open(settings, host.mount) as signer:
            yield cls(signer, host)

    async def sign(self, public_keys: Sequence[str]) -> list[str]:
        """A certificate for each key, both as lines of OpenSSH.  Raises CredentialsUnavailable."""
        return [await self._sign(key) for key in public_keys]

    async def _sign(self, public_key: str) -> str:
        return await self._signer.signed(
            "signing the host key",
            self._host.role,
            public_key=public_key,
            cert_type="host",
            valid_principals=",".join(self._host.principals),
            ttl=f"{self._host.ttl_seconds}s",
        )
