"""An ID token, checked as OpenID Connect Core section 3.1.3.7 says, by PyJWT and what it leaves to its caller."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import jwt
from pydantic import SecretStr

from gateway.authn.keys import Keys, NoSuchKey
from gateway.authn.signed import Expected, claims_of
from gateway.errors import VerifierUnavailable
from gateway.settings_authn import OidcSettings

log = logging.getLogger(__name__)

REQUIRED = ("iss", "sub", "aud", "exp", "iat")


async def checked(token: SecretStr, keys: Keys, keys_url: str, settings: OidcSettings, nonce: str) -> Mapping[str, Any]:
    """The claims of a token that is the provider's, for us, and of now.

    Raises VerifierUnavailable: a provider that sends another one is broken, or is not our provider.
    """
    try:
        return await _checked(token.get_secret_value(), keys, keys_url, settings, nonce)
    except NoSuchKey as error:
        raise _refused("signed by a key that the provider does not publish") from error
    except jwt.PyJWTError as error:
        # The text of PyJWT's errors is about the claims, never the token; but a kind is all that an operator needs.
        raise _refused(type(error).__name__) from error


async def _checked(token: str, keys: Keys, url: str, settings: OidcSettings, nonce: str) -> Mapping[str, Any]:
    claims = await claims_of(
        token,
        keys,
        url,
        Expected(settings.issuer, settings.client_id, settings.algorithms, settings.clock_skew_seconds, REQUIRED),
    )
    _check_the_rest(claims, settings.client_id, nonce)
    return claims


def _check_the_rest(claims: Mapping[str, Any], client_id: str, nonce: str) -> None:
    audience = claims["aud"]
    if isinstance(audience, list) and len(audience) > 1 and "azp" not in claims:
        raise jwt.MissingRequiredClaimError("azp")
    if claims.get("azp", client_id) != client_id:
        raise jwt.InvalidAudienceError("azp is another client")
    if claims.get("nonce", nonce) != nonce:
        raise jwt.InvalidTokenError("nonce is another login's")
    if not 0 < len(claims["sub"]) <= 255:  # PyJWT has seen to its being a string
        raise jwt.InvalidTokenError("sub")


def _refused(why: str) -> VerifierUnavailable:
    log.error("id_token_refused", extra={"why": why})
    return VerifierUnavailable(
        "the identity provider's token does not prove who you are",
        code="provider_token_refused",
        remedy="Nothing is wrong with what you typed. Platform team: the gateway's log says what is wrong with it.",
    )
