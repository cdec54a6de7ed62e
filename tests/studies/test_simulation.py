"""The story of one connection, asked of policy step by step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from jsonschema import Draft7Validator

from gateway.studies.errors import StudyError
from gateway.studies.moments import moment
from gateway.studies.questions import Circumstances
from gateway.studies.requests import all_named, named
from gateway.studies.simulation import Story, expected, meets, simulate
from tests.policy.world import data
from tests.studies.world import NOON, study

SCHEMAS = Path(__file__).parents[2] / "schemas"


async def told(
    person: str,
    target: str = "",
    *,
    at: str = NOON,
    proofs: Sequence[str] = (),
    requests: Sequence[str] = (),
    **changes: Any,
) -> Story:
    async with study(changes) as opa:
        wanted = all_named(requests) or None
        return await simulate(opa, Circumstances(moment(at)), person, target, proofs=proofs, requests=wanted)


async def test_the_whole_story_of_somebody_who_may() -> None:
    story = await told("alice", "orders-db")
    assert story.outcome == "allow"
    assert [step.step for step in story.steps] == ["authn", "config"]
    assert story.login.chain == "publickey"
    assert story.permit is not None
    assert story.permit["credentials"][0]["role"] == "orders-readonly"
    assert {step.step: step.allowed for step in story.requests}["forward orders-db:5432"]


async def test_every_question_is_one_that_the_gateway_could_ask() -> None:
    """Held to the schemas, so that a study asks what the gateway asks."""
    requests = ["sftp", "sftp read /srv/reports/a", "env LANG=C", "pty", "x11", "forward h:1", "listen h:0", "agent",
                "socket /run/x", "exec a b", "subsystem netconf", "shell"]  # fmt: skip
    grants = {"dora": {"INC-1": {**data()["grants"]["alice"]["INC-1"], "target": "reports"}}}
    story = await told("dora", "reports", requests=requests, grants=grants)
    assert story.permit is not None
    for step in (*story.steps, *story.requests):
        name = step.decision.split("/")[1]
        schema = json.loads((SCHEMAS / f"input.{name}.json").read_text())
        assert [error.message for error in Draft7Validator(schema).iter_errors(step.question)] == []


@pytest.mark.parametrize(
    ("person", "target", "at", "outcome"),
    [
        ("alice", "orders-db", "2030-01-31T09:59:59Z", "deny:grant_not_started"),
        ("alice", "orders-db", "2030-01-31T14:00:00Z", "deny:grant_ended"),
        ("alice", "reports", NOON, "deny:no_grant"),
        ("bob", "orders-db", NOON, "deny:no_grant"),
        ("carol", "orders-db", NOON, "deny:not_recognised"),
        ("nobody", "orders-db", NOON, "deny:not_recognised"),
    ],
)
async def test_a_story_ends_where_policy_ends_it(person: str, target: str, at: str, outcome: str) -> None:
    assert (await told(person, target, at=at)).outcome == outcome


async def test_what_is_not_in_the_data_is_noted_with_what_may_be_meant() -> None:
    story = await told("alise", "orders-bd")
    assert story.notes == (
        "there is no person 'alise' in the data; similar: alice",
        "there is no target 'orders-bd' in the data; similar: orders-db",
    )


async def test_a_chain_is_walked_proof_by_proof() -> None:
    grants = {"dora": {"INC-1": data()["grants"]["alice"]["INC-1"]}}
    half = await told("dora", "orders-db", proofs=["publickey"], grants=grants)
    assert half.outcome == "deny:more_proof_needed"
    assert "keyboard-interactive" in half.steps[0].reasons[0]["message"]
    whole = await told("dora", "orders-db", proofs=["publickey", "totp"], grants=grants)
    assert whole.outcome == "allow"
    assert whole.login.chain == "publickey then totp"
    assert [tried.verified_by for tried in whole.login.tried] == ["key_list", "totp"]
    wrong = await told("dora", "orders-db", proofs=["publickey", "oidc"], grants=grants)
    assert wrong.login.identity is None


async def test_a_key_of_a_file_is_shown_as_it_is(tmp_path: Path) -> None:
    mine = asyncssh.generate_private_key("ssh-ed25519")
    mine.write_public_key(tmp_path / "mine.pub")
    door = {**data()["door"], "verify": {}}
    proofs = [f"publickey:{tmp_path / 'mine.pub'}"]
    assert (await told("alice", "orders-db", proofs=proofs, door=door)).outcome == "deny:not_recognised"
    people = data()["people"]
    people["alice"]["keys"].append((tmp_path / "mine.pub").read_text().strip())
    assert (await told("alice", "orders-db", proofs=proofs, door=door, people=people)).outcome == "allow"


async def test_a_certificate_of_a_file_brings_its_limits(tmp_path: Path) -> None:
    authority, mine = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    certificate = authority.generate_user_certificate(mine, "alice@laptop", principals=["alice"], permit_pty=False)
    certificate.write_certificate(tmp_path / "mine-cert.pub")
    authorities = {"mine": {"public_key": authority.export_public_key().decode().strip()}}
    grant = {**data()["grants"]["alice"]["INC-1"], "starts_at": "2020-01-01T00:00:00Z"}
    proofs = [f"publickey:{tmp_path / 'mine-cert.pub'}"]
    changes = {"authorities": authorities, "grants": {"alice": {"INC-1": grant}}}
    story = await told("alice", "orders-db", at="now", proofs=proofs, requests=["exec id", "pty"], **changes)
    assert story.login.chain == "certificate"
    assert story.outcome == "deny:certificate_restricts"


@pytest.mark.parametrize("word", ["publickey:/nowhere.pub", "magic", "password:x", ""])
async def test_a_proof_that_is_none_is_told(word: str) -> None:
    with pytest.raises(StudyError, match="--proof") as error:
        await told("alice", "orders-db", proofs=[word])
    assert ".pub file" in error.value.reasons[0].remedy or "publickey:FILE" in error.value.reasons[0].remedy


async def test_requests_that_are_named_have_to_be_allowed() -> None:
    assert (await told("alice", "orders-db", requests=["exec psql", "forward orders-db:5432"])).outcome == "allow"
    assert (await told("alice", "orders-db", requests=["exec psql", "x11"])).outcome == "deny:x11_refused"


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("exec psql -c 'select 1'", {"kind": "exec", "command": "psql -c 'select 1'"}),
        ("sftp write '/srv/a b'", {"kind": "sftp", "operation": "open", "path": "/srv/a b", "read": False,
                                   "write": True}),
        ("forward [::1]:80", {"kind": "direct-tcpip", "host": "::1", "port": 80, "originator_host": "127.0.0.1",
                              "originator_port": 0}),
        ('{"kind": "break", "milliseconds": 1}', {"kind": "break", "milliseconds": 1}),
    ],
)  # fmt: skip
def test_requests_as_people_type_them(text: str, facts: Mapping[str, Any]) -> None:
    assert named(text) == (text, facts)


@pytest.mark.parametrize("text", ["", "fly", "forward", "forward a:b", "sftp peek /x", "sftp read", "env X", "{", "[1]",
                                  '{"kind": 7}', "socket", "sftp read 'x"])  # fmt: skip
def test_requests_that_are_none_are_told_with_those_there_are(text: str) -> None:
    with pytest.raises(StudyError, match="--request") as error:
        named(text)
    assert "sftp [read|write PATH]" in error.value.reasons[0].remedy


def test_expectations() -> None:
    assert meets("allow", expected("allow"))
    assert meets("deny:no_grant", expected("deny"))
    assert meets("deny:no_grant", expected("deny:no_grant"))
    assert not meets("deny:no_grant", expected("deny:grant_ended"))
    assert not meets("allow", expected("deny"))
    for text in ("", "no", "deny:", "allow:x"):
        with pytest.raises(StudyError, match="--expect"):
            expected(text)
