"""Who reaches what: from policy's own answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gateway.studies.access import Access, Survey
from gateway.studies.errors import StudyError
from gateway.studies.moments import moment
from gateway.studies.questions import Circumstances
from gateway.studies.requests import named
from tests.policy.world import data
from tests.studies.world import NOON, study

ORDERS = {"target": "orders-db", "starts_at": "2030-01-31T10:00:00Z", "ends_at": "2030-01-31T14:00:00Z",
          "reason": "stuck orders", "approved_by": "erin"}  # fmt: skip


async def surveyed(changes: Mapping[str, Any], at: str = NOON, person: str = "", target: str = "") -> list[Access]:
    async with study(changes) as opa:
        survey = await Survey.of(opa, Circumstances(moment(at)))
        return await survey.look(survey.pairs(person, target))


async def test_everybody_with_a_grant_that_holds_may_enter_and_the_others_are_told_why_not() -> None:
    grants = {
        "alice": {"INC-1": ORDERS},
        "bob": {"INC-2": {**ORDERS, "ends_at": "2030-01-31T11:00:00Z"}},
        "carol": {"INC-3": ORDERS},
        "dora": {"INC-4": {**ORDERS, "starts_at": "2030-01-31T13:00:00Z"}},
        "stranger": {"INC-5": ORDERS},
    }
    found = {one.person: one for one in await surveyed({"grants": grants}, target="orders-db")}
    assert {person: one.state for person, one in found.items()} == {
        "alice": "allowed", "bob": "grant_ended", "carol": "person_disabled", "dora": "grant_not_started",
        "bait": "no_grant",
    }  # fmt: skip
    alice = found["alice"]
    assert (alice.grant, alice.until) == ("INC-1", "2030-01-31T14:00:00Z")
    assert "forward orders-db:5432" in alice.requests
    assert alice.refused == {"agent": "agent_refused", "x11": "x11_refused"}


async def test_the_proof_that_is_needed_is_the_chain_that_policy_takes() -> None:
    grants = {person: {"INC-1": ORDERS} for person in ("alice", "dora")}
    found = {one.person: one.proofs for one in await surveyed({"grants": grants}, target="orders-db")}
    assert found["alice"] == ("publickey", "certificate", "password then totp")
    assert found["dora"] == ("certificate", "publickey then totp")
    targets = data()["targets"]
    targets["orders-db"]["require"] = [["oidc"]]
    found = {one.person: one.proofs
             for one in await surveyed({"grants": grants, "targets": targets}, target="orders-db")}  # fmt: skip
    assert all("oidc" in chain for chain in found["alice"])


async def test_who_can_prove_nothing_does_not_enter() -> None:
    door = {**data()["door"], "chain": [["publickey"]], "verify": {}}
    people = {**data()["people"], "bob": {"keys": ["ssh-dss AAAAB3NzaC1kc3MAAAA="], "groups": []}}
    grants = {"bob": {"INC-1": ORDERS}}
    [bob] = await surveyed({"door": door, "people": people, "grants": grants}, person="bob", target="orders-db")
    assert bob.state == "not_recognised"


async def test_rules_for_files_are_asked_about_place_by_place() -> None:
    grants = {"alice": {"INC-1": {**ORDERS, "target": "reports"}}}
    [alice] = await surveyed({"grants": grants}, person="alice", target="reports")
    assert set(alice.requests) == {"sftp", "sftp read /srv/reports/**", "sftp write /srv/reports/inbox/**"}
    async with study({"grants": grants}) as opa:
        survey = await Survey.of(opa, Circumstances(moment(NOON)))
        wanted = dict(map(named, ["sftp write /srv/reports/a", "sftp read /srv/reports/a", "exec psql"]))
        [alice] = await survey.look([("alice", "reports")], wanted)
    assert alice.requests == ("sftp read /srv/reports/a",)
    assert alice.refused == {"sftp write /srv/reports/a": "sftp_write_refused", "exec psql": "exec_refused"}


async def test_only_those_that_some_grant_is_about_are_near() -> None:
    grants = {"alice": {"INC-1": ORDERS}, "bob": {"INC-2": {"target": "orders-db"}, "INC-3": {"target": 7}}, "odd": 3}
    async with study({"grants": grants}) as opa:
        survey = await Survey.of(opa, Circumstances(moment("2031-01-01T00:00:00Z")))
        assert survey.granted_pairs() == [("alice", "orders-db"), ("bob", "orders-db"), ("bob", "reports")]
        assert survey.granted_pairs(target="reports") == [("bob", "reports")]
        found = await survey.look(survey.pairs(target="orders-db"))
        assert [one.person for one in found if survey.is_near(one)] == ["alice", "bob"]
        with pytest.raises(StudyError, match="no target 'orders'") as told:
            survey.know(target="orders")
        assert "orders-db" in told.value.reasons[0].remedy


async def test_data_of_wrong_types_says_nothing_and_breaks_nothing() -> None:
    changes = {"people": {"alice": {"keys": "none", "authn": []}, "bob": 7}, "authorities": {"x": 1}, "door": {}}
    found = await surveyed({**changes, "grants": {"alice": {"INC-1": ORDERS}}}, target="orders-db")
    assert {one.person: one.state for one in found} == {"alice": "not_recognised", "bob": "person_disabled"}
