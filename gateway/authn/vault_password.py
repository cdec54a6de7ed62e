"""Passwords, proven by logging in to Vault with them: `userpass`, or LDAP with Vault in between.

The token that a login brings is revoked at once.  Vault answers a wrong password with status 400, but LDAP that is down
likewise; a name that it has locked with 403, but a mount that is not there likewise; a name that it cannot spell with
500 (1.19).  So the words count, and where they say nothing the mount is asked for a name that nobody has: if that is
merely wrong, the mount works and the name was at fault.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import JsonValue, SecretStr

from gateway.authn import Evidence, Verified
from gateway.authn.vault import Vault, errors_in, segment
from gateway.concurrency import to_the_end
from gateway.errors import VerifierUnavailable
from gateway.proofs import VaultPassword
from gateway.settings_authn import VaultAuthnSettings

log = logging.getLogger(__name__)

WRONG = frozenset({"invalid username or password", "ldap operation failed: failed to bind as user"})
"""What Vault says of a wrong password and of an unknown name alike."""
LOGINS = 32
"""At most so many at once: each may be one more bind to an LDAP server."""
WRONG_SECONDS = 0.3
"""A wrong login takes at least so long.  Vault 1.19 tells of an unknown name in 1 ms and of a wrong password in 30,
which would say who is there.
"""
KEPT = ("policies", "token_policies", "identity_policies", "metadata", "entity_id")


class VaultPasswordVerifier:
    """The verifier of kind `vault_password`.

    `claims` of a proven password: what Vault says of the login (`policies`, `token_policies`, `identity_policies`,
    `metadata`, `entity_id`), its `backend` and its `mount`.  LDAP groups show as the policies they give.
    """

    def __init__(self, vault: Vault, wrong_seconds: float) -> None:
        """`open` makes one."""
        self._vault = vault
        self._wrong_seconds = wrong_seconds
        self._places = asyncio.Semaphore(LOGINS)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: VaultAuthnSettings, *, wrong_seconds: float = WRONG_SECONDS
    ) -> AsyncIterator[VaultPasswordVerifier]:
        """Raises SettingsError."""
        async with Vault.open(settings.model_copy(update={"token": None})) as vault:  # logging in needs none
            yield cls(vault, wrong_seconds)

    async def verify(self, verification: VaultPassword, evidence: Evidence) -> Verified:
        """See `Verifier.verify`.  Cancelled, it lets go when no token of a login is left: within twice
        `timeout_seconds`.
        """
        if evidence.password is None:
            raise VerifierUnavailable("a password is needed, and there is none")
        began = time.monotonic()
        found = await self._in_turn(verification, evidence.password)
        if not found.proven:
            await asyncio.sleep(max(0.0, began + self._wrong_seconds - time.monotonic()))
        return found

    async def check(self) -> None:
        await self._vault.check()

    async def _in_turn(self, verification: VaultPassword, password: SecretStr) -> Verified:
        try:
            async with asyncio.timeout(self._vault.settings.timeout_seconds):
                await self._places.acquire()
        except TimeoutError as error:
            raise VerifierUnavailable("too many passwords are being checked", code="verifier_busy") from error
        try:
            return await to_the_end(self._login(verification, password))
        finally:
            self._places.release()

    async def _login(self, verification: VaultPassword, password: SecretStr) -> Verified:
        said: dict[str, JsonValue] = {"backend": verification.backend, "mount": verification.mount}
        if not password.get_secret_value():
            return Verified(False, said)  # LDAP may be set up to call a bind without a password a success
        status, body = await self._attempt(verification, verification.username, password)
        if status == 200:
            auth = _auth(body)
            await self._revoke(SecretStr(str(auth["client_token"])))
            return Verified(True, {**said, **{name: auth[name] for name in KEPT if auth.get(name)}})
        if not _is_wrong(status, body):
            await self._expect_to_work(verification)
        return Verified(False, said)

    async def _attempt(self, verification: VaultPassword, name: str, password: SecretStr) -> tuple[int, Any]:
        if name in (".", ".."):
            return 400, {"errors": list(WRONG)}  # as part of a path they mean another one
        path = f"auth/{verification.mount}/login/{segment(name)}"
        return await self._vault.post(path, {"password": password.get_secret_value()})

    async def _expect_to_work(self, verification: VaultPassword) -> None:
        nobody = f"doorward-{secrets.token_hex(8)}"
        status, body = await self._attempt(verification, nobody, SecretStr(secrets.token_hex(16)))
        if not _is_wrong(status, body):
            raise VerifierUnavailable(
                f"Vault cannot check passwords at {verification.mount}",
                code="vault_failed",
                remedy="Nothing is wrong with what you typed. Platform team: is the auth method enabled there, and does"
                f" its {verification.backend} server answer? Vault's log says more.",
            ) from PermissionError(f"status {status}: {'; '.join(errors_in(body))[:300]}")

    async def _revoke(self, token: SecretStr) -> None:
        try:
            status, body = await self._vault.post("auth/token/revoke-self", {}, token)
        except VerifierUnavailable as error:
            log.warning("vault_login_not_revoked", extra={"why": str(error)})  # it ends by its own TTL
            return
        if status != 204:
            log.warning("vault_login_not_revoked", extra={"status": status, "why": errors_in(body)})


def _is_wrong(status: int, body: Any) -> bool:
    return status == 400 and bool(WRONG.intersection(errors_in(body)))


def _auth(body: Any) -> dict[str, Any]:
    auth = body.get("auth") if isinstance(body, dict) else None
    if not isinstance(auth, dict):
        raise VerifierUnavailable("Vault answered with something that is not its API", code="vault_unexpected")
    if not auth.get("client_token"):
        raise VerifierUnavailable(
            "Vault wants a second factor of its own for this login, which cannot be asked for here",
            code="vault_wants_mfa",
            remedy="Platform team: take the mount out of Vault's login MFA, and let policy chain a one-time code.",
        )
    return auth
