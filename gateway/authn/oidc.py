"""Who somebody is, by an identity provider's device flow shown over keyboard-interactive.

The text is plain ASCII below a kilobyte: a stock `ssh` shows what comes without a question by its logging, which
escapes all else and cuts what is longer.  For the same reason `ssh -q` hides it; a question is always shown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from pydantic import JsonValue

from gateway.authn import Evidence, Prompt, Verified
from gateway.authn.device_flow import Invitation, NotGranted, Tokens
from gateway.authn.github import Github
from gateway.authn.openid import OpenId
from gateway.concurrency import to_the_end
from gateway.errors import VerifierUnavailable
from gateway.proofs import Oidc
from gateway.settings_authn import AuthnSettings

log = logging.getLogger(__name__)


class Login(Protocol):
    """One login at a provider."""

    @property
    def invitation(self) -> Invitation: ...

    async def granted(self) -> Tokens:
        """Wait until the person has approved.  Not bounded in time.  Raises NotGranted or VerifierUnavailable."""
        ...

    async def facts(self, tokens: Tokens) -> Mapping[str, JsonValue]:
        """Who the tokens say it is, checked.  Raises VerifierUnavailable."""
        ...

    async def forget(self, tokens: Tokens) -> None:
        """Have the provider end them, where it can.  Raises VerifierUnavailable."""
        ...


class Provider(Protocol):
    """One identity provider.  One object serves all logins; each request it makes is bounded."""

    async def login(self) -> Login:
        """Begin one.  Raises VerifierUnavailable."""
        ...


class OidcVerifier:
    """The verifier of kind `oidc`.

    `claims` always hold `provider`; proven, also `issuer`, `sub` and what else the provider says (`claims.py`);
    not proven, `failure`: `denied` by the person, `expired` at the provider, or `unanswered` in the time policy gives.
    """

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: AuthnSettings) -> AsyncIterator[OidcVerifier]:
        """Raises SettingsError."""
        async with AsyncExitStack() as stack:
            providers: dict[str, Provider] = {}
            for name, oidc in settings.oidc.items():
                providers[name] = await stack.enter_async_context(OpenId.open(name, oidc))
            for name, github in settings.github.items():
                providers[name] = await stack.enter_async_context(Github.open(name, github))
            yield cls(providers)

    async def verify(self, verification: Oidc, evidence: Evidence) -> Verified:
        """See `Verifier.verify`."""
        claims: dict[str, JsonValue] = {"provider": verification.provider}
        login = await self._provider(verification.provider).login()
        try:
            tokens = await _approved(login, verification, evidence)
        except NotGranted as error:
            return Verified(False, {**claims, "failure": error.why})
        try:
            return Verified(True, {**claims, **await login.facts(tokens)})
        finally:
            await to_the_end(_forget(login, tokens, verification.provider))

    async def check(self, name: str) -> str:
        """Have the provider begin a login that nobody ends: it is there and knows us.  Raises VerifierUnavailable."""
        invitation = (await self._provider(name).login()).invitation
        return f"sends people to {invitation.verification_uri}"

    def _provider(self, name: str) -> Provider:
        if name not in self._providers:
            raise VerifierUnavailable(
                f"the policy names the identity provider {name!r}, which this gateway does not have",
                code="provider_unknown",
                remedy=f"Tell the platform team: the settings lack authn.oidc.{name}.",
            )
        return self._providers[name]


async def _approved(login: Login, verification: Oidc, evidence: Evidence) -> Tokens:
    """Raises NotGranted or VerifierUnavailable."""
    if evidence.ask is None:
        raise VerifierUnavailable(
            "the policy wants an approval in a browser where nothing can be shown",
            remedy="Tell the platform team: policy may name `oidc` for keyboard-interactive only.",
        )
    seconds = min(verification.within_seconds, login.invitation.expires_in)
    try:
        async with asyncio.timeout(seconds):
            await evidence.ask(*shown(login.invitation, seconds, verification.prompt))
            return await login.granted()
    except TimeoutError as error:
        raise NotGranted("unanswered") from error


def shown(invitation: Invitation, seconds: float, prompt: str) -> tuple[str, Sequence[Prompt]]:
    """What the person reads: as text alone, or with a question that they answer when they have approved."""
    minutes = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    lines = [
        f"To prove who you are, open {invitation.verification_uri}",
        f"and enter the code {invitation.user_code} within {minutes}.",
    ]
    if invitation.verification_uri_complete:
        lines.append(f"Or open {invitation.verification_uri_complete}")
    lines.append("Never do so for a code that somebody else gives you: it lets them in as you.")
    if not prompt:
        return "\n".join([*lines, "Waiting for your approval ..."]), ()
    return "", (Prompt("\n".join([*lines, prompt]), echo=True),)


async def _forget(login: Login, tokens: Tokens, provider: str) -> None:
    try:
        await login.forget(tokens)
    except VerifierUnavailable as error:
        log.warning("provider_kept_token", extra={"provider": provider, "code": error.reasons[0].code})
