"""Vault's SSH secrets engine as the signer of our host keys, with the gateway's own token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from pydantic import Field

from gateway.credentials.vault import GatewayToken
from gateway.credentials.vault_client import Answer, VaultClient, in_our_words, parsed
from gateway.settings import VaultSettings
from gateway.settings_ssh import VaultHostCertificateSettings


class Signed(Answer):
    signed_key: str = Field(min_length=1)


class HostSigner:
    """Has public keys signed as host keys."""

    def __init__(self, client: VaultClient, settings: VaultSettings, host: VaultHostCertificateSettings) -> None:
        self._client = client
        self._token = GatewayToken(client, settings.token)
        self._host = host

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: VaultSettings, host: VaultHostCertificateSettings) -> AsyncIterator[HostSigner]:
        client = VaultClient(settings)
        try:
            yield cls(client, settings, host)
        finally:
            await client.close()

    async def sign(self, public_keys: Sequence[str]) -> list[str]:
        """A certificate for each key, both as lines of OpenSSH.  Raises CredentialsUnavailable."""
        return [await self._client.run(partial(self._sign, key)) for key in public_keys]

    def _sign(self, public_key: str) -> str:
        host = self._host
        with in_our_words("signing the host key"):
            answer = self._client.adapter(self._token.read()).post(
                f"/v1/{host.mount}/sign/{host.role}",
                json={
                    "public_key": public_key,
                    "cert_type": "host",
                    "valid_principals": ",".join(host.principals),
                    "ttl": f"{host.ttl_seconds}s",
                },
            )
        return parsed(Signed, answer.get("data") if isinstance(answer, dict) else None).signed_key
