"""`doorward policy ...` as CI runs it: a process of its own, its exit status and its JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Ran, doorward, written
from tests.policy.world import data, inhabited
from tests.stack.opa import Opa
from tests.studies.world import NOON, POLICIES, data_file


async def policy(*words: str | Path, data: Path) -> Ran:
    return await doorward("policy", *words, "--policies", POLICIES, "--data", data)


async def test_who_can_enter_is_a_table_and_json(tmp_path: Path) -> None:
    file = data_file(tmp_path)
    ran = await policy("who-can", "orders-db", "--at", NOON, data=file)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[1].split()[:5] == ["PERSON", "TARGET", "STATE", "GRANT", "UNTIL"]
    assert ran.out.splitlines()[2].startswith("alice   orders-db  allowed  INC-1  2030-01-31T14:00:00Z  shell, exec")
    assert ran.out.splitlines()[-1] == "not shown: 3 with no_grant, 1 with person_disabled"
    ran = await policy("who-can", "orders-db", "--at", NOON, "--json", data=file)
    [alice] = ran.json["access"]
    assert (alice["person"], alice["state"], alice["proofs"][0]) == ("alice", "allowed", "publickey")


async def test_near_misses_are_shown_when_asked_for(tmp_path: Path) -> None:
    ran = await policy("who-can", "orders-db", "--at", "2030-01-31T09:00:00Z", "--all", data=data_file(tmp_path))
    assert ran.status == 1
    assert "alice   orders-db  grant_not_started" in ran.out
    ran = await policy("what-can", "alice", "--at", "2030-01-31T09:00:00Z", data=data_file(tmp_path))
    assert ran.status == 1
    assert ran.out.splitlines()[1:] == ["nobody", "not shown: 1 with grant_not_started, 1 with no_grant"]


async def test_a_moment_is_asked_about_all_grants(tmp_path: Path) -> None:
    ran = await policy("at", NOON, "--json", data=data_file(tmp_path))
    assert ran.status == 0
    assert ran.json["at"] == "2030-01-31T12:00:00.000000Z"
    assert [(one["person"], one["target"]) for one in ran.json["access"]] == [("alice", "orders-db")]
    assert (await policy("at", "+1h", "--person", "alice", data=data_file(tmp_path))).status == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["who-can", "order-db"], "Did you mean orders-db?"),
        (["what-can", "alicia"], "Did you mean alice?"),
        (["at", "tomorrow"], "Write RFC 3339"),
        (["at", "now", "--person", "nobody"], "no person 'nobody'"),
        (["who-can", "orders-db", "--from", "home"], "--from 'home' is no address"),
        (["simulate", "--person", "alice", "--expect", "maybe"], "--expect 'maybe' is none"),
        (["simulate", "--person", "alice", "--request", "fly"], "--request 'fly' is none"),
        (["simulate", "--person", "alice", "--proof", "magic"], "--proof 'magic' is none"),
    ],
)
async def test_what_cannot_be_asked_is_told_with_status_2(tmp_path: Path, words: list[str], told: str) -> None:
    ran = await policy(*words, data=data_file(tmp_path))
    assert (ran.status, ran.out) == (2, "")
    assert told in ran.err


async def test_a_simulation_can_be_asserted(tmp_path: Path) -> None:
    file = data_file(tmp_path)
    words = ["simulate", "--person", "alice", "--target", "orders-db", "--at"]
    ran = await policy(*words, NOON, data=file)
    assert ran.status == 0
    assert "grant INC-1 for orders-db, until 2030-01-31T14:00:00Z" in ran.out
    assert "assumed: a signature by the key SHA256:dVScNn1V6QDxuVE6LrSlnm1vrIPMQXPN7q6+0To/xo8" in ran.out
    assert (await policy(*words, "2031-01-01T00:00:00Z", data=file)).status == 1
    ended = await policy(*words, "2030-01-31T15:00:00Z", "--expect", "deny:grant_ended", "--json", data=file)
    assert (ended.status, ended.json["outcome"], ended.json["met"]) == (0, "deny:grant_ended", True)
    assert (await policy(*words, NOON, "--expect", "deny", data=file)).status == 1


async def test_the_live_opa_is_asked_for_policies_and_data(tmp_path: Path, opa_server: Opa) -> None:
    settings = {
        "state_dir": str(tmp_path),
        "policy": {"url": opa_server.url, "auditor_token": {"file": str(opa_server.token_files["auditor"])}},
    }
    with inhabited(opa_server):
        opa_server.put("grants/alice", data()["grants"]["alice"])
        ran = await doorward("policy", "at", NOON, "--json", "--config", written(tmp_path, settings))
    assert ran.status == 0, ran.err
    assert ran.json["access"][0]["person"] == "alice"
    nowhere = {**settings, "policy": {"url": "http://127.0.0.1:9"}}
    ran = await doorward("policy", "at", NOON, "--config", written(tmp_path, nowhere))
    assert ran.status == 2
    assert "policy.url" in ran.err
