"""Passwords by a real Vault: its own users, and an LDAP server's behind it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.authn.vault_password import WRONG_SECONDS, VaultPasswordVerifier
from gateway.contracts.verifier import (
    IN_TIME,
    MakeTry,
    Outage,
    Try,
    VerifierContract,
    everything_in,
    evidence,
    found,
    refusal,
    with_password,
)
from gateway.proofs import VaultPassword
from gateway.settings_authn import VaultAuthnSettings
from tests.authn.serving import Answer, Served, never, serving
from tests.stack.ldap import GROUP, GROUPS, PEOPLE, Ldap, ldap
from tests.stack.require import require
from tests.stack.vault import Vault, bare_vault
from tests.waiting import until

PASSWORD = "correct horse"


@dataclass(frozen=True)
class Stack:
    vault: Vault
    ldap: Ldap | None
    audit: Path

    def settings(self, **changes: object) -> VaultAuthnSettings:
        return VaultAuthnSettings.model_validate({"url": self.vault.url, "timeout_seconds": 5, **changes})

    def tokens(self) -> int:
        """How many tokens there are beside root's."""
        return len(self.vault.client().adapter.list("/v1/auth/token/accessors")["data"]["keys"]) - 1


def prepared(vault: Vault, directory: Path, server: Ldap | None = None) -> Stack:
    """Vault with userpass, and with LDAP where there is one."""
    adapter = vault.client().adapter
    audit = directory / "audit.jsonl"
    vault.client().sys.enable_audit_device("file", options={"file_path": str(audit), "log_raw": "true"})
    adapter.post("/v1/sys/auth/userpass", json={"type": "userpass"})
    adapter.post("/v1/auth/userpass/users/alice", json={"password": PASSWORD, "token_policies": "default,oncall"})
    if server is not None:
        adapter.post("/v1/sys/auth/corp/ldap", json={"type": "ldap"})
        where = {"userdn": PEOPLE, "userattr": "uid", "groupdn": GROUPS, "groupattr": "cn"}
        search = {"groupfilter": "(member={{.UserDN}})", "request_timeout": 5, "connection_timeout": 2}
        adapter.post("/v1/auth/corp/ldap/config", json={"url": server.url, **where, **search})
        adapter.post(f"/v1/auth/corp/ldap/groups/{GROUP}", json={"policies": GROUP})
    return Stack(vault, server, audit)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    require("slapd")
    directory = tmp_path_factory.mktemp("vault")
    with (
        bare_vault(directory / "vault") as vault,
        ldap(directory, {"alice": PASSWORD, "bob": "another", "carol": PASSWORD}) as server,
    ):
        yield prepared(vault, directory, server)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """A Vault of the test's own, to seal and to stop."""
    with bare_vault(tmp_path / "vault") as vault:
        yield prepared(vault, tmp_path)


@pytest.fixture
def mine(request: pytest.FixtureRequest) -> Stack:
    """The shared stack, or one whose Vault may be taken away."""
    found: Stack = request.getfixturevalue("own" if "outage" in request.fixturenames else "stack")
    return found


@pytest.fixture
async def verifier(mine: Stack) -> AsyncIterator[VaultPasswordVerifier]:
    async with VaultPasswordVerifier.open(mine.settings(), wrong_seconds=0) as opened:
        yield opened


def userpass(name: str = "alice", password: str = PASSWORD) -> Try:
    return with_password(VaultPassword(kind="vault_password", username=name), password)


def through_ldap(name: str = "alice", password: str = PASSWORD) -> Try:
    words = {"kind": "vault_password", "backend": "ldap", "mount": "corp/ldap", "username": name}
    return with_password(VaultPassword.model_validate(words), password)


class TestUserpass(VerifierContract):
    @pytest.fixture
    def right(self) -> MakeTry:
        return userpass

    @pytest.fixture
    def wrong(self) -> MakeTry:
        return lambda: userpass(password="wrong horse")

    @pytest.fixture
    def unknown(self) -> MakeTry:
        return lambda: userpass("mallory", "wrong horse")

    @pytest.fixture
    def outage(self, mine: Stack) -> Outage:
        async def end() -> None:
            await asyncio.to_thread(mine.vault.process.end)

        return end


class TestLdap(VerifierContract):
    @pytest.fixture
    def mine(self, stack: Stack) -> Stack:
        return stack

    @pytest.fixture
    def right(self) -> MakeTry:
        return through_ldap

    @pytest.fixture
    def wrong(self) -> MakeTry:
        return lambda: through_ldap("bob", "wrong horse")

    @pytest.fixture
    def unknown(self) -> MakeTry:
        return lambda: through_ldap("mallory", "wrong horse")

    @pytest.fixture
    def outage(self) -> Outage:
        return None


# -- what is found ----------------------------------------------------------------------------------------------------


async def test_what_vault_says_of_a_person_are_facts(verifier: VaultPasswordVerifier) -> None:
    answer = await found(verifier, userpass())

    assert answer.claims.keys() == {"backend", "mount", "policies", "token_policies", "metadata", "entity_id"}
    assert answer.claims["policies"] == ["default", "oncall"]
    assert answer.claims["metadata"] == {"username": "alice"}


async def test_ldap_groups_are_the_policies_they_give(verifier: VaultPasswordVerifier) -> None:
    answer = await found(verifier, through_ldap())

    assert answer.claims["policies"] == ["default", GROUP]
    assert answer.claims["mount"] == "corp/ldap"


async def test_no_token_of_a_login_is_left(verifier: VaultPasswordVerifier, stack: Stack) -> None:
    before = stack.tokens()
    for attempt in (userpass(), through_ldap(), userpass(password="wrong")):
        await found(verifier, attempt)

    assert stack.tokens() == before


@pytest.mark.parametrize("milliseconds", [0, 2, 5, 10, 20, 40])
async def test_a_login_that_is_cancelled_leaves_no_token(
    verifier: VaultPasswordVerifier, stack: Stack, milliseconds: int
) -> None:
    before = stack.tokens()
    verifying = asyncio.ensure_future(found(verifier, userpass()))
    await asyncio.wait([verifying], timeout=milliseconds / 1000)
    verifying.cancel()
    await asyncio.wait([verifying], timeout=IN_TIME)

    assert verifying.done()
    assert stack.tokens() == before


async def test_a_token_that_vault_does_not_let_go_is_told_to_the_operator(
    verifier: VaultPasswordVerifier, stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gateway")
    words = {"password": PASSWORD, "token_no_default_policy": True, "token_policies": "oncall", "token_ttl": "60s"}
    stack.vault.client().adapter.post("/v1/auth/userpass/users/stubborn", json=words)

    assert (await found(verifier, userpass("stubborn"))).proven
    assert "vault_login_not_revoked" in caplog.text
    assert "hvs." not in "".join(str(vars(record)) for record in caplog.records)


# -- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [".", "..", "al ice", "älice", "alice?x=1", "alice#x", "alice%2f", "*", "alice)(uid=*", "-alice-", "a" * 253],
)
@pytest.mark.parametrize("attempt", [userpass, through_ldap])
async def test_a_name_that_vault_cannot_spell_is_wrong_and_no_error(
    verifier: VaultPasswordVerifier, attempt: Callable[[str, str], Try], name: str
) -> None:
    answer = await found(verifier, attempt(name, PASSWORD))

    assert not answer.proven
    assert answer.claims.keys() == {"backend", "mount"}


@pytest.mark.parametrize("attempt", [userpass, through_ldap])
async def test_no_password_is_wrong_and_no_anonymous_bind(
    verifier: VaultPasswordVerifier, stack: Stack, attempt: Callable[[str, str], Try]
) -> None:
    adapter = stack.vault.client().adapter
    adapter.post("/v1/auth/corp/ldap/config", json={"deny_null_bind": False})
    try:
        assert not (await found(verifier, attempt("alice", ""))).proven
    finally:
        adapter.post("/v1/auth/corp/ldap/config", json={"deny_null_bind": True})


async def test_who_is_locked_by_vault_is_wrong_and_no_error(verifier: VaultPasswordVerifier, stack: Stack) -> None:
    assert (await found(verifier, through_ldap("carol"))).proven
    answers = [await found(verifier, through_ldap("carol", "guess")) for _ in range(8)]

    assert not any(answer.proven for answer in answers)
    assert "permission denied" in stack.audit.read_text()  # Vault itself no longer looked
    assert not (await found(verifier, through_ldap("carol"))).proven


async def test_a_wrong_answer_takes_its_time_whoever_it_is_and_a_right_one_does_not(stack: Stack) -> None:
    async def seconds(verifier: VaultPasswordVerifier, attempt: Try, proven: bool) -> float:
        began = time.monotonic()
        assert (await found(verifier, attempt)).proven is proven
        return time.monotonic() - began

    async with VaultPasswordVerifier.open(stack.settings()) as verifier:
        for attempt in (userpass(password="wrong"), userpass("mallory"), userpass("..."), userpass("alice", "")):
            assert await seconds(verifier, attempt, False) >= WRONG_SECONDS
    async with VaultPasswordVerifier.open(stack.settings(), wrong_seconds=3600) as verifier:
        await seconds(verifier, userpass(), True)  # else it would not come back


async def test_a_mount_that_is_not_there_is_an_error(verifier: VaultPasswordVerifier) -> None:
    attempt = with_password(VaultPassword(kind="vault_password", mount="nowhere", username="alice"), PASSWORD)
    error = await refusal(verifier, attempt)

    assert error.reasons[0].code == "vault_failed"
    assert "nowhere" in str(error)


async def test_ldap_that_is_down_is_an_error_and_no_wrong_password(tmp_path: Path) -> None:
    require("slapd")
    with bare_vault(tmp_path / "vault") as vault, ldap(tmp_path, {"alice": PASSWORD}) as server:
        stack = prepared(vault, tmp_path, server)
        async with VaultPasswordVerifier.open(stack.settings()) as verifier:
            assert (await found(verifier, through_ldap())).proven
            server.process.end()
            for attempt in (through_ldap(), through_ldap(password="wrong")):
                error = await refusal(verifier, attempt)
                assert error.reasons[0].code == "vault_failed"
            assert (await found(verifier, userpass())).proven


async def test_vault_that_is_sealed_is_an_error(own: Stack) -> None:
    async with VaultPasswordVerifier.open(own.settings()) as verifier:
        await verifier.check()
        own.vault.client().sys.seal()

        assert (await refusal(verifier, userpass())).reasons[0].code == "vault_sealed"
        with pytest.raises(Exception, match="sealed"):
            await verifier.check()


async def test_vault_that_hangs_is_given_up_on_and_a_cancelled_login_too() -> None:
    async with serving(never) as served:
        settings = VaultAuthnSettings(url=served.url, timeout_seconds=0.5)
        async with VaultPasswordVerifier.open(settings) as verifier:
            assert (await refusal(verifier, userpass())).reasons[0].code == "verifier_timeout"
            await _cancelled_while_it_hangs(verifier, served)


async def _cancelled_while_it_hangs(verifier: VaultPasswordVerifier, served: Served) -> None:
    asked = len(served.requests)
    verifying = asyncio.ensure_future(found(verifier, userpass()))
    await until(lambda: len(served.requests) > asked)
    verifying.cancel()
    await asyncio.wait([verifying], timeout=IN_TIME)

    assert verifying.done()


LOGIN = {"auth": {"client_token": "hvs.of-the-login", "policies": ["default"]}}


@asynccontextmanager
async def pretending(login: Any, revoke: Answer, **changes: object) -> AsyncIterator[VaultPasswordVerifier]:
    """Something in Vault's place that answers a login with `login`, and `revoke` when its token is given back."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return await revoke(request) if request.path.endswith("revoke-self") else web.json_response(login)

    async with serving(answer) as served:
        settings = VaultAuthnSettings.model_validate({"url": served.url, "timeout_seconds": 0.5, **changes})
        async with VaultPasswordVerifier.open(settings) as verifier:
            yield verifier


async def test_vault_that_dies_after_the_login_takes_nothing_from_the_person(caplog: pytest.LogCaptureFixture) -> None:
    async with pretending(LOGIN, never) as verifier:
        assert (await found(verifier, userpass())).proven

    assert "vault_login_not_revoked" in caplog.text
    assert "hvs." not in "".join(str(vars(record)) for record in caplog.records)


async def test_who_leaves_while_they_log_in_leaves_no_token() -> None:
    begun, revoked = asyncio.Event(), asyncio.Event()

    async def login(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("revoke-self"):
            assert request.headers["X-Vault-Token"] == "hvs.of-the-login"
            revoked.set()
            return web.Response(status=204)
        begun.set()
        await asyncio.sleep(0)  # they leave while Vault looks
        return web.json_response(LOGIN)

    async with serving(login) as served:
        settings = VaultAuthnSettings(url=served.url, timeout_seconds=5)
        async with VaultPasswordVerifier.open(settings) as verifier:
            verifying = asyncio.ensure_future(found(verifier, userpass()))
            await begun.wait()
            verifying.cancel()
            await asyncio.wait([verifying], timeout=IN_TIME)

    assert verifying.cancelled()
    assert revoked.is_set()


@pytest.mark.parametrize(
    ("login", "code"),
    [
        ({"auth": {"client_token": "", "mfa_requirement": {"mfa_request_id": "x"}}}, "vault_wants_mfa"),
        ({"auth": None}, "vault_unexpected"),
        ({}, "vault_unexpected"),
        ([], "vault_unexpected"),
        ("nonsense", "vault_unexpected"),
    ],
)
async def test_a_yes_without_a_token_is_none(login: Any, code: str) -> None:
    async with pretending(login, never) as verifier:
        assert (await refusal(verifier, userpass())).reasons[0].code == code


async def test_an_answer_that_is_cut_short_is_in_no_error() -> None:
    async def cut(_request: web.Request) -> web.StreamResponse:
        return web.Response(text='{"auth": {"client_token": "hvs.of-the-login"')

    async with serving(cut) as served:
        settings = VaultAuthnSettings(url=served.url, timeout_seconds=5)
        async with VaultPasswordVerifier.open(settings) as verifier:
            error = await refusal(verifier, userpass())

    assert error.reasons[0].code == "vault_unexpected"
    assert "hvs." not in everything_in(error)


async def test_it_needs_a_password(verifier: VaultPasswordVerifier) -> None:
    await refusal(verifier, Try(userpass().verification, evidence()))
