"""`doorward grants list` and `show`: the state of each grant as policy says it, and what is in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.grants_list import STATES, some_at_a_time
from tests.cli.commands import Ran, doorward, written
from tests.door.running import settings_tree
from tests.policy.world import ALICE, BOB, ORDERS, grant, in_minutes, inhabited
from tests.stack.opa import POLICIES, Opa, opa

ASKED = {"target": "asked", "approved_by": None}
HOURS = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "zone": "UTC"}
GRANTS = {
    "active": grant(),
    "requested": grant(**ASKED),
    "approved": grant(starts_at=in_minutes(30)),
    "ended": grant(ended_at=in_minutes(-1), ended_by="erin"),
    "expired": grant(starts_at=in_minutes(-9), ends_at=in_minutes(-3)),
    "malformed": {"target": 7},
    "glass": {**grant(**ASKED), "target": ORDERS, "kind": "break_glass"},
}


@pytest.fixture
def world(opa_server: Opa) -> Iterator[Opa]:
    glass = {"people": [ALICE], "max_seconds": 8 * 3600}
    with inhabited(opa_server, break_glass=glass):
        ask = {"ask": "#asked", "approvers": "the leads", "approval": {"needed": 2, "by": {"people": ["erin"]}}}
        opa_server.put("targets/asked", ask)
        try:
            for name, value in GRANTS.items():
                opa_server.put(f"grants/{ALICE}/{name}", value)
            opa_server.put(f"grants/{BOB}/other", grant())
            yield opa_server
        finally:
            opa_server.delete("targets/asked")


@pytest.fixture
def config(world: Opa, tmp_path: Path) -> Path:
    return written(tmp_path, settings_tree(tmp_path, world))


async def listed(config: Path, *words: str) -> Ran:
    return await doorward("grants", "list", *words, "--config", config)


async def test_each_grant_is_listed_with_its_state_and_what_is_in_the_way(config: Path) -> None:
    told, shown = await asyncio.gather(listed(config, ALICE), listed(config, ALICE, "--json"))
    states = {row["grant"]: row["state"] for row in shown.json}
    why = {row["grant"]: row["why"] and row["why"]["code"] for row in shown.json}

    assert (told.status, shown.status) == (0, 0)
    assert states == {name: "active" if name == "glass" else name for name in GRANTS}
    assert why == {
        "active": None, "glass": None, "requested": "grant_not_approved", "approved": "grant_not_started",
        "ended": "grant_ended_early", "expired": "grant_ended", "malformed": "grant_malformed",
    }  # fmt: skip
    heads, *lines = told.out.splitlines()
    assert heads.split()[:5] == ["PERSON", "GRANT", "TARGET", "STATE", "UNTIL"]
    [requested] = [line for line in lines if " requested " in line]
    assert "It is requested, and is not approved: 2 more approvals are needed." in requested
    assert "A review is owed." in next(line for line in lines if " glass " in line)


@pytest.mark.parametrize(
    ("states", "names"),
    [
        (["active"], ["active", "glass"]),
        (["waiting"], ["approved", "requested"]),
        (["owed"], ["glass"]),
        (["ended", "expired"], ["ended", "expired"]),
        (["malformed"], ["malformed"]),
    ],
)
async def test_only_those_of_a_state_are_listed(config: Path, states: list[str], names: list[str]) -> None:
    words = [word for state in states for word in ("--state", state)]
    ran = await listed(config, ALICE, "--json", *words)

    assert [row["grant"] for row in ran.json] == names


async def test_everybodys_are_listed_and_a_state_that_is_none_is_wrong_use(config: Path) -> None:
    everybody, nobody, wrong = await asyncio.gather(
        listed(config, "--json"), listed(config, "carol"), listed(config, "--state", "granted")
    )

    assert {row["person"] for row in everybody.json} == {ALICE, BOB}
    assert (nobody.status, nobody.out) == (0, "no grants\n")
    assert wrong.status == 2
    assert all(state in wrong.err for state in STATES)


def test_persons_are_asked_about_some_at_a_time_and_each_once() -> None:
    grants = {"many": {str(number): {} for number in range(5)}, "none": {}, "odd": 7, "two": {"a": {}, "b": {}}}

    assert list(some_at_a_time(grants, 2)) == [["many"], ["none", "odd", "two"]]
    assert list(some_at_a_time({}, 2)) == []


async def test_one_is_shown_with_what_it_lacks_and_what_to_do(config: Path, world: Opa) -> None:
    told, shown, missing = await asyncio.gather(
        doorward("grants", "show", ALICE, "requested", "--config", config),
        doorward("grants", "show", ALICE, "requested", "--json", "--config", config),
        doorward("grants", "show", ALICE, "none", "--config", config),
    )

    assert told.status == shown.status == 0
    assert told.out.splitlines()[0] == f"{ALICE} requested"
    assert "doorward grants approve alice requested --by NAME" in told.out
    assert "none; 2 more needed" in told.out
    assert shown.json["etag"].strip('"') in told.out
    assert shown.json["rows"][0]["value"] == GRANTS["requested"]
    assert missing.status == 1
    assert "unknown_grant: alice has no grant none" in missing.err
    assert "doorward grants list alice" in missing.err


async def test_policies_that_do_not_know_the_list_are_told(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "authz.rego").write_text((POLICIES / "system/authz/authz.rego").read_text())
    (tmp_path / "policies" / "people.rego").write_text((POLICIES / "gateway/people/people.rego").read_text())
    with opa(tmp_path / "opa", policies=tmp_path / "policies") as server:
        ran = await listed(written(tmp_path, settings_tree(tmp_path, server)), ALICE)

    assert ran.status == 1
    assert "policy_undefined" in ran.err
    assert "Update its policies" in ran.err


async def test_what_is_shown_of_one_is_apart_from_its_name(config: Path, world: Opa) -> None:
    world.put(f"grants/{BOB}/other", grant(requested_at="2030-01-31T12:00:00Z", requested_by="ticketing"))
    told = await doorward("grants", "show", BOB, "other", "--config", config)

    assert "  requested_at  2030-01-31T12:00:00Z" in told.out.splitlines()
    assert "  target        orders-db" in told.out.splitlines()
