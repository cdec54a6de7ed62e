"""Vault's HTTP API, as far as proving needs it.

hvac, which the issuer uses, would need threads for two kinds of requests, and what it raises does not tell a wrong
password from a Vault that cannot look (ADR 0019).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from gateway.authn.fetch import Answer, Site, open_client
from gateway.concurrency import background
from gateway.errors import SettingsError, VerifierUnavailable
from gateway.settings_authn import VaultAuthnSettings

log = logging.getLogger(__name__)

SEALED = (501, 503)
AGAIN_SECONDS = 30.0
"""How soon the gateway's own token is tried again when it could not be renewed."""
RARELY_SECONDS = 3600.0


class Vault:
    """One Vault, spoken to without a token, with the gateway's own, or with one that a login brought."""

    def __init__(self, settings: VaultAuthnSettings, site: Site) -> None:
        """`open` makes one."""
        self.settings = settings
        self._site = site

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: VaultAuthnSettings) -> AsyncIterator[Vault]:
        """The gateway's own token, where there is one, is kept alive.  Raises SettingsError."""
        headers = {"x-vault-request": "true"}
        if settings.namespace:
            headers["x-vault-namespace"] = settings.namespace
        http = open_client("authn.vault", ca_file=settings.ca_file, base_url=settings.url, headers=headers)
        async with http:
            vault = cls(settings, Site("Vault", http, settings.timeout_seconds))
            async with background(vault._keep_token()):
                yield vault

    async def post(self, path: str, body: Mapping[str, Any], token: SecretStr | None = None) -> tuple[int, Any]:
        """Status and JSON of what Vault says.  Raises VerifierUnavailable when it is sealed, or is not Vault."""
        headers = {"x-vault-token": token.get_secret_value()} if token else {}
        answer = await self._site.ask("POST", f"/v1/{path}", json=dict(body), headers=headers)
        return answer.status, self._read(answer)

    def own_token(self) -> SecretStr:
        """The gateway's, read anew.  Raises VerifierUnavailable."""
        if self.settings.token is None:
            raise VerifierUnavailable(
                "the gateway has no token for Vault's TOTP engine",
                remedy="Tell the platform team: the settings lack authn.vault.token.",
            )
        try:
            return self.settings.token.read()
        except SettingsError as error:
            raise VerifierUnavailable("the gateway's token for Vault cannot be read") from error

    async def check(self) -> None:
        """Raises VerifierUnavailable when Vault is not ready, or the gateway's token is none of its."""
        answer = await self._site.ask("GET", "/v1/sys/health?standbyok=true&perfstandbyok=true")
        self._read(answer)
        if answer.status != 200:
            raise VerifierUnavailable("Vault is sealed or not ready", code="vault_sealed")
        if self.settings.token is not None:
            await self._own_ttl("GET", "lookup-self", "data")

    def _read(self, answer: Answer) -> Any:
        if answer.status in SEALED:
            raise VerifierUnavailable("Vault is sealed or not ready", code="vault_sealed")
        try:
            return json.loads(answer.body) if answer.body else None
        except (ValueError, RecursionError):
            pass  # raised below, for what json complains with holds all of the answer, a token too
        raise VerifierUnavailable("Vault answered with something that is not its API", code="vault_unexpected")

    async def _keep_token(self) -> None:
        """Renew the gateway's own token at a third of its life, for ever."""
        if self.settings.token is None:
            return
        while True:
            try:
                ttl = await self._own_ttl("POST", "renew-self", "auth")
                await asyncio.sleep(min(ttl / 3, RARELY_SECONDS) if ttl else RARELY_SECONDS)
            except VerifierUnavailable as error:
                log.warning("authn_vault_token_not_renewed", extra={"code": error.reasons[0].code, "why": str(error)})
                await asyncio.sleep(AGAIN_SECONDS)

    async def _own_ttl(self, method: str, path: str, part: str) -> float:
        headers = {"x-vault-token": self.own_token().get_secret_value()}
        answer = await self._site.ask(method, f"/v1/auth/token/{path}", headers=headers)
        body = self._read(answer)
        if answer.status != 200:
            raise VerifierUnavailable(
                "Vault refuses the gateway's token",
                code="vault_denied",
                remedy="Platform team: authn.vault.token is revoked or expired; docs/authentication.md makes one.",
            )
        found = body.get(part) if isinstance(body, dict) else None
        ttl = found.get("ttl", found.get("lease_duration")) if isinstance(found, dict) else None
        return float(ttl) if isinstance(ttl, int) else 0.0


def segment(name: str) -> str:
    """`name` as one segment of a path, whatever is in it."""
    return quote(name, safe="")


def errors_in(body: Any) -> list[str]:
    """What Vault says of a refusal."""
    errors = body.get("errors") if isinstance(body, dict) else None
    return [error for error in errors if isinstance(error, str)] if isinstance(errors, list) else []


__all__ = ["Vault", "errors_in", "segment"]
