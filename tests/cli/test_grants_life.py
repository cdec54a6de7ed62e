"""The life of a grant from the command line: each step at a real door, each refusal with its field and its remedy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from tests.cli.commands import Ran, doorward
from tests.door.running import Running, running
from tests.door.test_grants import stored
from tests.policy.servers import serving
from tests.policy.world import ALICE, ORDERS, grant, in_minutes, inhabited
from tests.stack.opa import Opa
from tests.stack.process import write_secret

ASKED = "asked"
TARGET = {"max_grant_seconds": 8 * 3600, "ask": "#asked", "approvers": "the leads", "approval": {
    "needed": 2, "by": {"people": ["erin", "frank"]},
}}  # fmt: skip
VERBS = ["GET", "PUT", "DELETE"]
PATH = f"{ALICE}/INC-9"


@dataclass(frozen=True)
class Desk:
    """A door, and commands that come to it with a token."""

    door: Running
    directory: Path

    async def __call__(self, *words: str | Path, by: str = "ticketing") -> Ran:
        file = self.directory / f"{by}.token"
        return await doorward("grants", *words, "--config", self.door.file, env={"DOORWARD_TOKEN_FILE": str(file)})

    async def state(self, name: str = "INC-9") -> str:
        [row] = (await self("show", ALICE, name, "--json")).json["rows"]
        return str(row["state"])


@pytest.fixture
async def desk(opa_server: Opa, tmp_path: Path) -> AsyncIterator[Desk]:
    """Erin and Frank approve, each with a token that speaks for nobody else."""
    own = {f"targets/{ASKED}": TARGET, "approvals": {}, "reviews": {}}
    for person in ("erin", "frank"):
        own[f"people/{person}"] = {"keys": [], "groups": []}
        own[f"automations/{person}"] = {"roots": ["approvals", "reviews"], "verbs": VERBS, "person": person}
    clients = {
        name: {"token": {"file": str(write_secret(tmp_path / f"{name}.token", f"token of {name}"))}}
        for name in ("erin", "frank")
    }
    write_secret(tmp_path / "ticketing.token", "ticketing-token")
    with inhabited(opa_server, break_glass={"people": [ALICE], "max_seconds": 3600}):
        for path, value in own.items():
            opa_server.put(path, value)
        try:
            async with running(tmp_path, opa_server, door={"clients": clients}) as door:
                yield Desk(door, tmp_path)
        finally:
            for path in own:
                if "/" in path:
                    opa_server.delete(path)
                else:
                    opa_server.put(path, {})


async def requested(desk: Desk, *words: str) -> Ran:
    return await desk("request", ALICE, ASKED, "--reason", "stuck orders", "--ticket", "INC-9", *words)


# -- requesting ------------------------------------------------------------------------------------------------------


async def test_from_a_request_to_its_end(desk: Desk, opa_server: Opa) -> None:
    asked = await requested(desk, "--minutes", "30")
    assert (asked.status, asked.err) == (0, "")
    assert "doorward grants approve alice INC-9 --by NAME" in asked.out
    assert stored(opa_server, PATH)["ticket"] == "INC-9"
    assert await desk.state() == "requested"

    first = await desk("approve", ALICE, "INC-9", "--by", "erin", "--note", "go", by="erin")
    assert (first.status, first.err) == (0, "")
    assert "approved: INC-9, alice at asked, until " in first.out
    assert await desk.state() == "requested", "one of two"
    second = await desk("approve", ALICE, "INC-9", "--by", "frank", "--json", by="frank")
    assert second.json["for"]["reason"] == "stuck orders"
    assert await desk.state() == "active"

    before = stored(opa_server, PATH)["ends_at"]
    extended = await desk("extend", ALICE, "INC-9", "--minutes", "30", "--json")
    assert extended.json["ends_at"] == stored(opa_server, PATH)["ends_at"] > before
    assert [entry["from"] for entry in stored(opa_server, PATH)["extended"]] == [before]

    ended = await desk("end", ALICE, "INC-9", "--reason", "orders flow again")
    assert (ended.status, ended.err) == (0, "")
    held = stored(opa_server, PATH)
    assert (held["ended_by"], held["ended_reason"]) == ("ticketing", "orders flow again")
    assert await desk.state() == "ended"
    again, late = await asyncio.gather(
        desk("end", ALICE, "INC-9", "--reason", "x"), desk("extend", ALICE, "INC-9", "--minutes", "9")
    )
    assert (again.status, "grant_over: INC-9 was ended early already" in again.err) == (1, True)
    assert (late.status, "grant_over" in late.err) == (1, True)


async def test_an_id_that_is_taken_keeps_its_grant(desk: Desk, opa_server: Opa) -> None:
    await requested(desk)
    before = stored(opa_server, PATH)
    ran = await requested(desk, "--minutes", "5")

    assert (ran.status, ran.out) == (1, "")
    assert "exists: --id: alice has a grant INC-9 already" in ran.err
    assert "Choose another --id" in ran.err
    assert stored(opa_server, PATH) == before


async def test_hours_of_the_week_are_typed_as_people_say_them(desk: Desk, opa_server: Opa) -> None:
    ran = await requested(
        desk, "--window", "fri-mon,wed 22:00-06:00 Europe/Berlin", "--window", "tue 00:00-24:00 UTC", "--until", "+2h"
    )

    assert ran.status == 0, ran.err
    assert stored(opa_server, PATH)["windows"] == [
        {"days": ["fri", "sat", "sun", "mon", "wed"], "from": "22:00", "to": "06:00", "zone": "Europe/Berlin"},
        {"days": ["tue"], "from": "00:00", "to": "24:00", "zone": "UTC"},
    ]


@pytest.mark.parametrize(
    ("words", "says", "remedy"),
    [
        (["--window", "mon 9-17"], "--window: 'mon 9-17' is not days, hours and a zone", "mon-fri 09:00-17:00"),
        (
            ["--window", "mon-fry 09:00-17:00 UTC"],
            "windows[0].days: windows[0].days must be of mon",
            "data.grants.json",
        ),
        (["--window", "mon 09:00-17:00 Berlin"], "windows[0].zone is no zone", "data.grants.json"),
        (["--until", "tomorrow"], "--until: the time 'tomorrow' is none", "RFC 3339"),
        (["--from", "2026-11-25T03:00"], "--from: the time", "with a zone"),
        (["--until=-1h"], "ends_at: ends_at is in the past", "Choose a later end"),
        (["--minutes", "0"], "--minutes: a number of minutes", "For example 60"),
        (["--until", "+9h"], "ends_at: A grant for asked may last 28800 seconds", "Choose an earlier end"),
    ],
)
async def test_a_request_that_cannot_be_is_told_by_field_and_remedy(
    desk: Desk, opa_server: Opa, words: list[str], says: str, remedy: str
) -> None:
    ran = await requested(desk, *words)

    assert (ran.status, ran.out) == (1, "")
    assert says in ran.err
    assert remedy in ran.err
    assert stored(opa_server, PATH) is None


async def test_a_target_that_names_nobody_who_approves_says_what_to_run(desk: Desk) -> None:
    ran = await desk("request", ALICE, ORDERS, "--reason", "x")

    assert ran.status == 1
    assert "missing: approved_by: approved_by is missing." in ran.err
    assert "doorward grants add --approved-by NAME" in ran.err


# -- approving -------------------------------------------------------------------------------------------------------


async def test_who_may_not_approve_is_told_why(desk: Desk) -> None:
    await requested(desk)
    oneself, other, unlisted, unknown = await asyncio.gather(
        desk("approve", ALICE, "INC-9", "--by", ALICE),
        desk("approve", ALICE, "INC-9", "--by", "frank", by="erin"),
        desk("approve", ALICE, "INC-9", "--by", "bob"),
        desk("approve", ALICE, "none", "--by", "erin", by="erin"),
    )

    assert [ran.status for ran in (oneself, other, unlisted, unknown)] == [1, 1, 1, 1]
    assert "self_approved: approver: Nobody approves a grant of their own." in oneself.err
    assert "person_not_yours: erin may not speak for frank." in other.err
    assert "Give your own name (--by)" in other.err
    assert "approver_not_listed: approver: bob is none of those who may approve this grant." in unlisted.err
    assert "Ask at #asked; who approves: the leads." in unlisted.err
    assert "unknown_grant: path: alice has no grant none that can be read." in unknown.err
    assert await desk.state() == "requested"


async def test_an_approval_is_given_once_and_anew_when_the_grant_is_another(desk: Desk) -> None:
    await requested(desk, "--minutes", "30")
    words = ["approve", ALICE, "INC-9", "--by", "erin"]
    first = await desk(*words, by="erin")
    again = await desk(*words, by="erin")
    await desk("extend", ALICE, "INC-9", "--minutes", "30")
    anew = await desk(*words, by="erin")

    assert [ran.status for ran in (first, again, anew)] == [0, 1, 0]
    assert "already_approved: erin has approved INC-9 already, at " in again.err


async def test_what_is_over_is_approved_no_more_and_an_approval_can_end_before(desk: Desk, opa_server: Opa) -> None:
    await requested(desk, "--minutes", "60")
    short = await desk("approve", ALICE, "INC-9", "--by", "erin", "--until", "+5m", "--json", by="erin")
    past = await desk("approve", ALICE, "INC-9", "--by", "frank", "--until=-5m", by="frank")
    opa_server.put(f"grants/{ALICE}/OLD", grant(target=ASKED, approved_by=None, ends_at=in_minutes(-0.5)))
    over = await desk("approve", ALICE, "OLD", "--by", "erin", by="erin")

    assert short.json["expires_at"] < short.json["for"]["ends_at"]
    assert (past.status, "already_ended: expires_at: " in past.err) == (1, True)
    assert (over.status, "grant_over: path: The grant OLD is over." in over.err) == (1, True)


async def test_an_approval_of_what_was_shown_is_not_one_of_what_became_of_it(desk: Desk, opa_server: Opa) -> None:
    await requested(desk, "--window", "mon-sun 00:00-24:00 UTC")
    tag = (await desk("show", ALICE, "INC-9", "--json")).json["etag"]
    words = ["approve", ALICE, "INC-9", "--by", "erin"]
    shown = await desk(*words, "--if-match", tag.strip('"'))
    await desk("extend", ALICE, "INC-9", "--minutes", "1")
    meanwhile = await desk(*words, "--if-match", tag)

    assert shown.status == 0, shown.err
    assert (meanwhile.status, "conflict: --if-match: INC-9 is no longer what was shown" in meanwhile.err) == (1, True)


# -- writing while others do -----------------------------------------------------------------------------------------

Meanwhile = Callable[[int], Awaitable[None]]


async def through(desk: Desk, meanwhile: Meanwhile, *words: str) -> Ran:
    """A command whose every reading is followed by what somebody else does before it can write."""
    readings = 0

    async def relayed(request: web.Request) -> web.StreamResponse:
        nonlocal readings
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        answer = await desk.door.http.request(
            request.method, request.path_qs, headers=headers, content=await request.read()
        )
        if request.method == "GET":
            readings += 1
            await meanwhile(readings)
        kept = {name: answer.headers[name] for name in ("etag", "content-type") if name in answer.headers}
        return web.Response(status=answer.status_code, body=answer.content, headers=kept)

    async with serving(relayed) as url:
        return await desk(*words, "--door", url)


async def test_an_extension_loses_nothing_of_what_another_wrote_meanwhile(desk: Desk, opa_server: Opa) -> None:
    value = grant()
    await desk.door.put(PATH, value)

    async def reworded(reading: int) -> None:
        if reading < 3:
            await desk.door.put(PATH, {**value, "reason": f"reworded {reading}"})

    ran = await through(desk, reworded, "extend", ALICE, "INC-9", "--minutes", "10", "--json")

    held = stored(opa_server, PATH)
    assert ran.status == 0, ran.err
    assert held["reason"] == "reworded 2"
    assert held["ends_at"] == ran.json["ends_at"] > value["ends_at"]
    conflicts = [record for record in desk.door.records("grant") if record["outcome"] == "conflict"]
    assert len(conflicts) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--minutes", "10"], "conflict: the end of INC-9 was moved meanwhile"),
        (["--until", in_minutes(70)], "not_later: --until: INC-9 lasts until"),
        (["--minutes", "10", "--if-match", "stale"], "conflict: --if-match: INC-9 is no longer what was shown"),
    ],
)
async def test_an_end_that_another_moved_meanwhile_stays(
    desk: Desk, opa_server: Opa, words: list[str], says: str
) -> None:
    value = grant()
    await desk.door.put(PATH, value)
    moved = in_minutes(90)

    async def extended(_reading: int) -> None:
        await desk.door.put(PATH, {**value, "ends_at": moved})

    ran = await through(desk, extended, "extend", ALICE, "INC-9", *words)

    assert (ran.status, ran.out) == (1, "")
    assert says in ran.err
    assert stored(opa_server, PATH)["ends_at"] == moved


async def test_who_never_gets_a_turn_is_told(desk: Desk, opa_server: Opa) -> None:
    value = grant()
    await desk.door.put(PATH, value)

    async def reworded(reading: int) -> None:
        await desk.door.put(PATH, {**value, "reason": f"reworded {reading}"})

    ran = await through(desk, reworded, "end", ALICE, "INC-9", "--reason", "x")

    assert (ran.status, "attempts were in vain" in ran.err) == (1, True)
    assert "ended_at" not in stored(opa_server, PATH)


async def test_what_is_not_there_is_neither_extended_nor_ended(desk: Desk) -> None:
    extended, ended = await asyncio.gather(
        desk("extend", ALICE, "none", "--minutes", "1"), desk("end", ALICE, "none", "--reason", "x")
    )

    for ran in (extended, ended):
        assert (ran.status, "unknown_grant: alice has no grant none" in ran.err) == (1, True)
        assert "doorward grants list alice" in ran.err


# -- reviewing -------------------------------------------------------------------------------------------------------


async def test_a_debt_is_listed_until_somebody_else_has_reviewed_it(desk: Desk, opa_server: Opa) -> None:
    opa_server.put(
        f"grants/{ALICE}/glass",
        grant(approved_by=None, kind="break_glass", starts_at=in_minutes(-9), ends_at=in_minutes(-1)),
    )
    owed = await desk("list", ALICE, "--state", "owed")
    oneself = await desk("review", ALICE, "glass", "--by", ALICE)
    other = await desk("review", ALICE, "glass", "--by", "frank", by="erin")
    plain = await desk("review", ALICE, "none", "--by", "erin", by="erin")
    done = await desk("review", ALICE, "glass", "--by", "erin", "--note", "as it should be", by="erin")
    left = await desk("list", ALICE, "--state", "owed")

    assert "A review is owed." in owed.out
    assert (oneself.status, "self_reviewed: by: Nobody reviews" in oneself.err) == (1, True)
    assert (other.status, "person_not_yours" in other.err) == (1, True)
    assert (plain.status, "unknown_grant" in plain.err) == (1, True)
    assert (done.status, done.out) == (0, "reviewed: glass of alice, by erin\n")
    with opa_server.client() as client:
        assert client.get(f"/v1/data/reviews/{ALICE}/glass").json()["result"]["note"] == "as it should be"
    assert left.out == "no grants\n"
