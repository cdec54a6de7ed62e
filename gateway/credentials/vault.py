"""Vault's database secrets engine as an issuer.

What the gateway's own token may, and what a session's token may, is in `secrets/vault/policies/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from gateway.concurrency import background
from gateway.credentials import Leases
from gateway.credentials.vault_check import probe
from gateway.credentials.vault_client import VaultClient, unreachable
from gateway.credentials.vault_session import VaultSession
from gateway.credentials.vault_token import LOOK_SECONDS, GatewayToken
from gateway.model import CredentialSpec, Holder, Lease
from gateway.settings import VaultSettings


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
        issuer = cls(client, GatewayToken.of(client))
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
