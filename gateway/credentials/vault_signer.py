"""Vault's SSH secrets engine as a signer of public keys, with the gateway's own token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Self

from pydantic import Field

from gateway.credentials.vault_client import Answer, VaultClient, in_our_words, parsed
from gateway.credentials.vault_token import GatewayToken
from gateway.errors import CredentialsUnavailable
from gateway.model import VaultLogin
from gateway.settings import VaultSettings


class Signed(Answer):
    signed_key: str = Field(min_length=1)


class Signer:
    """Has public keys signed by one mount's authority."""

    def __init__(self, client: VaultClient, token: GatewayToken, mount: str) -> None:
        """`open` makes one."""
        self._client = client
        self._token = token
        self._mount = mount

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: VaultSettings, mount: str) -> AsyncIterator[Self]:
        client = VaultClient(settings)
        try:
            yield cls(client, GatewayToken.of(client), mount)
        finally:
            await client.close()

    async def signed(self, doing: str, role: str, **asked: str) -> str:
        """A certificate as a line of OpenSSH's.  Raises CredentialsUnavailable."""
        return await self._client.run(partial(self._sign, doing, role, asked))

    def _sign(self, doing: str, role: str, asked: dict[str, str]) -> str:
        with in_our_words(doing):
            answer = self._client.adapter(self._token.read()).post(f"/v1/{self._mount}/sign/{role}", json=asked)
        return parsed(Signed, answer.get("data") if isinstance(answer, dict) else None).signed_key


class UserSigner(Signer):
    """Signs the key of one session on a host."""

    async def sign(self, public_key: str, login: VaultLogin, user: str, key_id: str, seconds: int) -> str:
        """For `login`'s principals, or `user` alone.  Raises CredentialsUnavailable."""
        if not login.role.strip("."):
            raise CredentialsUnavailable("Vault has no role that is dots alone", code="vault_denied")
        return await self.signed(
            "signing this session's key",
            login.role,
            public_key=public_key,
            cert_type="user",
            valid_principals=",".join(login.principals or (user,)),
            key_id=key_id,
            ttl=f"{seconds}s",
        )
