"""hvac on private threads: the only place here where anything blocks, and where Vault's errors become words.

hvac's own `Client` is not used: without a token it reads VAULT_* variables and ~/.vault-token.  Its adapter and API
classes are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import requests
from hvac import exceptions as vault_errors
from hvac.adapters import JSONAdapter
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from requests.adapters import HTTPAdapter

from gateway.errors import CredentialsUnavailable
from gateway.settings import VaultSettings

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
log = logging.getLogger(__name__)

THREADS = 32
"""At most so many requests under way.  The pool is private: a Vault that hangs starves nobody else."""

CLEANUP_SECONDS = 10.0


class VaultAdapter(JSONAdapter):  # type: ignore[misc]  # hvac is untyped
    """Adds the trace to every request, and takes the token out of every exception."""

    traceparent = ""

    def request(self, method: str, url: str, headers: dict[str, str] | None = None, **kwargs: Any) -> Any:
        headers = {**(headers or {}), **({"traceparent": self.traceparent} if self.traceparent else {})}
        try:
            return super().request(method, url, headers=headers, **kwargs)
        except requests.RequestException as error:
            error.request = error.response = None  # their headers hold the token
            raise


class VaultClient:
    """One connection pool and one thread pool for one Vault."""

    def __init__(self, settings: VaultSettings) -> None:
        self.settings = settings
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="vault")
        self._http = requests.Session()
        self._http.trust_env = False  # no proxies, .netrc or CA bundle from the environment
        self._http.verify = str(settings.ca_file) if settings.ca_file else True
        for scheme in ("http://", "https://"):
            self._http.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=THREADS, max_retries=0))

    def adapter(self, token: SecretStr | None, *, traceparent: str = "", timeout: float = 0) -> VaultAdapter:
        """Speaks with one token.  All share the kept-alive connections.  To be used in `run` only."""
        adapter = VaultAdapter(
            base_uri=self.settings.url,
            token=token.get_secret_value() if token else None,
            namespace=self.settings.namespace,
            session=self._http,
            timeout=timeout or self.settings.timeout_seconds,
            allow_redirects=False,  # requests would carry the token to wherever it is sent
        )
        adapter.traceparent = traceparent
        return adapter

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do `work` on a thread.  Cancelling stops only what has not begun."""
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    def detach(self, work: Callable[[], None]) -> None:
        """Do `work`, which must not raise, on a thread; `close` waits for it."""
        self._threads.submit(work)

    async def close(self) -> None:
        """Wait for what is under way, for a bounded time."""
        try:
            async with asyncio.timeout(CLEANUP_SECONDS):
                await asyncio.to_thread(self._threads.shutdown)
        except TimeoutError:
            log.error("vault_requests_abandoned")  # each still ends by its own timeout
        self._http.close()


class Answer(BaseModel):
    # A validation error that quotes its input would quote a password.
    model_config = ConfigDict(hide_input_in_errors=True)


class Auth(Answer):
    """The part of Vault's answer that is a token."""

    client_token: SecretStr
    lease_duration: int


class Login(Answer):
    username: str = Field(min_length=1)
    password: SecretStr


class Issued(Answer):
    """Vault's answer to `creds`."""

    lease_id: str = Field(min_length=1)
    lease_duration: int
    data: Login


class Extended(Answer):
    """Vault's answer to a renewal."""

    lease_duration: int


def parsed(model: type[M], answer: object) -> M:
    """Raises CredentialsUnavailable, which never quotes the answer."""
    try:
        return model.model_validate(answer)
    except ValidationError:
        pass  # raised below, for what pydantic complains with holds all of the answer
    raise CredentialsUnavailable(
        "Vault answered with something that is not its API",
        code="vault_unexpected",
        remedy="Platform team: credentials.vault.url must be Vault's active node, or a balancer that leads to it.",
    )


def token_in(answer: object) -> Auth:
    """The token in Vault's answer.  Raises CredentialsUnavailable."""
    return parsed(Auth, answer.get("auth") if isinstance(answer, dict) else None)


@contextmanager
def in_our_words(doing: str) -> Iterator[None]:
    """Translate whatever hvac and requests raise into CredentialsUnavailable; what the vendor said is its cause."""
    try:
        yield
    except (vault_errors.Forbidden, vault_errors.Unauthorized) as error:
        raise CredentialsUnavailable(
            f"Vault refused {doing}",
            code="vault_denied",
            remedy="Nothing is wrong with your grant. Platform team: the gateway's Vault token may be revoked or "
            "expired, or its Vault policies lack a path; `doorward check` tells which.",
        ) from error
    except (vault_errors.VaultDown, vault_errors.VaultNotInitialized) as error:
        raise CredentialsUnavailable(
            f"Vault is sealed or not ready, so {doing} failed",
            code="vault_sealed",
            remedy="Nothing is wrong with your grant. Platform team: unseal Vault. Then try again.",
        ) from error
    except vault_errors.VaultError as error:
        raise CredentialsUnavailable(
            f"Vault could not do its part in {doing}",
            code="vault_failed",
            remedy="Nothing is wrong with your grant. Platform team: see Vault's log, and the database behind it.",
        ) from error
    except requests.exceptions.SSLError as error:
        raise CredentialsUnavailable(
            f"Vault's certificate is not to be trusted, so {doing} failed",
            code="vault_untrusted",
            remedy="Nothing is wrong with your grant. Platform team: credentials.vault.ca_file must name Vault's CA.",
        ) from error
    except requests.RequestException as error:
        raise unreachable(doing) from error


def unreachable(doing: str) -> CredentialsUnavailable:
    return CredentialsUnavailable(
        f"Vault did not answer in time, so {doing} failed",
        code="vault_unreachable",
        remedy="Nothing is wrong with your grant. Tell the platform team that Vault does not answer; then try again.",
    )
