"""Breaking the glass with the stock client, from asking to review: a real OPA, a real grants door, a real webhook."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import PolicyUnavailable
from gateway.policy.opa import Opa as Client
from gateway.sections import SecretRef
from tests.authn.serving import Served, serving
from tests.e2e.world import Terminal, in_seconds
from tests.ssh.obliging import codes, ssh
from tests.ssh.test_conditions import Receiver, hooks, started
from tests.ssh.test_desk import at_terminal
from tests.ssh.world import ALICE, BOB, Site, running, target
from tests.stack import IN_THE_CLEAR
from tests.stack.opa import Opa
from tests.stack.process import write_secret
from tests.waiting import until

LONG = 60.0
TOKEN = "of ticketing"
HERE = f"{ALICE}+plain+break-glass"
THERE = f"{ALICE}+other+break-glass"
GIVEN = ["-o", 'SetEnv=LC_DOORWARD_REASON="INC-7 orders are stuck"']


def glass(**changes: Any) -> dict[str, Any]:
    """A target that Alice, who is on call, may break into.  Erin reviews."""
    break_glass = {
        "groups": ["oncall"], "max_seconds": 1800, "notify": [{"hook": "security"}],
        "reviewers": {"groups": ["leads"]}, **changes,
    }  # fmt: skip
    return target(break_glass=break_glass)


class Emergency:
    """A gateway at which Alice has no grant, and what is around it."""

    def __init__(self, site: Site, opa: Opa, receiver: Receiver, served: Served, door: httpx.AsyncClient) -> None:
        self.site = site
        self.opa = opa
        self.receiver = receiver
        self.served = served
        self.door = door

    async def ssh(self, *words: str, login: str = HERE, options: list[str] = GIVEN) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of the stock client."""
        done = await ssh(self.site, *words, options=["-l", login, *options])
        return done.returncode, done.stdout, " ".join(done.stderr.split())

    async def put(self, path: str, value: Any) -> httpx.Response:
        return await self.door.put(f"/v1/data/{path}", json=value)

    async def end(self, id: str = "break-glass-1") -> None:
        patch = [{"op": "add", "path": "/ended_at", "value": "now"}]
        answer = await self.door.patch(f"/v1/data/grants/{ALICE}/{id}", json=patch)
        assert answer.status_code == 204, answer.text

    def grants(self) -> dict[str, Any]:
        """All that OPA holds of Alice's."""
        with self.opa.client() as client:
            found: dict[str, Any] = client.get(f"/v1/data/grants/{ALICE}").json().get("result", {})
            return found


@pytest.fixture
async def emergency(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> AsyncIterator[Emergency]:
    async with in_emergency(opa_server, tmp_path, {"plain": glass(), "other": glass()}) as found:
        yield found


@asynccontextmanager
async def in_emergency(
    opa: Opa, directory: Path, targets: dict[str, Any], more: dict[str, Any] | None = None, **hook: Any
) -> AsyncIterator[Emergency]:
    receiver = Receiver()
    door = {
        "listen": "127.0.0.1:0",
        "clients": {"ticketing": {"token": SecretRef(file=write_secret(directory / "door.token", TOKEN))}},
    }
    opa.put("reviews", {})
    opa.put("people/erin", {"keys": [], "groups": ["leads"]})
    try:
        async with serving(receiver.answer) as served:
            settings = {"door": door, **(more or {}), **hooks(served, directory, **hook)}
            async with running(opa, directory, targets=targets, grant=False, **settings) as site:
                assert site.gateway.door is not None
                host, port = site.gateway.door
                headers = {"authorization": f"Bearer {TOKEN}"}
                url = f"http://{host}:{port}"
                async with httpx.AsyncClient(base_url=url, headers=headers, timeout=LONG, verify=IN_THE_CLEAR) as http:
                    yield Emergency(site, opa, receiver, served, http)
                await site.nothing_left(LONG)
    finally:
        opa.put("reviews", {})
        opa.put("grants", {})
        opa.delete("people/erin")


# -- from asking to review --------------------------------------------------------------------------------------------


async def test_who_breaks_the_glass_says_why_is_told_what_follows_and_others_hear_before_anything_begins(
    emergency: Emergency,
) -> None:
    def play(terminal: Terminal) -> int:
        terminal.wait_for("doorward: Why do you break the glass?", LONG)
        terminal.type("oops\r")
        terminal.wait_for("it needs at least 10 characters", LONG)
        assert emergency.grants() == {}, "nothing is broken yet"
        terminal.type("orders are stuck\r")
        terminal.wait_for("doorward: YOU BROKE THE GLASS at plain, until", LONG)
        terminal.wait_for("until somebody else has reviewed break-glass-1", LONG)
        terminal.wait_for("BROKEN GLASS", LONG)
        terminal.wait_for("not recorded, though policy wishes it of: commands, files, forwards, terminal", LONG)
        terminal.type("exit 3\r")
        return terminal.wait_end(LONG)

    assert await at_terminal(emergency.site, HERE, play) == 3

    [grant] = emergency.grants().items()
    assert (grant[0], grant[1]["reason"], grant[1]["kind"], grant[1]["target"]) == (
        "break-glass-1", "orders are stuck", "break_glass", "plain",
    )  # fmt: skip
    [alert] = emergency.receiver.bodies()
    assert (alert["event"], alert["person"], alert["target"], alert["grant"]) == (
        "break_glass", ALICE, "plain", "break-glass-1",
    )  # fmt: skip
    assert alert["facts"]["request"]["reason"] == "orders are stuck"
    [record] = emergency.site.audit("breakglass")
    assert (record["outcome"], record["person"], record["path"], record["new"]) == (
        "ok", ALICE, f"grants/{ALICE}/break-glass-1", grant[1],
    )  # fmt: skip
    order = [record["event"] for record in emergency.site.audit()]
    assert order.index("reason") < order.index("breakglass") < order.index("notify") < order.index("workspace")
    assert {record["grant"] for record in emergency.site.audit("workspace")} == {"break-glass-1"}


async def test_next_time_is_refused_until_somebody_else_has_reviewed(emergency: Emergency) -> None:
    assert (await emergency.ssh("echo in"))[:2] == (0, "in\n")
    review = f"reviews/{ALICE}/break-glass-1"
    early = await emergency.put(review, {"by": "erin"})
    assert (early.status_code, early.json()["errors"][0]["code"]) == (400, "not_over")
    await emergency.end()

    status, out, said = await emergency.ssh("echo in")
    assert (status, out) == (254, "")
    assert "review_owed: Nobody else has reviewed yet what you did behind broken glass: break-glass-1." in said
    assert f"by anyone of leads: doorward grants review {ALICE} break-glass-1 --by NAME" in said
    assert "review_owed" in (await emergency.ssh("echo in", login=THERE))[2], "nor elsewhere"
    for by, code in ((ALICE, "self_reviewed"), (BOB, "reviewer_not_listed"), ("zoe", "unknown_person")):
        refused = await emergency.put(review, {"by": by})
        assert (refused.status_code, code in {error["code"] for error in refused.json()["errors"]}) == (400, True)
    assert (await emergency.ssh("echo in"))[0] == 254
    assert "break-glass-1, by anyone of leads" in (await emergency.ssh("access", login=ALICE))[1]

    assert (await emergency.put(review, {"by": "erin", "note": "fine"})).status_code == 204
    assert (await emergency.ssh("echo in", login=THERE))[:2] == (0, "in\n")
    assert {id: grant["target"] for id, grant in emergency.grants().items()} == {
        "break-glass-1": "plain", "break-glass-2": "other",
    }  # fmt: skip


async def test_what_stays_broken_is_used_again_with_an_alert_each_time_and_by_its_name_alone(
    emergency: Emergency,
) -> None:
    assert (await emergency.ssh("true"))[0] == 0
    status, _, said = await emergency.ssh("true", options=[])
    assert (status, "YOU BROKE" in said) == (0, False), "the reason is in the grant"
    status, _, said = await emergency.ssh("true", login=f"{ALICE}+plain")
    assert (status, "no_grant" in said, "+break-glass@door" in said) == (254, True, True)

    assert list(emergency.grants()) == ["break-glass-1"]
    assert [alert["event"] for alert in emergency.receiver.bodies()] == ["break_glass", "break_glass"]
    assert len(emergency.site.audit("breakglass")) == 1


@pytest.mark.parametrize("how", ["ended", "deleted from OPA"])
async def test_taking_it_away_ends_the_session(emergency: Emergency, how: str) -> None:
    async with emergency.site.connect(username=HERE) as connection:
        process = await connection.create_process("echo in; cat", env={"LC_DOORWARD_REASON": "orders are stuck"})
        assert await asyncio.wait_for(process.stdout.readline(), LONG) == "in\n"
        if how == "ended":
            refused = await emergency.door.delete(f"/v1/data/grants/{ALICE}/break-glass-1")
            assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "review_owed")
            await emergency.end()
        else:
            emergency.opa.delete(f"grants/{ALICE}/break-glass-1")
        done = await asyncio.wait_for(process.wait(), LONG)
        assert done.exit_status == 254
        assert ("grant_ended_early" if how == "ended" else "grant_deleted") in str(done.stderr)


async def test_a_limit_that_is_written_at_the_door_holds_for_the_next_session(emergency: Emergency) -> None:
    assert (await emergency.ssh("true"))[0] == 0
    grant = f"/v1/data/grants/{ALICE}/break-glass-1"
    refused = await emergency.door.patch(grant, json=[{"op": "add", "path": "/max_sessions", "value": 0}])
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "not_a_limit")
    written = await emergency.door.patch(grant, json=[{"op": "add", "path": "/max_sessions", "value": 1}])
    assert written.status_code == 204

    async with emergency.site.connect(username=HERE) as connection:
        process = await connection.create_process("echo in; cat")
        assert await asyncio.wait_for(process.stdout.readline(), LONG) == "in\n"
        status, _, said = await emergency.ssh("true")
        assert (status, "too_many_sessions: Your grant break-glass-1 is for 1 session" in said) == (254, True)


async def test_a_debt_is_what_the_data_say_whichever_gateway_wrote_it(emergency: Emergency) -> None:
    over = {"starts_at": in_seconds(-7200), "ends_at": in_seconds(-3600), "target": "plain", "reason": "x" * 10}
    emergency.opa.put(f"grants/{ALICE}/break-glass-7", {**over, "kind": "break_glass"})

    assert "review_owed" in (await emergency.ssh("true"))[2]
    assert (await emergency.put(f"reviews/{ALICE}/break-glass-7", {"by": "erin"})).status_code == 204
    assert (await emergency.ssh("true"))[0] == 0
    assert set(emergency.grants()) == {"break-glass-7", "break-glass-8"}


# -- refused ----------------------------------------------------------------------------------------------------------


async def test_without_a_reason_nothing_is_broken(emergency: Emergency) -> None:
    status, _, said = await emergency.ssh("true", options=[])

    assert (status, "reason_missing" in said) == (254, True)
    assert (emergency.grants(), emergency.receiver.received, started(emergency.site)) == ({}, [], [])


@pytest.mark.parametrize("login", [f"{ALICE}+beside+break-glass", f"{ALICE}+nowhere+break-glass"])
async def test_where_one_may_not_nothing_is_broken_whether_or_not_there_is_such_a_target(
    emergency: Emergency, login: str
) -> None:
    status, _, said = await emergency.ssh("true", login=login)

    assert (status, "break_glass_refused: You may not break the glass" in said) == (254, True)
    assert (emergency.grants(), started(emergency.site)) == ({}, [])


async def test_an_alert_that_cannot_be_given_refuses_and_later_the_same_grant_holds(emergency: Emergency) -> None:
    emergency.receiver.statuses = [403]
    status, _, said = await emergency.ssh("true")
    assert (status, "hook_unavailable: the webhook security could not be told" in said) == (254, True)
    assert (codes(emergency.site, "notify"), started(emergency.site)) == (["hook_unavailable"], [])

    assert (await emergency.ssh("true", options=[]))[0] == 0, "the webhook answers again"
    assert list(emergency.grants()) == ["break-glass-1"], "one glass, one debt"


async def test_a_target_can_say_that_its_alert_need_not_arrive(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    plain = glass(notify=[{"hook": "security", "required": False}])
    async with in_emergency(opa_server, tmp_path, {"plain": plain}, attempts=1) as emergency:
        await emergency.served.stop()
        assert (await emergency.ssh("true"))[0] == 0
        await until(lambda: emergency.site.audit("notify"), LONG)
        assert [record["outcome"] for record in emergency.site.audit("notify")] == ["failed"]


async def test_a_required_recording_refuses_as_long_as_there_is_no_recorder(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    plain = glass(record={"what": ["terminal"], "required": True})
    async with in_emergency(opa_server, tmp_path, {"plain": plain}) as emergency:
        status, _, said = await emergency.ssh("true")
        assert (status, "recording_unavailable" in said) == (254, True)
        assert (emergency.grants(), emergency.receiver.received) == ({}, [])


@pytest.mark.parametrize("code", ["policy_unreachable", "policy_token_refused"])
async def test_a_grant_that_cannot_be_written_lets_nobody_in(
    emergency: Emergency, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    async def create(*_: Any, **__: Any) -> bool:
        raise PolicyUnavailable("the policy engine cannot be written to", code=code)

    monkeypatch.setattr(Client, "create", create)
    status, _, said = await emergency.ssh("true")

    assert (status, code in said) == (254, True)
    assert codes(emergency.site, "breakglass") == [code]
    assert (emergency.grants(), emergency.receiver.received, started(emergency.site)) == ({}, [], [])


async def test_who_is_never_the_one_who_writes_it_gives_up(
    emergency: Emergency, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def create(*_: Any, **__: Any) -> bool:
        return False

    monkeypatch.setattr(Client, "create", create)
    status, _, said = await emergency.ssh("true")

    assert (status, "break_glass_conflict" in said) == (254, True)
    assert [record["outcome"] for record in emergency.site.audit("breakglass")] == ["conflict"] * 3
    assert not started(emergency.site)


# -- two at once ------------------------------------------------------------------------------------------------------


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes before two are about to."""
    arrived = 0
    here = asyncio.Event()
    create = Client.create

    async def gated(self: Client, *path: str, value: Any) -> bool:
        nonlocal arrived
        arrived += 1
        if arrived == 2:
            here.set()
        await asyncio.wait_for(here.wait(), LONG)
        return await create(self, *path, value=value)

    monkeypatch.setattr(Client, "create", gated)


async def test_of_two_at_once_at_one_target_one_breaks_it_and_both_are_behind_it(
    emergency: Emergency, both: None
) -> None:
    done = await asyncio.gather(emergency.ssh("echo in"), emergency.ssh("echo in"))

    assert [(status, out) for status, out, _ in done] == [(0, "in\n"), (0, "in\n")]
    assert sorted(record["outcome"] for record in emergency.site.audit("breakglass")) == ["conflict", "ok"]
    assert list(emergency.grants()) == ["break-glass-1"]
    assert len(emergency.receiver.bodies()) == 2


async def test_of_two_at_once_at_two_targets_one_is_refused(emergency: Emergency, both: None) -> None:
    done = await asyncio.gather(emergency.ssh("echo in"), emergency.ssh("echo in", login=THERE))

    [refusal] = [said for status, _, said in done if status != 0]
    assert "review_owed" in refusal
    assert "It is not over: wait for its end" in refusal
    assert list(emergency.grants()) == ["break-glass-1"]
    assert len(emergency.receiver.bodies()) == len(emergency.site.audit("workspace")) == 1


async def test_a_break_is_a_step_of_the_trace(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    traced = {"telemetry": {"exporter": "file"}}
    async with in_emergency(opa_server, tmp_path, {"plain": glass()}, traced) as emergency:
        assert (await emergency.ssh("true"))[0] == 0
    spans = [json.loads(line) for line in (tmp_path / "state" / "traces.jsonl").read_text().splitlines()]

    [span] = [span for span in spans if span["name"] == "breakglass"]
    assert span["attributes"]["doorward.path"] == f"grants/{ALICE}/break-glass-1"
