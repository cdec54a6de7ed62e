"""One session's own Vault token, and the leases that hang on it.

The token is a child of the gateway's and lives `ttl_seconds` at a time.  Nobody has to clean up after a gateway that
died: the token expires unrenewed, and Vault takes its leases along.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from typing import TypeVar

from hvac import exceptions as vault_errors
from hvac.api.auth_methods.token import Token
from hvac.api.secrets_engines.database import Database
from hvac.api.system_backend.lease import Lease as Leasing
from pydantic import SecretStr

from gateway.concurrency import to_the_end, wait_all
from gateway.credentials.vault_client import (
    CLEANUP_SECONDS,
    Extended,
    Issued,
    VaultAdapter,
    VaultClient,
    in_our_words,
    parsed,
    token_in,
    unreachable,
)
from gateway.credentials.vault_kept import Kept
from gateway.credentials.vault_secret import static_lease
from gateway.errors import CredentialsUnavailable
from gateway.model import CredentialSpec, Holder, Lease

T = TypeVar("T")
log = logging.getLogger(__name__)

RETRY_SECONDS, MINIMUM_SECONDS = 1.0, 0.2
REVOKE_SECONDS, RELEASE_SECONDS = 5.0, 7.5
"""For one revocation, and for all of them together.  A renewal that is under way comes before it."""


class VaultSession:
    """Leases of one session.  `acquire`, then `keep` in the background, then `release`."""

    def __init__(
        self,
        client: VaultClient,
        parent: Callable[[], SecretStr],
        credentials: Sequence[CredentialSpec],
        holder: Holder,
    ) -> None:
        self.items: Sequence[Lease] = ()
        self.parent: SecretStr | None = None
        self._client = client
        self._read_parent = parent
        self._credentials = credentials
        self._holder = holder
        self._seconds = min(spec.ttl_seconds for spec in credentials)
        self._token: SecretStr | None = None
        self._kept: list[Kept] = []
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._issued: list[str] = []
        self._lock = Lock()
        self._running = 0
        self._abandoned = False
        self._clean: Future[None] = Future()

    async def wait_lost(self) -> str:
        return await asyncio.shield(self._lost)

    async def acquire(self) -> None:
        """Raises CredentialsUnavailable within the settings' timeout.  Whatever stops it, nothing is left behind: a
        thread cannot be cancelled, so the last one under way revokes what was obtained.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._client.settings.timeout_seconds
        try:
            async with asyncio.timeout_at(deadline):
                await self._client.run(partial(self._guarded, self._create_token))
                issues = [partial(self._guarded, partial(self._issue, spec)) for spec in self._credentials]
                self.items = await asyncio.gather(*map(self._client.run, issues))
        except TimeoutError as error:
            self._abandon()  # not waited for: the person has waited enough, and `VaultClient.close` will
            raise unreachable("issuing database credentials") from error
        except CredentialsUnavailable:
            await self._leave_nothing(deadline - loop.time())
            raise
        except BaseException:
            await self._leave_nothing(CLEANUP_SECONDS)
            raise

    async def _leave_nothing(self, seconds: float) -> None:
        self._abandon()
        clean = asyncio.wait([asyncio.wrap_future(self._clean)], timeout=max(seconds, 0))
        await to_the_end(clean)

    async def keep(self) -> None:
        """Renew everything every third of its life, until cancelled or lost."""
        try:
            while (first := min(self._kept, key=Kept.left)).left() > 0:
                is_failing = any(kept.is_failing for kept in self._kept)
                pause = max(first.left() / 10, RETRY_SECONDS) if is_failing else max(first.left() / 3, MINIMUM_SECONDS)
                await asyncio.sleep(min(pause, first.left(), self._seconds / 3))
                renewals = [self._client.run(kept.extend) for kept in self._kept]
                # Not cancelled half-way: a renewal that meets its own revocation could bring the lease back.
                await wait_all(renewals)
                for renewal in renewals:
                    renewal.result()
            self._lost.set_result(f"The {first.what} cannot be kept: {first.why}.")
        finally:
            if not self._lost.done():
                self._lost.set_result("The database credentials are no longer renewed.")

    async def release(self) -> None:
        """Revoke everything; return when the revocation SQL has run, or after a bounded time with errors logged."""
        await to_the_end(self._revoke_all())

    async def _revoke_all(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await asyncio.gather(*(self._client.run(partial(self._revoke, lease_id)) for lease_id in self._issued))
                await self._client.run(self._revoke_token)
        except TimeoutError:
            for lease_id in self._issued:
                self._log_left_behind("lease_not_revoked", lease_id=lease_id, cause="out of time")

    # What follows runs on threads.

    def _guarded(self, work: Callable[[], T]) -> T:
        self._begin()
        try:
            return work()
        finally:
            self._end()

    def _begin(self) -> None:
        with self._lock:
            if self._abandoned:
                raise unreachable("issuing database credentials")  # nobody is listening any more
            self._running += 1

    def _end(self) -> None:
        with self._lock:
            self._running -= 1
            is_last = self._abandoned and self._running == 0
        if is_last:
            self._clean_up()

    def _abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            is_last = self._running == 0
        if is_last:
            self._client.detach(self._clean_up)

    def _adapter(self, timeout: float = 0) -> VaultAdapter:
        return self._client.adapter(self._token, traceparent=self._holder.traceparent, timeout=timeout)

    def _create_token(self) -> None:
        self.parent = self._read_parent()
        adapter = self._client.adapter(self.parent, traceparent=self._holder.traceparent)
        began = time.monotonic()
        with in_our_words("making a token for this session"):
            # By a token role of the policy's name: the gateway's own token need not hold what it hands out.
            answer = Token(adapter).create(
                role_name=self._client.settings.session_policy,
                policies=[self._client.settings.session_policy],
                no_default_policy=True,
                ttl=f"{self._seconds}s",
                renewable=True,
                type="service",
                display_name=f"doorward-{self._holder.person}",
                meta={**self._holder.labels(), "traceparent": self._holder.traceparent},
            )
        auth = token_in(answer)
        self._token = auth.client_token
        self._hold("session's Vault token", self._renew_token, self._seconds, began, auth.lease_duration)

    def _issue(self, spec: CredentialSpec) -> Lease:
        if spec.secret is not None:
            return static_lease(self._adapter(), spec, spec.secret, self._seconds)
        began = time.monotonic()
        issued = parsed(Issued, self._ask_for(spec))
        self._issued.append(issued.lease_id)
        renew = partial(self._renew_lease, issued.lease_id, spec.ttl_seconds)
        self._hold(f"credential {spec.name!r}", renew, spec.ttl_seconds, began, issued.lease_duration)
        return Lease(
            spec=spec,
            lease_id=issued.lease_id,
            username=issued.data.username,
            password=issued.data.password,
            expires_at=datetime.now(UTC) + timedelta(seconds=min(issued.lease_duration, self._seconds)),
        )

    def _hold(self, what: str, renew: Callable[[], int], asks: int, began: float, seconds: int) -> None:
        self._kept.append(Kept(what, renew, asks=asks, began=began, seconds=seconds))

    def _ask_for(self, spec: CredentialSpec) -> object:
        mount = self._client.settings.mount
        with in_our_words(f"issuing the credential {spec.name!r}"):
            try:
                if not spec.role.strip("."):
                    raise vault_errors.InvalidPath("a role cannot be dots alone")
                return Database(self._adapter()).generate_credentials(spec.role, mount_point=mount)
            except (vault_errors.InvalidPath, vault_errors.InvalidRequest) as error:
                if isinstance(error, vault_errors.InvalidRequest) and "unknown role" not in str(error):
                    raise
                raise CredentialsUnavailable(
                    f"Vault has no database role {spec.role!r}, which the credential {spec.name!r} needs",
                    code="credential_role_unknown",
                    remedy=f"Nothing is wrong with your grant. Platform team: write {mount}/roles/{spec.role} in Vault,"
                    " or correct the role's name in the policy.",
                ) from error

    def _renew_token(self) -> int:
        with in_our_words("renewing the session's token"):
            try:
                answer = Token(self._adapter()).renew_self(increment=f"{self._seconds}s")
            except vault_errors.Forbidden:
                return 0
        return token_in(answer).lease_duration

    def _renew_lease(self, lease_id: str, seconds: int) -> int:
        with in_our_words("renewing a lease"):
            try:
                return parsed(Extended, Leasing(self._adapter()).renew_lease(lease_id, seconds)).lease_duration
            except vault_errors.InvalidRequest as error:
                # Vault says 400 for all: the lease is gone, its role is gone from the database, the database is down.
                if any(words in str(error) for words in ("lease not found", "does not exist")):
                    return 0
                raise

    def _clean_up(self) -> None:
        # Lease by lease, for Vault revokes the leases of a revoked token only some time after it has answered.
        for lease_id in self._issued:
            self._revoke(lease_id)
        self._revoke_token()
        self._clean.set_result(None)

    def _revoke(self, lease_id: str) -> None:
        try:
            with in_our_words("revoking a lease"):
                # `sync`: the answer comes after the revocation SQL.  hvac's own method does not know it.
                body = {"lease_id": lease_id, "sync": True}
                self._adapter(REVOKE_SECONDS).put("/v1/sys/leases/revoke", json=body)
        except CredentialsUnavailable as error:
            self._log_left_behind("lease_not_revoked", lease_id=lease_id, cause=str(error.__cause__))

    def _revoke_token(self) -> None:
        if self._token is None:
            return
        try:
            with in_our_words("revoking the session's token"):
                Token(self._adapter(REVOKE_SECONDS)).revoke_self()
        except CredentialsUnavailable as error:
            self._log_left_behind("token_not_revoked", cause=str(error.__cause__))

    def _log_left_behind(self, event: str, **fields: str) -> None:
        # Not for ever: Vault revokes by itself when the token's life ends.
        log.error(event, extra={"session": self._holder.session, "seconds": self._seconds, **fields})
