"""Who asks at the grants door: by a token that the settings know by its hash, a JWT of an issuer, or a certificate."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import jwt
from aiohttp import web

from gateway.authn.keys import Keys, NoSuchKey
from gateway.authn.signed import Expected, claims_of
from gateway.authn.web import Web
from gateway.door.http import DEPTH_LIMIT, depth
from gateway.policy.contract import Automation, ClientCertificate
from gateway.settings_door import DoorIssuer, DoorSettings

REQUIRED = ("iss", "aud", "exp", "iat")
NAME = re.compile(r"[A-Za-z0-9._@:/-]{1,200}")
KINDS = {"DNS": "DNS", "URI": "URI", "email": "EMAIL"}


class Unknown(Exception):
    """Nobody whom the door knows.  Its text is for the record, and holds nothing that was offered."""


class Clients:
    """All clients of the door."""

    def __init__(self, settings: DoorSettings, keys: Mapping[str, Keys]) -> None:
        """`keys` by the name of their issuer.  Raises SettingsError for a token that cannot be read."""
        self._tokens = {name: client.hashes() for name, client in settings.clients.items()}
        self._certificates = {known: name for name, client in settings.clients.items() for known in client.certificates}
        self._issuers = {issuer.issuer: (name, issuer) for name, issuer in settings.issuers.items()}
        self._keys = keys

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: DoorSettings) -> AsyncIterator[Clients]:
        """Raises SettingsError; an issuer that is down is noticed when it is needed."""
        async with AsyncExitStack() as stack:
            keys = {}
            for name, issuer in settings.issuers.items():
                site = Web.open(f"door.issuers.{name}", issuer.ca_file, issuer.timeout_seconds)
                keys[name] = Keys(await stack.enter_async_context(site))
            yield cls(settings, keys)

    async def known(self, request: web.Request) -> Automation:
        """Who it is.  Raises Unknown, or VerifierUnavailable where it cannot be told.

        What is offered counts: who sends a wrong token is not taken for whom their certificate names.
        """
        certificate = shown(request)
        authorization = request.headers.getall("authorization", [])
        if len(authorization) > 1:
            raise Unknown("two tokens")
        if authorization:
            scheme, _, token = authorization[0].partition(" ")
            if scheme.lower() != "bearer":
                raise Unknown("no bearer token")
            return await self._by_token(token.strip(), certificate)
        if certificate is None:
            raise Unknown("no token")
        names = {self._certificates[name] for name in certificate.names if name in self._certificates}
        if len(names) != 1:
            raise Unknown("unknown certificate")
        return Automation(name=names.pop(), proof="certificate", certificate=certificate)

    async def _by_token(self, token: str, certificate: ClientCertificate | None) -> Automation:
        offered = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()  # any bytes can be offered
        for name, hashes in self._tokens.items():
            if any(hmac.compare_digest(offered, known) for known in hashes):
                return Automation(name=name, proof="token", certificate=certificate)
        if not self._issuers or token.count(".") != 2 or not token.isascii():
            raise Unknown("unknown token")
        try:
            return await self._by_jwt(token, certificate)
        except NoSuchKey as error:
            raise Unknown("signed by a key that its issuer does not publish") from error
        except jwt.PyJWTError as error:
            # A kind is all that anybody needs: the text may quote what was offered.
            raise Unknown(type(error).__name__) from error

    async def _by_jwt(self, token: str, certificate: ClientCertificate | None) -> Automation:
        # Only to find out whose it says it is; nothing of it is believed yet.
        said: Any = jwt.decode(token, options={"verify_signature": False}).get("iss")
        if not isinstance(said, str) or said not in self._issuers:
            raise Unknown("a token of nobody who is known here")
        name, issuer = self._issuers[said]
        claims = await claims_of(token, self._keys[name], issuer.jwks_url, _expected(issuer))
        client = claims.get(issuer.client_claim)
        if not isinstance(client, str) or not NAME.fullmatch(client):
            raise Unknown(f"the claim {issuer.client_claim} names no client")
        if depth(claims) > DEPTH_LIMIT:  # all of them go on record; no header is longer than 8 KiB
            raise Unknown("claims nested too deep")
        # A name that no client in the settings can have, nor another issuer's.
        return Automation(name=f"{name}:{client}", proof="jwt", claims=dict(claims), certificate=certificate)


def shown(request: web.Request) -> ClientCertificate | None:
    """The certificate that the client showed, which TLS has verified; None where it showed none."""
    transport = request.transport
    tls: Any = transport.get_extra_info("ssl_object") if transport is not None else None
    facts: Mapping[str, Any] = (tls.getpeercert() if tls is not None else None) or {}
    if not facts:
        return None
    names = [f"CN:{value}" for pairs in facts.get("subject", ()) for kind, value in pairs if kind == "commonName"]
    names += [f"{KINDS[kind]}:{value}" for kind, value in facts.get("subjectAltName", ()) if kind in KINDS]
    return ClientCertificate(names=tuple(names), fingerprint=hashlib.sha256(tls.getpeercert(True)).hexdigest())


def _expected(issuer: DoorIssuer) -> Expected:
    return Expected(issuer.issuer, issuer.audience, issuer.algorithms, issuer.clock_skew_seconds, REQUIRED)
