"""Requests on behalf of a verifier: bounded in time and in size, with no proxy, cookie or redirect of their own.

What goes wrong is VerifierUnavailable: the other end did not answer.  No error holds what was sent.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx

from gateway.errors import SettingsError, VerifierUnavailable
from gateway.trust import trusting

ANSWER_BYTES = 2**20
CONNECTIONS = 32


class Silent(VerifierUnavailable):
    """No answer, where another try may bring one."""


class Untrusted(VerifierUnavailable):
    """Whoever answers has no certificate of those that are trusted."""

    code = "verifier_untrusted"
    remedy = "Nothing is wrong with what you typed. Platform team: the settings' ca_file must name who signs for it."


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.  The body may hold a secret, so it has no repr."""

    status: int
    body: bytes = field(repr=False)
    location: str = ""


class Site:
    """One place that is asked: a connection pool, and what it is called in errors."""

    def __init__(self, name: str, http: httpx.AsyncClient, seconds: float) -> None:
        """`open_client` makes `http`; `seconds` bound each request, its wait for a free connection included."""
        self.name = name
        self.http = http
        self._seconds = seconds

    async def ask(self, method: str, url: str, **kwargs: Any) -> Answer:
        """Any answer at all.  Raises Silent when there is none in time, Untrusted when it is somebody else's, else
        VerifierUnavailable: one that does not end, or a request that cannot be sent.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._answer(method, url, **kwargs)
        except TimeoutError as error:
            raise Silent(f"{self.name} did not answer in time", code="verifier_timeout") from error
        except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeError):
            pass  # their words quote what cannot be sent: a token with a line end in it, for example
        except httpx.HTTPError as error:
            error.request = None  # type: ignore[assignment]  # it holds the password and the token
            if _is_untrusted(error):
                raise Untrusted(f"{self.name} has a certificate that is not to be trusted") from error
            raise Silent(f"{self.name} cannot be reached") from error
        raise VerifierUnavailable(f"{self.name} cannot be asked: its address or a token for it is malformed")

    async def _answer(self, method: str, url: str, **kwargs: Any) -> Answer:
        async with self.http.stream(method, url, **kwargs) as response:
            body = bytearray()
            async for chunk in response.aiter_raw():  # not unpacked: what unpacks to gigabytes is small
                body += chunk
                if len(body) > ANSWER_BYTES:
                    raise VerifierUnavailable(f"{self.name} answers with more than anybody should read")
            return Answer(response.status_code, bytes(body), response.headers.get("location", ""))


def open_client(
    section: str,
    *,
    ca_file: Path | None,
    certificate: Path | None = None,
    key: Path | None = None,
    base_url: str = "",
    headers: Mapping[str, str] | None = None,
) -> httpx.AsyncClient:
    """Raises SettingsError, naming the settings' `section`, for a file that cannot be used."""
    tls = trusting(ca_file, section)
    if certificate is not None:
        try:
            tls.load_cert_chain(certificate, key, password=_no_passphrase)
        except (OSError, ValueError) as error:
            raise SettingsError(f"{section}.client_certificate: {certificate}: {error}") from error
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"user-agent": "doorward", "accept-encoding": "identity", **(headers or {})},
        verify=tls,
        trust_env=False,
        follow_redirects=False,
        timeout=None,  # noqa: S113  # `Site.ask` bounds all of it at once
        limits=limits,
        # One person's session there must not become another's.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted, and nobody is there to type its passphrase")


def _is_untrusted(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None
