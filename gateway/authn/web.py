"""JSON from an identity provider, over `fetch.py`: what it says, or why it says nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.authn.fetch import Silent, Site, Untrusted, open_client
from gateway.errors import VerifierUnavailable


class Unreachable(VerifierUnavailable):
    """No answer in time, or none that is the provider's own: another try may help."""

    code = "provider_unreachable"


class Malformed(VerifierUnavailable):
    """An answer that no provider of the kind gives."""

    code = "provider_malformed"


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is the JSON that came, None for an empty body.  It may hold tokens, so it has no repr."""

    status: int
    body: Any = field(repr=False)

    def members(self) -> Mapping[str, Any]:
        """The body as an object.  Raises Malformed."""
        if not isinstance(self.body, dict):
            raise Malformed("the identity provider answered nonsense")
        return self.body


class Web:
    """Requests to one provider."""

    def __init__(self, site: Site, timeout: float) -> None:
        self._site = site
        self.timeout = timeout

    @classmethod
    @asynccontextmanager
    async def open(cls, section: str, ca_file: Path | None, timeout: float) -> AsyncIterator[Web]:
        """Raises SettingsError, naming the settings' `section`, for a `ca_file` that cannot be used."""
        async with open_client(section, ca_file=ca_file, headers={"accept": "application/json"}) as http:
            yield cls(Site("the identity provider", http, timeout), timeout)

    async def call(self, method: str, url: str, **kwargs: Any) -> Answer:
        """Any answer with JSON, or with no body, of a status below 500.

        Raises Unreachable where another try may help; Malformed or Untrusted where it will not.
        """
        try:
            found = await self._site.ask(method, url, **kwargs)
        except Silent as error:
            raise Unreachable(str(error)) from error
        except Untrusted:
            raise
        except VerifierUnavailable as error:
            raise Malformed(str(error)) from error
        if found.status >= 500 or found.status == 429:
            raise Unreachable("the identity provider cannot answer now")
        if 300 <= found.status < 400:
            raise Malformed("the identity provider sends the gateway elsewhere")
        return Answer(found.status, _json(found.body))


def _json(body: bytes) -> Any:
    if not body.strip():
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        why = type(error).__name__
    # Raised out here, for what json complains with holds all of the body.
    raise Malformed(f"the identity provider answered nonsense: {why}")
