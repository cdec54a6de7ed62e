"""OIDC as a person sees it: a stock `ssh` on a terminal, a browser beside it, a real Keycloak, a real OPA."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.authn.octocat import CLIENT as GITHUB_CLIENT
from tests.authn.octocat import Github
from tests.authn.provider import APPROVED, CLIENT, PENDING, StandIn, hidden_in
from tests.e2e.world import Terminal
from tests.ssh.world import ALICE, Site, running
from tests.stack.keycloak import CLIENT as KEYCLOAK_CLIENT
from tests.stack.keycloak import Keycloak, answer
from tests.stack.opa import Opa
from tests.stack.require import require
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)

VERIFY = {"oidc": {"kind": "oidc", "provider": "corp", "within_seconds": 120}}
ALONE = {"methods": ["keyboard-interactive"], "chain": [["oidc"]], "verify": VERIFY}
KEY_THEN_OIDC = {"chain": [["publickey", "oidc"]], "verify": VERIFY}


@asynccontextmanager
async def door(
    opa: Opa, directory: Path, rules: dict[str, Any], issuer: str, client: str, **changes: Any
) -> AsyncIterator[Site]:
    """A gateway that knows the provider `corp`, whose OPA says `rules` for everybody."""
    settings = {
        "authn": {"oidc": {"corp": {"issuer": issuer, "client_id": client, "timeout_seconds": 30}}},
        "telemetry": {"exporter": "file"},
        **changes,
    }
    settings["ssh"] = {"login_grace_seconds": 120, **settings.get("ssh", {})}
    try:
        async with running(opa, directory, **settings) as site:
            opa.put("door", rules)
            yield site
    finally:
        for root in ("door", "authorities"):
            opa.put(root, {})


@dataclass
class Seen:
    """How an `ssh` ended, and all that was on its terminal."""

    status: int
    screen: str


def command(site: Site, *options: str, key: asyncssh.SSHKey | None = None) -> list[str]:
    identity: Sequence[str] = ()
    if key is not None:
        file = site.directory / "identity"
        key.write_private_key(file)
        file.chmod(0o600)
        identity = ("-i", str(file))
    return [
        "ssh", "-F", "none", "-p", str(site.port), *identity, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
        "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={site.directory}/known_hosts",
        "-o", "NumberOfPasswordPrompts=1", *options, f"{ALICE}@127.0.0.1", "echo i-am-in",
    ]  # fmt: skip


async def seen(words: Sequence[str], act: Callable[[Terminal], Any]) -> Seen:
    """Run `ssh` on a terminal, beside which `act` is done."""

    def run() -> Seen:
        with Terminal.running(words, asked=True) as terminal:
            act(terminal)
            status = terminal.wait_end(120)
            return Seen(status, terminal.seen)

    return await asyncio.to_thread(run)


def approving(name: str, password: str, *, approve: bool = True) -> Callable[[Terminal], None]:
    """What the person does: read the address, go there with a browser."""

    def act(terminal: Terminal) -> None:
        screen = terminal.wait_for("Waiting for your approval", 60)
        answer(re.findall(r"Or open (\S+)", screen)[0], name, password, approve=approve)

    return act


def nothing(_terminal: Terminal) -> None:
    pass


def all_that_is_kept(site: Site, opa: Opa, caplog: pytest.LogCaptureFixture) -> str:
    """Record, traces, OPA's decision log, and the log at its most talkative."""
    files = [site.directory / "state" / "audit.jsonl", site.directory / "state" / "traces.jsonl", opa.decision_log]
    return "".join([*(file.read_text() for file in files), *(str(vars(record)) for record in caplog.records)])


# -- a real Keycloak --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alices_password(identity_provider: Keycloak) -> str:
    return identity_provider.add_user(ALICE, ["oncall", "staff"])


@pytest.fixture(scope="module")
def mallorys_password(identity_provider: Keycloak) -> str:
    return identity_provider.add_user("mallory", ["oncall"])


@pytest.mark.slow
async def test_an_approval_in_the_browser_opens_the_door_and_its_claims_are_facts(
    opa_server: Opa,
    tmp_path: Path,
    identity_provider: Keycloak,
    alices_password: str,
    caplog: pytest.LogCaptureFixture,
    unexpected: Any,
) -> None:
    require("ssh")
    caplog.set_level(logging.DEBUG)
    rules = {**ALONE, "oidc_groups": {"corp": {"oncall": ["dba"], "another": ["admin"]}}}
    async with door(opa_server, tmp_path, rules, identity_provider.issuer, KEYCLOAK_CLIENT) as site:
        ended = await seen(command(site), approving(ALICE, alices_password))

        assert (ended.status, "i-am-in" in ended.screen) == (0, True), ended.screen
        assert f"open {identity_provider.issuer}/device" in ended.screen
        assert "within 2 min" in ended.screen
        [verified] = site.audit("verify")
        assert (verified["outcome"], verified["verification"]["provider"]) == ("verified", "corp")
        [config] = site.audit("config")
        [proof] = config["input"]["proofs"]
        assert sorted(proof["claims"]["groups"]) == ["oncall", "staff"]
        assert proof["claims"]["issuer"] == identity_provider.issuer
        identity = config["input"]["identity"]
        assert (identity["person"], identity["via"]) == (ALICE, ["oidc"])
        assert set(identity["groups"]) == {"oncall", "dba"}
        assert identity_provider.sessions(ALICE) == []
        await site.nothing_left()
        assert hidden_in(all_that_is_kept(site, opa_server, caplog)) == []


@pytest.mark.slow
async def test_a_key_then_an_approval_by_the_same_person(
    opa_server: Opa,
    tmp_path: Path,
    identity_provider: Keycloak,
    alices_password: str,
    mallorys_password: str,
    unexpected: Any,
) -> None:
    require("ssh")
    async with door(opa_server, tmp_path, KEY_THEN_OIDC, identity_provider.issuer, KEYCLOAK_CLIENT) as site:
        words = command(site, key=site.keys[ALICE])
        ended = await seen(words, approving(ALICE, alices_password))
        assert (ended.status, "i-am-in" in ended.screen) == (0, True), ended.screen
        assert site.audit("config")[0]["input"]["identity"]["via"] == ["publickey", "oidc"]

        another = await seen(words, approving("mallory", mallorys_password))
        assert another.status == 255
        assert "Permission denied" in another.screen
        denied = await seen(words, approving(ALICE, alices_password, approve=False))
        assert denied.status == 255
        assert "Permission denied" in denied.screen
        without = await seen(command(site), nothing)
        assert "To prove who you are" not in without.screen, "no code is given to whoever has no key"
        assert len(site.audit("config")) == 1


# -- a provider that does as a test wants -----------------------------------------------------------------------------


async def test_no_token_is_anywhere(
    opa_server: Opa, tmp_path: Path, caplog: pytest.LogCaptureFixture, unexpected: Any
) -> None:
    require("ssh")
    caplog.set_level(logging.DEBUG)
    async with StandIn().open() as provider, door(opa_server, tmp_path, ALONE, provider.url, CLIENT) as site:
        assert (await seen(command(site), nothing)).status == 0
        provider.polls = [APPROVED]
        provider.forge = lambda: provider.token(kid="unknown")
        assert (await seen(command(site), nothing)).status == 255
        await site.nothing_left()

        kept = all_that_is_kept(site, opa_server, caplog)
        assert "alice@example.com" in kept, "the claims are there"
        assert "id_token_refused" in kept
        assert hidden_in(kept) == []
        assert "secret street" not in kept


async def test_a_certificate_then_an_approval(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    require("ssh")
    ca = asyncssh.generate_private_key("ssh-ed25519")
    own = asyncssh.generate_private_key("ssh-ed25519")
    rules = {"chain": [["certificate", "oidc"]], "verify": VERIFY}
    async with StandIn().open() as provider, door(opa_server, tmp_path, rules, provider.url, CLIENT) as site:
        opa_server.put("authorities", {"corp": {"public_key": ca.export_public_key().decode().strip()}})
        words = command(site, key=own)
        ca.generate_user_certificate(own, "alice-1", principals=[ALICE]).write_certificate(
            site.directory / "identity-cert.pub"
        )
        ended = await seen(words, nothing)

        assert ended.status == 0, ended.screen
        assert site.audit("config")[0]["input"]["identity"]["via"] == ["certificate", "oidc"]


async def test_a_key_then_github_and_its_teams_are_groups(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    require("ssh")
    rules = {
        "chain": [["publickey", "oidc"]],
        "verify": {"oidc": {"kind": "oidc", "provider": "hub"}},
        "oidc_claim": "sub",
        "oidc_groups": {"hub": {"acme/oncall": ["oncall-acme"]}},
    }
    async with Github().open() as github:
        hub = {"client_id": GITHUB_CLIENT, "url": github.url, "api_url": f"{github.url}/api/v3"}
        async with door(
            opa_server, tmp_path, rules, "http://127.0.0.1:1", CLIENT, authn={"github": {"hub": hub}}
        ) as site:
            words = command(site, key=site.keys[ALICE])
            assert (await seen(words, nothing)).status == 255, "octocat is nobody here"
            alice = {"keys": [site.keys[ALICE].export_public_key().decode().strip()], "groups": []}
            opa_server.put(f"people/{ALICE}", {**alice, "authn": {"oidc_subject": "583231"}})
            ended = await seen(words, nothing)

            assert ended.status == 0, ended.screen
            assert "WDJB-MJHT" in ended.screen
            assert site.audit("config")[0]["input"]["identity"]["groups"] == ["oncall-acme"]


async def test_a_client_that_hides_texts_shows_a_question(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    require("ssh")
    verify = {"oidc": {**VERIFY["oidc"], "prompt": "Press Enter when you have approved: "}}
    async with (
        StandIn().open() as provider,
        door(opa_server, tmp_path, {**ALONE, "verify": verify}, provider.url, CLIENT) as site,
    ):

        def act(terminal: Terminal) -> None:
            screen = terminal.wait_for("Press Enter when you have approved: ", 60)
            assert "ABCD-EFGH within 60 s" in screen
            assert re.search(rf"Or open {provider.url}/activate\?user_code=ABCD-EFGH\s", screen)
            assert provider.count("/token") == 0, "nobody asks before they say that they are done"
            terminal.type("\n")

        ended = await seen(command(site, "-q"), act)
        assert ended.status == 0, ended.screen


async def test_a_provider_that_is_down_is_said_to_be(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    require("ssh")
    async with door(opa_server, tmp_path, ALONE, "http://127.0.0.1:1", CLIENT) as site:
        ended = await seen(command(site), nothing)

        assert ended.status == 255
        assert "provider_unreachable" in ended.screen


async def test_who_leaves_while_they_are_waited_for_leaves_nothing(
    opa_server: Opa, tmp_path: Path, unexpected: Any
) -> None:
    require("ssh")
    async with StandIn().open() as provider, door(opa_server, tmp_path, ALONE, provider.url, CLIENT) as site:
        provider.polls = [PENDING]

        def leave(terminal: Terminal) -> None:
            terminal.wait_for("Waiting for your approval", 60)
            terminal.process.kill()

        await seen(command(site), leave)
        await site.nothing_left()
        assert site.audit("config") == []
        await is_not_asked_any_more(provider, site)


async def test_the_login_grace_holds_for_whoever_is_waited_for(
    opa_server: Opa, tmp_path: Path, unexpected: Any
) -> None:
    require("ssh")
    grace = {"ssh": {"login_grace_seconds": 5}}
    async with StandIn().open() as provider, door(opa_server, tmp_path, ALONE, provider.url, CLIENT, **grace) as site:
        provider.polls = [PENDING]

        assert (await seen(command(site), nothing)).status == 255
        await site.nothing_left()
        await is_not_asked_any_more(provider, site)


async def is_not_asked_any_more(provider: StandIn, site: Site) -> None:
    """While somebody is waited for it is asked every 0.1 s; a whole login later, by that login alone."""
    await until(lambda: provider.held == 0)
    asked, provider.polls = provider.count("/token"), [APPROVED]
    assert (await seen(command(site), nothing)).status == 0
    assert provider.count("/token") == asked + 1
