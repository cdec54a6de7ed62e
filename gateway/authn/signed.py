"""A signed token (JWT, RFC 7519) by an issuer that publishes its keys: PyJWT, and what it leaves to its caller."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from gateway.authn.keys import Keys

TOKEN_LENGTH = 128 * 2**10


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token has to say to be believed."""

    issuer: str
    audience: str
    algorithms: Collection[str]
    leeway: float
    required: Collection[str]


async def claims_of(token: str, keys: Keys, url: str, expected: Expected) -> Mapping[str, Any]:
    """The claims of a token that is the issuer's, for this audience, and of now.

    Raises jwt.PyJWTError or NoSuchKey for one that is not, VerifierUnavailable where the keys at `url` cannot be had.
    """
    if len(token) > TOKEN_LENGTH:
        raise jwt.DecodeError("too long")
    header = jwt.get_unverified_header(token)
    algorithm = str(header.get("alg"))
    # Before any key is looked for: the token does not choose how it is checked.
    if algorithm not in expected.algorithms:
        raise jwt.InvalidAlgorithmError("not allowed")
    claims: Mapping[str, Any] = jwt.decode(
        token,
        await keys.find(url, header.get("kid"), algorithm),
        algorithms=[algorithm],
        audience=expected.audience,
        issuer=expected.issuer,
        leeway=expected.leeway,
        options={"require": list(expected.required), "enforce_minimum_key_length": True},
    )
    return claims
