"""GitHub's device flow, against a stand-in that answers as GitHub's documentation says (`octocat.py`)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.authn import Verified
from gateway.authn.oidc import OidcVerifier
from gateway.errors import VerifierUnavailable
from gateway.proofs import Oidc
from gateway.sections import SecretRef
from gateway.settings_authn import AuthnSettings
from tests.authn.octocat import DEVICE_CODE, SECRET, TOKEN, Github
from tests.authn.provider import Person


@pytest.fixture
async def github() -> AsyncIterator[Github]:
    async with Github().open() as opened:
        yield opened


async def verified(github: Github, person: Person | None = None, seconds: float = 20, **settings: Any) -> Verified:
    async with OidcVerifier.open(AuthnSettings(github={"hub": github.settings(**settings)})) as verifier:
        wanted = Oidc(kind="oidc", provider="hub", within_seconds=seconds)
        return await verifier.verify(wanted, (person or Person()).evidence())


async def test_an_approval_proves_who_it_is_and_of_which_organisations_and_teams(github: Github) -> None:
    person = Person()

    found = await verified(github, person)

    assert found == Verified(
        True,
        {
            "provider": "hub",
            "issuer": github.url,
            "sub": "583231",
            "preferred_username": "octocat",
            "login": "octocat",
            "id": 583231,
            "orgs": ["acme"],
            "teams": ["acme/oncall", "acme/dba"],
            "groups": ["acme", "acme/oncall", "acme/dba"],
        },
    )
    assert f"{github.url}/login/device\n" in person.shown
    assert "WDJB-MJHT" in person.shown


@pytest.mark.parametrize(("said", "failure"), [("access_denied", "denied"), ("expired_token", "expired")])
async def test_no_approval_is_no_proof(github: Github, said: str, failure: str) -> None:
    github.polls = ["authorization_pending", said]

    assert await verified(github) == Verified(False, {"provider": "hub", "failure": failure})


async def test_who_never_answers_is_not_waited_for_longer_than_policy_says(github: Github) -> None:
    github.polls = ["authorization_pending"]

    assert (await verified(github, seconds=0.5)).claims["failure"] == "unanswered"


async def test_slow_down_is_heeded(github: Github) -> None:
    github.polls = ["slow_down", "approved"]

    assert (await verified(github, seconds=1)).claims["failure"] == "unanswered"
    assert github.paths.count("/login/oauth/access_token") == 1, "the next would be 5 s later"


@pytest.mark.parametrize("said", ["incorrect_device_code", "unsupported_grant_type", "incorrect_client_credentials"])
async def test_an_error_that_is_our_own_is_told_to_the_operator(
    github: Github, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    github.polls = [said]

    with pytest.raises(VerifierUnavailable) as caught:
        await verified(github)

    assert caught.value.reasons[0].code == "provider_refused"
    [told] = [record for record in caplog.records if record.getMessage() == "provider_refused"]
    assert vars(told)["error"] == said


async def test_a_device_flow_that_is_not_enabled_is_told_to_the_operator(
    github: Github, caplog: pytest.LogCaptureFixture
) -> None:
    github.is_enabled = False

    with pytest.raises(VerifierUnavailable):
        await verified(github)

    assert "device_flow_disabled" in [vars(record).get("error") for record in caplog.records]


async def test_all_pages_are_read_and_too_many_prove_nothing(github: Github) -> None:
    github.teams = [("acme", f"team-{number}") for number in range(250)]
    found = await verified(github)
    assert found.claims["teams"] == [f"acme/team-{number}" for number in range(250)]

    github.orgs = [f"org-{number}" for number in range(500)]
    with pytest.raises(VerifierUnavailable, match="500"):
        await verified(github)


async def test_without_the_scope_nothing_is_proven(github: Github) -> None:
    with pytest.raises(VerifierUnavailable) as caught:
        await verified(github, scopes=("read:user",))
    assert caught.value.reasons[0].code == "provider_refused"


@pytest.mark.parametrize("user", [{}, {"login": "octocat"}, {"login": "octocat", "id": "1"}, {"login": 1, "id": 1}])
async def test_a_nobody_is_no_proof(github: Github, user: dict[str, Any]) -> None:
    github.user = user

    with pytest.raises(VerifierUnavailable, match="who it is"):
        await verified(github)


async def test_the_token_is_given_back_where_the_client_has_a_secret(github: Github, tmp_path: Path) -> None:
    assert (await verified(github)).proven
    assert github.revoked == []

    (tmp_path / "secret").write_text(SECRET)
    assert (await verified(github, client_secret=SecretRef(file=tmp_path / "secret"))).proven
    assert github.revoked == [TOKEN]


async def test_no_secret_is_in_a_log_or_a_claim(
    github: Github, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret").write_text(SECRET + "wrong")

    with caplog.at_level(logging.DEBUG):
        found = await verified(github, client_secret=SecretRef(file=tmp_path / "secret"))

    said = "".join(str(vars(record)) for record in caplog.records) + str(found)
    assert "provider_kept_token" in said
    assert not [secret for secret in (TOKEN, DEVICE_CODE, SECRET) if secret in said]
