"""The gateway's own Vault token: as a file has it now, or had by logging in as a Kubernetes service account.

Everything here runs on the client's threads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from typing import Protocol

from hvac import exceptions as vault_errors
from hvac.api.auth_methods.kubernetes import Kubernetes
from hvac.api.auth_methods.token import Token
from pydantic import SecretStr

from gateway.credentials.vault_client import VaultClient, in_our_words, token_in, unreachable
from gateway.errors import CredentialsUnavailable, SettingsError
from gateway.sections import SecretRef
from gateway.settings import VaultKubernetesSettings, VaultSettings

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How often the gateway's own token is looked at: renewed when due, and at once when its file holds a new one."""
NOT_RENEWABLE_SECONDS = 60.0
LONGEST_SECONDS = 60.0
"""At the latest so long after a renewal, a token that a login can replace is tried again."""


class Source(Protocol):
    """Where the token is from."""

    def read(self) -> SecretStr:
        """The token to use now.  Raises CredentialsUnavailable."""
        ...

    def renewed(self, token: SecretStr, seconds: float) -> float:
        """It is good for so long from now, or no longer at all: 0.  Returns in how many seconds to ask again."""
        ...


class GivenToken:
    """One that somebody else has made, always as its file has it now."""

    def __init__(self, source: SecretRef) -> None:
        self._source = source

    def read(self) -> SecretStr:
        try:
            return self._source.read()
        except SettingsError as error:
            raise CredentialsUnavailable(
                "The gateway's own Vault token cannot be read",
                code="vault_token_missing",
                remedy="Nothing is wrong with your grant. Platform team: see credentials.vault.token in the settings.",
            ) from error

    def renewed(self, token: SecretStr, seconds: float) -> float:
        return seconds / 3 if seconds else LOOK_SECONDS


class KubernetesLogin:
    """One that Vault gives to the gateway's service account, again when a third of its life is left or it is lost.

    A session's token dies with the token that is its parent, so the role should give periodic ones (`token_period`),
    which renewal keeps alive for good.
    https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#login
    """

    def __init__(self, client: VaultClient, settings: VaultKubernetesSettings) -> None:
        self._client = client
        self._settings = settings
        self._lock = threading.Lock()
        self._token: SecretStr | None = None
        self._until = 0.0

    def read(self) -> SecretStr:
        if not self._lock.acquire(timeout=self._client.settings.timeout_seconds):
            raise unreachable("logging in")
        try:
            if self._token is None or time.monotonic() >= self._until:
                self._token = self._login()
            return self._token
        finally:
            self._lock.release()

    def renewed(self, token: SecretStr, seconds: float) -> float:
        with self._lock:
            if token == self._token:
                self._until = time.monotonic() + seconds * 2 / 3
        return min(seconds / 3, LONGEST_SECONDS) if seconds else LOOK_SECONDS

    def _login(self) -> SecretStr:
        own = self._settings
        try:
            account = own.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CredentialsUnavailable(
                "The token of the gateway's service account cannot be read",
                code="vault_token_missing",
                remedy="Nothing is wrong with your grant. Platform team: credentials.vault.kubernetes.token_file must "
                "name a projected service account token that the gateway may read.",
            ) from error
        with in_our_words("logging in"):
            try:
                answer = Kubernetes(self._client.adapter(None)).login(
                    own.role, account, use_token=False, mount_point=own.mount
                )
            except (vault_errors.Forbidden, vault_errors.InvalidRequest, vault_errors.InvalidPath) as error:
                raise CredentialsUnavailable(
                    "Vault does not know the gateway by its Kubernetes service account",
                    code="vault_login_denied",
                    remedy="Nothing is wrong with your grant. Platform team: credentials.vault.kubernetes.role must be "
                    f"a role of auth/{own.mount} that is bound to the gateway's service account, its namespace and its "
                    "token's audience, and Vault must reach the cluster's TokenReview; Vault's log says which.",
                ) from error
        auth = token_in(answer)
        self._until = time.monotonic() + auth.lease_duration * 2 / 3
        log.info("vault_logged_in", extra={"role": own.role, "seconds": auth.lease_duration})
        return auth.client_token


def source_of(client: VaultClient, settings: VaultSettings) -> Source:
    """By what the settings say."""
    if settings.kubernetes is not None:
        return KubernetesLogin(client, settings.kubernetes)
    assert settings.token is not None  # the settings' own check
    return GivenToken(settings.token)


class GatewayToken:
    """The gateway's own token, and its renewal."""

    def __init__(self, client: VaultClient, source: Source) -> None:
        self._client = client
        self._source = source
        self._due: dict[SecretStr, float] = {}

    @classmethod
    def of(cls, client: VaultClient) -> GatewayToken:
        """As the client's settings say."""
        return cls(client, source_of(client, client.settings))

    def read(self) -> SecretStr:
        """Raises CredentialsUnavailable."""
        return self._source.read()

    def renew_due(self, parents: Collection[SecretStr]) -> None:
        """Renew the token and `parents`, each when a third of its life is over, or never seen before."""
        now = time.monotonic()
        try:
            tokens = {*parents, self.read()}
        except CredentialsUnavailable as error:
            log.error("vault_token_missing", extra={"code": error.reasons[0].code, "cause": str(error.__cause__)})
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
            is_gone = isinstance(error.__cause__, vault_errors.Forbidden)
            return self._source.renewed(token, 0) if is_gone else LOOK_SECONDS
        return self._source.renewed(token, seconds)
