"""A stand-in for Vault: the gateway itself makes the roles, on a PostgreSQL that it administers.

For laptops, demos and tests.  While a gateway runs this holds what Vault does.  After one was killed it holds less: a
role cannot log in after `ttl_seconds` (VALID UNTIL), but it is removed, and *connections it had open are ended*, only
by a gateway that runs again (`keep_swept`), or with the server: the embedded PostgreSQL ends with its gateway.  Use
Vault where a stolen connection must not outlive a gateway that stays dead.

The password never reaches the server or its log: the SQL gets its SCRAM verifier, as Vault's does.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Never, TypeVar

import asyncpg
from pydantic import SecretStr

from gateway.concurrency import background, to_the_end
from gateway.deliveries import PostgresDelivery
from gateway.errors import CredentialsUnavailable
from gateway.model import CredentialSpec, Holder, Lease
from gateway.settings import EmbeddedIssuerSettings

T = TypeVar("T")
log = logging.getLogger(__name__)

ENTER_SECONDS = 1.3
UNDO_SECONDS = 0.5
EXIT_SECONDS = 9.0
WATCH_SECONDS = 1.0
SWEEP_SECONDS = 30.0
_FAULTS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
_OURS = r"^dw-[A-Za-z0-9._-]+-[0-9a-f]{12}$"
_EXPIRED = "SELECT rolname FROM pg_roles WHERE rolname ~ $1 AND rolvaliduntil < now() - interval '1 second'"
_SWEEP = """
ALTER ROLE "{{name}}" NOLOGIN;
COMMIT;
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{{name}}';
GRANT "{{name}}" TO CURRENT_USER;
REASSIGN OWNED BY "{{name}}" TO CURRENT_USER;
DROP OWNED BY "{{name}}";
DROP ROLE "{{name}}";
"""
_ITERATIONS = 4096


class EmbeddedIssuer:
    """Roles made by `<role>.create.sql` and ended by `<role>.revoke.sql`, in Vault's own templates."""

    def __init__(self, settings: EmbeddedIssuerSettings, name: str = "embedded") -> None:
        self.name = name
        self._settings = settings

    @asynccontextmanager
    async def lease(self, credentials: Sequence[CredentialSpec], holder: Holder) -> AsyncIterator[_Leases]:
        for spec in credentials:
            self._require_postgres(spec)
        leases = _Leases(self)
        deadline = asyncio.get_running_loop().time() + ENTER_SECONDS
        try:
            for spec in credentials:
                await leases.issue(spec, holder, deadline)
        except _FAULTS as error:
            # What did not answer will hardly answer now: a short try, then VALID UNTIL and the sweeper.
            await to_the_end(leases.revoke(UNDO_SECONDS))
            raise CredentialsUnavailable("the database that issues credentials did not answer") from error
        except BaseException:
            await to_the_end(leases.revoke())
            raise
        try:
            async with background(leases.keep()):
                yield leases
        finally:
            await to_the_end(leases.revoke())

    async def check(self) -> None:
        """Connects, and looks whether it may do what issuing takes."""
        try:
            async with asyncio.timeout(ENTER_SECONDS), self.connection() as connection:
                may = await connection.fetchval(
                    "SELECT rolsuper OR (rolcreaterole AND pg_has_role(rolname, 'pg_signal_backend', 'member')) "
                    "FROM pg_roles WHERE rolname = current_user"
                )
        except _FAULTS as error:
            raise CredentialsUnavailable(
                "the database that issues credentials did not answer",
                remedy="See credentials.embedded.dsn: is PostgreSQL up there, and are the user and password right?",
            ) from error
        if not may:
            raise CredentialsUnavailable(
                "the issuer's own database role may not issue",
                remedy="Give it CREATEROLE and the role pg_signal_backend (secrets/vault/database/issuer.sql).",
            )
        if not list(self._settings.roles.glob("*.create.sql")):
            raise CredentialsUnavailable(
                f"{self._settings.roles} holds no <role>.create.sql", remedy="Correct credentials.embedded.roles."
            )

    async def sweep(self) -> list[str]:
        """End what a killed gateway left: roles of our making that have expired, and their connections."""
        async with self.connection() as connection:
            expired = [str(row["rolname"]) for row in await connection.fetch(_EXPIRED, _OURS)]
            for name in expired:
                await connection.execute(_SWEEP.replace("{{name}}", name))
        if expired:
            log.warning("credentials_swept", extra={"roles": expired})
        return expired

    async def keep_swept(self, every: float = SWEEP_SECONDS) -> Never:
        """Sweep now and from time to time; run it for the life of the gateway."""
        while True:
            try:
                async with asyncio.timeout(EXIT_SECONDS):
                    await self.sweep()
            except _FAULTS:
                log.warning("credentials_sweep_failed", exc_info=True)
            await asyncio.sleep(every)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """One connection as the issuer; its end is not waited for where the server is gone."""
        connection = await asyncpg.connect(self._settings.dsn.read().get_secret_value(), timeout=ENTER_SECONDS)
        try:
            yield connection
            await connection.close(timeout=1)
        finally:
            connection.terminate()  # of a closed one: nothing

    def _require_postgres(self, spec: CredentialSpec) -> None:
        if not isinstance(spec.deliver, PostgresDelivery):
            raise CredentialsUnavailable(
                f"the issuer {self.name} issues for PostgreSQL alone, which the credential {spec.name!r} is not for",
                code="credential_kind_unknown",
                remedy="Platform team: name the issuer vault for it in the target.",
            )

    def statements(self, spec: CredentialSpec, kind: str) -> str:
        file = self._settings.roles / f"{spec.role}.{kind}.sql"
        try:
            return file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise CredentialsUnavailable(
                f"the issuer {self.name} knows no role {spec.role}",
                remedy=f"Platform team: add {file.name} to credentials.embedded.roles, or correct the target's role.",
            ) from error


class _Leases:
    """What was issued to one session."""

    def __init__(self, issuer: EmbeddedIssuer) -> None:
        self.items: list[Lease] = []
        self._issuer = issuer
        self._begun: list[tuple[CredentialSpec, str]] = []
        self._valid_until = datetime.max.replace(tzinfo=UTC)
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait_lost(self) -> str:
        return await asyncio.shield(self._lost)

    async def issue(self, spec: CredentialSpec, holder: Holder, deadline: float) -> None:
        create, _ = self._issuer.statements(spec, "create"), self._issuer.statements(spec, "revoke")
        username, password = _role_name(holder), secrets.token_urlsafe(32)
        expires_at = datetime.now(UTC) + timedelta(seconds=spec.ttl_seconds)
        statements = _filled(create, username, scram_verifier(password), expires_at)
        # Not cut short by a cancellation: a CREATE ROLE half-way could take effect after it had been revoked.
        await to_the_end(self._create(spec, username, statements, deadline))
        self.items.append(Lease(spec, f"{self._issuer.name}/{username}", username, SecretStr(password), expires_at))

    async def _create(self, spec: CredentialSpec, username: str, statements: str, deadline: float) -> None:
        async with asyncio.timeout_at(deadline), self._issuer.connection() as connection:
            self._begun.append((spec, username))
            await connection.execute(statements)

    async def keep(self) -> None:
        """Renew each lease every third of its time, until it cannot be kept; then say why to whoever waits."""
        if not self.items:
            return
        self._valid_until = min(lease.expires_at for lease in self.items)
        reason = ""
        while not reason:
            try:
                async with self._issuer.connection() as connection:
                    reason = await self._watch(connection)
            except _FAULTS as error:
                log.warning("credentials_renewal_failed", extra={"roles": self._names(), "reason": repr(error)})
                if datetime.now(UTC) >= self._valid_until:
                    reason = "the database credentials expired: the issuer did not answer until their end"
                else:
                    await asyncio.sleep(WATCH_SECONDS)
        self._lost.set_result(reason)

    async def _watch(self, connection: asyncpg.Connection) -> str:
        """Renew in time; return why, when a role is gone."""
        interval = timedelta(seconds=min(lease.spec.ttl_seconds for lease in self.items) / 3)
        while True:
            async with asyncio.timeout(ENTER_SECONDS):
                reason = await self._gone(connection)
                if reason:
                    return reason
                if datetime.now(UTC) >= self._valid_until - 2 * interval:
                    self._valid_until = min([await _renew(connection, lease) for lease in self.items])
            await asyncio.sleep(min(WATCH_SECONDS, interval.total_seconds()))

    async def _gone(self, connection: asyncpg.Connection) -> str:
        found = await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = ANY($1)", self._names())
        return "" if found == len(self.items) else "the database credentials were revoked from outside"

    def _names(self) -> list[str]:
        return [lease.username for lease in self.items]

    async def revoke(self, seconds: float = EXIT_SECONDS) -> None:
        """End every role and its connections; what cannot be ended in time is the sweeper's, and is logged."""
        try:
            async with asyncio.timeout(seconds):
                await self._revoke()
        except (*_FAULTS, CredentialsUnavailable):
            log.exception("credentials_not_revoked", extra={"roles": [name for _, name in self._begun]})

    async def _revoke(self) -> None:
        if not self._begun:
            return
        async with self._issuer.connection() as connection:
            while self._begun:
                spec, name = self._begun[-1]
                statements = self._issuer.statements(spec, "revoke")
                await connection.execute(_filled(statements, name, "", datetime.now(UTC)))
                self._begun.pop()


async def _renew(connection: asyncpg.Connection, lease: Lease) -> datetime:
    until = datetime.now(UTC) + timedelta(seconds=lease.spec.ttl_seconds)
    await connection.execute(f"""ALTER ROLE "{lease.username}" VALID UNTIL '{until.isoformat()}'""")
    return until


def _role_name(holder: Holder) -> str:
    """For people who read pg_stat_activity: who, which session.  63 bytes is all that PostgreSQL takes."""
    person, session = (re.sub(r"[^A-Za-z0-9._-]", "_", text) for text in (holder.person, holder.session))
    return f"dw-{person[:32]}-{session[:12]}-{secrets.token_hex(6)}"


def _filled(template: str, name: str, password: str, expiration: datetime) -> str:
    """Vault's placeholders.  None of the values can hold a quote."""
    values = {"{{name}}": name, "{{password}}": password, "{{expiration}}": expiration.isoformat()}
    for placeholder, value in values.items():
        template = template.replace(placeholder, value)
    return template


def scram_verifier(password: str) -> str:
    """What PostgreSQL stores of a password (RFC 5803), made here."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(_ITERATIONS, *encoded)
