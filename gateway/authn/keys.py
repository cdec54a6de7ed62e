"""A provider's public keys (JWKS, RFC 7517): kept for an hour, and asked for anew when a token names an unknown one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt

from gateway.authn.kept import Kept
from gateway.authn.web import Malformed, Web

FRESH_SECONDS = 3600.0
"""How long a key is believed without asking: one that is withdrawn is no good after that."""
AGAIN_SECONDS = 30.0
"""How often at most an unknown key makes us ask: tokens must not make us a flood."""
KEYS = 100
FAMILIES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class NoSuchKey(Exception):
    """The provider has no key by which this token could be signed."""


class Keys:
    """The keys of one provider."""

    def __init__(self, web: Web, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept = Kept(web, clock)

    async def find(self, url: str, kid: str | None, algorithm: str) -> jwt.PyJWK:
        """The key `kid`, or the only one where none is named.  Raises NoSuchKey, or VerifierUnavailable."""
        found = _matching(await self._kept.read(url, FRESH_SECONDS), kid, algorithm)
        if not found:
            found = _matching(await self._kept.read(url, AGAIN_SECONDS), kid, algorithm)
        if len(found) != 1:
            raise NoSuchKey
        try:
            return jwt.PyJWK(dict(found[0]), algorithm)
        except jwt.PyJWTError as error:
            raise Malformed("the identity provider's signing key is of no use") from error


def _matching(document: Mapping[str, Any], kid: str | None, algorithm: str) -> list[Mapping[str, Any]]:
    keys = document.get("keys")
    if not isinstance(keys, list) or len(keys) > KEYS:
        raise Malformed("the identity provider's list of keys is of no use")
    return [
        key
        for key in keys
        if isinstance(key, dict)
        and key.get("kty") == FAMILIES[algorithm[:2]]
        and (kid is None or key.get("kid") == kid)
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
    ]
