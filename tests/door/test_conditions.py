"""Conditional requests at the grants door: two automations do not overwrite each other, and a retry does no harm."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.door.running import Running, running
from tests.door.test_grants import INC, stored
from tests.policy.world import grant
from tests.stack.opa import Opa

URL = f"/v1/data/grants/{INC}"


async def put(door: Running, **condition: str) -> httpx.Response:
    headers = {name.replace("_", "-"): value for name, value in condition.items()}
    return await door.http.put(URL, json=grant(), headers=headers)


async def test_the_tag_of_a_write_is_the_tag_of_a_read(door: Running) -> None:
    written = (await door.put(INC, grant())).headers["etag"]
    read = (await door.http.get(URL)).headers["etag"]

    assert written == read
    assert read.startswith('"'), "a strong one"
    again = await door.http.get(URL, headers={"if-none-match": read})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", read)


async def test_what_changed_meanwhile_is_not_overwritten(door: Running, world: Opa) -> None:
    tag = (await door.put(INC, grant())).headers["etag"]
    await door.put(INC, grant(reason="meanwhile"))
    answers = [
        await put(door, if_match=tag),
        await door.http.patch(URL, json=[{"op": "remove", "path": "/reason"}], headers={"if-match": tag}),
        await door.http.delete(URL, headers={"if-match": tag}),
    ]

    assert [answer.status_code for answer in answers] == [412, 400, 412], "what may not be is told before"
    assert answers[0].json()["code"] == "precondition_failed"
    assert stored(world)["reason"] == "meanwhile"
    assert [record["outcome"] for record in door.records("grant")] == ["ok", "ok", "conflict", "conflict"]


@pytest.mark.parametrize("kind", ["plain", "star", "list"])
async def test_what_is_as_it_was_is_changed(door: Running, kind: str) -> None:
    tag = (await door.put(INC, grant())).headers["etag"]
    answer = await put(door, if_match={"plain": tag, "star": "*", "list": f'"x", {tag}'}[kind])

    assert answer.status_code == 204, answer.text
    assert answer.headers["etag"] != tag


@pytest.mark.parametrize("condition", ['"x"', "*"])
async def test_where_nothing_is_nothing_matches(door: Running, world: Opa, condition: str) -> None:
    assert (await put(door, if_match=condition)).status_code == 412
    assert stored(world) is None


async def test_a_weak_tag_matches_no_write(door: Running) -> None:
    tag = (await door.put(INC, grant())).headers["etag"]

    assert (await put(door, if_match=f"W/{tag}")).status_code == 412


async def test_what_exists_is_not_made_again(door: Running, world: Opa) -> None:
    first, second = await put(door, if_none_match="*"), await put(door, if_none_match="*")

    assert (first.status_code, second.status_code, second.content) == (204, 304, b"")
    assert (await put(door, if_none_match=first.headers["etag"])).status_code == 412
    assert (await put(door, if_none_match='"other"')).status_code == 204


@pytest.mark.parametrize("header", ["nonsense", "", '"unfinished', "W/"])
@pytest.mark.parametrize("name", ["if_match", "if_none_match"])
async def test_a_condition_that_nobody_can_read_is_refused(door: Running, world: Opa, name: str, header: str) -> None:
    await door.put(INC, grant())
    before = stored(world)

    assert (await put(door, **{name: header})).status_code == 400
    assert stored(world) == before


async def test_a_condition_on_many_is_refused(door: Running) -> None:
    operations = [{"op": "add", "path": "/alice/INC-1", "value": grant()}]
    answer = await door.http.patch("/v1/data/grants", json=operations, headers={"if-match": "*"})

    assert answer.status_code == 400
    assert "test" in answer.json()["message"]


async def test_a_write_said_twice_is_stored_once_and_answered_the_same(door: Running, world: Opa) -> None:
    value = grant()
    first = await door.put(INC, value)
    tag = first.headers["etag"]
    changed = {**value, "reason": "changed"}
    answers = [
        await door.put(INC, value),
        await door.http.put(URL, json=changed, headers={"if-match": tag}),
        await door.http.put(URL, json=changed, headers={"if-match": tag}),
    ]

    assert [answer.status_code for answer in answers] == [204, 204, 204]
    assert answers[0].headers["etag"] == tag
    assert answers[1].headers["etag"] == answers[2].headers["etag"] != tag
    assert [record["outcome"] for record in door.records("grant")] == ["ok", "unchanged", "ok", "unchanged"]


async def test_a_removal_said_twice_is_answered_the_same(door: Running) -> None:
    tag = (await door.put(INC, grant())).headers["etag"]
    answers = [await door.http.delete(URL, headers={"if-match": tag}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [204, 204]
    assert [record["outcome"] for record in door.records("grant")] == ["ok", "ok", "unchanged"]


async def test_of_twenty_writers_exactly_one_wins_each_round(door: Running, world: Opa) -> None:
    tag = (await door.put(INC, grant())).headers["etag"]
    for turn in range(5):
        values = [grant(reason=f"round {turn}, writer {writer}") for writer in range(20)]
        answers = await asyncio.gather(*(door.http.put(URL, json=value, headers={"if-match": tag}) for value in values))
        codes = [answer.status_code for answer in answers]

        assert sorted(codes) == [204] + [412] * 19
        winner = codes.index(204)
        assert stored(world)["reason"] == values[winner]["reason"]
        tag = answers[winner].headers["etag"]


async def test_of_many_who_make_the_same_one_does_also_through_two_gateways(
    door: Running, world: Opa, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    async with running(tmp_path / "second", world) as other:
        for turn in range(5):
            path = f"/v1/data/grants/alice/NEW-{turn}"
            answers = await asyncio.gather(
                *(
                    who.http.put(path, json=grant(reason=f"{writer}"), headers={"if-none-match": "*"})
                    for writer, who in enumerate([door, other] * 10)
                )
            )
            assert sorted(answer.status_code for answer in answers) == [204] + [304] * 19


async def test_patches_of_the_same_many_in_another_order_do_not_wait_for_each_other(door: Running) -> None:
    def operations(names: list[str], reason: str) -> list[dict[str, object]]:
        return [{"op": "add", "path": f"/{name}/INC-1", "value": grant(reason=reason)} for name in names]

    names = ["alice", "bob"]
    answers = await asyncio.gather(
        *(
            door.http.patch("/v1/data/grants", json=operations(names[:: (-1) ** turn], f"turn {turn}"))
            for turn in range(12)
        )
    )
    assert {answer.status_code for answer in answers} == {204}
