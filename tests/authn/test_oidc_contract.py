"""Both kinds of identity providers keep the contract of all verifiers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from gateway.authn import Verifier
from gateway.authn.oidc import OidcVerifier
from gateway.contracts.verifier import MakeTry, Try, VerifierContract, evidence
from gateway.proofs import Oidc
from gateway.settings_authn import AuthnSettings
from tests.authn.octocat import DEVICE_CODE, TOKEN, Github
from tests.authn.provider import Person, StandIn

SECRETS = ("device-code-secret", "access-token-secret", "refresh-token-secret", "eyJ", DEVICE_CODE, TOKEN)


class Providers:
    """One of a kind at which everybody approves, one at which everybody refuses; `stop` takes both away."""

    verifier: OidcVerifier
    stop: Callable[[], Awaitable[None]]


@pytest.fixture(params=["oidc", "github"])
async def providers(request: pytest.FixtureRequest) -> AsyncIterator[Providers]:
    found = Providers()
    servers = AsyncExitStack()
    async with servers, AsyncExitStack() as stack:
        if request.param == "oidc":
            yes, no = [await servers.enter_async_context(StandIn().open()) for _ in range(2)]
            no.polls = ["access_denied"]
            settings = AuthnSettings(oidc={"yes": yes.settings(), "no": no.settings()})
        else:
            willing, unwilling = [await servers.enter_async_context(Github().open()) for _ in range(2)]
            willing.polls, unwilling.polls = ["approved"], ["access_denied"]
            settings = AuthnSettings(github={"yes": willing.settings(), "no": unwilling.settings()})
        found.verifier = await stack.enter_async_context(OidcVerifier.open(settings))
        found.stop = servers.aclose
        yield found


class TestIdentityProviders(VerifierContract):
    @pytest.fixture
    def verifier(self, providers: Providers) -> Verifier:
        return providers.verifier

    @pytest.fixture
    def right(self) -> MakeTry:
        return lambda: attempt("yes")

    @pytest.fixture
    def wrong(self) -> MakeTry:
        return lambda: attempt("no")

    @pytest.fixture
    def unknown(self) -> MakeTry:
        return lambda: attempt("no", login="nobody")

    @pytest.fixture
    def outage(self, providers: Providers) -> Callable[[], Awaitable[None]]:
        return providers.stop


def attempt(provider: str, **who: str) -> Try:
    return Try(Oidc(kind="oidc", provider=provider, within_seconds=15), evidence(ask=Person(), **who), SECRETS)
