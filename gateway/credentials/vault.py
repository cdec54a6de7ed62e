"""Vault's database secrets engine as an issuer.

What the gateway's own token may, and what a session's token may, is in `secrets/vault/policies/`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial

from hvac import exceptions as vault_errors
from hvac.api.auth_methods.token import Token
from pydantic import SecretStr

from gateway.concurrency import background
from gateway.credentials import Leases
from gateway.credentials.vault_check import probe
from gateway.credentials.vault_client import VaultClient, in_our_words, token_in, unreachable
from gateway.credentials.vault_session import VaultSession
from gateway.errors import CredentialsUnavailable, SettingsError
from gateway.model import CredentialSpec, Holder, Lease
from gateway.sections import SecretRef
from gateway.settings import VaultSettings

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How often the gateway's own token is looked at: renewed when due, and at once when its file holds a new one."""

NOT_RENEWABLE_SECONDS = 60.0


class VaultIssuer:
    """Issuer: each session has a Vault token of its own, and everything it gets hangs on that."""

    name = "vault"

    def __init__(self, client: VaultClient, token: GatewayToken) -> None:
        """`open` makes one."""
        self._client = client
        self._token = token
        self._live: set[VaultSession] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: VaultSettings) -> AsyncIterator[VaultIssuer]:
        """An issuer whose own token is kept alive while it is open.  Does not speak to Vault yet: see `check`."""
        client = VaultClient(settings)
        issuer = cls(client, GatewayToken(client, settings.token))
        try:
            async with background(issuer._keep_token()):
                yield issuer
        finally:
            await client.close()

    @asynccontextmanager
    async def lease(self, credentials: Sequence[CredentialSpec], holder: Holder) -> AsyncIterator[Leases]:
        if not credentials:
            yield NoLeases()
            return
        session = VaultSession(self._client, self._token.read, credentials, holder)
        await session.acquire()
        self._live.add(session)
        try:
            async with background(session.keep()):
                yield session
        finally:
            self._live.discard(session)
            await session.release()

    async def check(self) -> None:
        """Finds out by doing: a session's token is made, renewed and revoked.  Database roles are the policies' to
        name, so a role that is missing shows when it is first asked for.
        """
        try:
            async with asyncio.timeout(self._client.settings.timeout_seconds):
                await self._client.run(partial(probe, self._client, self._token.read))
        except TimeoutError as error:
            raise unreachable("checking it") from error

    async def _keep_token(self) -> None:
        while True:
            # A session dies with the token that is its parent, so one that was replaced is kept for those it still has.
            parents = {session.parent for session in self._live if session.parent is not None}
            await self._client.run(partial(self._token.renew_due, parents))
            await asyncio.sleep(LOOK_SECONDS)


class NoLeases:
    """What a session has that needs none."""

    items: Sequence[Lease] = ()

    async def wait_lost(self) -> str:
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never


class GatewayToken:
    """The gateway's own token, always as its file has it now.  Everything here runs on threads."""

    def __init__(self, client: VaultClient, source: SecretRef) -> None:
        self._client = client
        self._source = source
        self._due: dict[SecretStr, float] = {}

    def read(self) -> SecretStr:
        """Raises CredentialsUnavailable."""
        try:
            return self._source.read()
        except SettingsError as error:
            raise CredentialsUnavailable(
                "The gateway's own Vault token cannot be read",
                code="vault_token_missing",
                remedy="Nothing is wrong with your grant. Platform team: see credentials.vault.token in the settings.",
            ) from error

    def renew_due(self, parents: Collection[SecretStr]) -> None:
        """Renew the token and `parents`, each when a third of its life is over, or never seen before."""
        now = time.monotonic()
        try:
            tokens = {*parents, self.read()}
        except CredentialsUnavailable as error:
            log.error("vault_token_missing", extra={"cause": str(error.__cause__)})
            tokens = set(parents)
        self._due = {token: self._due.get(token, now) for token in tokens}
        for token, due in self._due.items():
            if due <= now:
                self._due[token] = now + self._renew(token)

    def _renew(self, token: SecretStr) -> float:
        """Seconds until it is due again."""
        try:
            with in_our_words("renewing the gateway's token"):
                seconds = token_in(Token(self._client.adapter(token)).renew_self()).lease_duration
        except CredentialsUnavailable as error:
            if isinstance(error.__cause__, vault_errors.InvalidRequest):
                return NOT_RENEWABLE_SECONDS  # a root token, or one that somebody else replaces in time
            log.error("vault_token_not_renewed", extra={"code": error.reasons[0].code, "cause": str(error.__cause__)})
            return LOOK_SECONDS
        return seconds / 3
