"""The door speaks as OPA does: the same requests to a real OPA and to the door, and where the two differ on purpose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.embedded.tools import find_or_build
from tests.door.running import Running
from tests.door.test_grants import INC, everything, stored
from tests.policy.world import grant
from tests.stack import IN_THE_CLEAR
from tests.stack.opa import Opa
from tests.stack.process import Processes, free_port, wait_until
from tests.stack.tools import OPA

GRANT = grant(reason="as in OPA")
CHANGE = [{"op": "replace", "path": "/reason", "value": "changed"}]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """OPA as it comes: in memory, with nobody who asks for tokens."""
    processes = Processes(tmp_path_factory.mktemp("plain"))
    address = f"127.0.0.1:{free_port()}"
    try:
        running = processes.start("opa", [find_or_build(OPA), "run", "--server", "--skip-version-check", "-a", address])
        with httpx.Client(base_url=f"http://{address}", timeout=30, verify=IN_THE_CLEAR) as client:
            wait_until(lambda: _is_up(client), running)
            yield client
    finally:
        processes.end()


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


SAME: list[tuple[str, str, Any, dict[str, str]]] = [
    ("GET", f"grants/{INC}", None, {}),
    ("PATCH", f"grants/{INC}", CHANGE, {}),
    ("PUT", f"grants/{INC}", GRANT, {"if-none-match": "*"}),
    ("PUT", f"grants/{INC}", GRANT, {}),
    ("PUT", f"grants/{INC}", GRANT, {"if-none-match": "*"}),
    ("GET", f"grants/{INC}", None, {}),
    ("GET", f"grants/{INC}?pretty", None, {}),
    ("GET", f"grants/{INC}?pretty=true", None, {}),
    ("GET", f"grants/{INC}?pretty=false", None, {}),
    ("GET", "grants/alice", None, {}),
    ("GET", "grants", None, {}),
    ("GET", "grants/bob", None, {}),
    ("PATCH", f"grants/{INC}", CHANGE, {}),
    ("PATCH", f"grants/{INC}", [], {}),
    ("PATCH", f"grants/{INC}", [{"op": "remove", "path": "/nothing"}], {}),
    ("PATCH", f"grants/{INC}", [{"op": "replace", "path": "/nothing/x", "value": 1}], {}),
    ("PATCH", f"grants/{INC}", [{"op": "move", "from": "/reason", "path": "/ticket"}], {}),
    ("PATCH", f"grants/{INC}", {"op": "add"}, {}),
    ("PUT", f"grants/{INC}", b"{nope", {}),
    ("PUT", f"grants/{INC}", b"", {}),
    ("PATCH", f"grants/{INC}", b"{nope", {}),
    ("HEAD", f"grants/{INC}", None, {}),
    ("OPTIONS", f"grants/{INC}", None, {}),
    ("PATCH", "grants", [{"op": "add", "path": "/alice/INC-2", "value": GRANT}], {}),
    ("DELETE", f"grants/{INC}", None, {}),
]


async def test_the_door_answers_as_opa_does(door: Running, plain: httpx.Client) -> None:
    for method, path, body, headers in SAME:
        asked: dict[str, Any] = {"headers": headers}
        if body is not None:
            asked |= {"content": body if isinstance(body, bytes) else json.dumps(body)}
        theirs = plain.request(method, f"/v1/data/{path}", **asked)
        ours = await door.http.request(method, f"/v1/data/{path}", **asked)

        assert (ours.status_code, _shape(ours)) == (theirs.status_code, _shape(theirs)), (method, path, ours.text)


def _shape(answer: httpx.Response) -> Any:
    """What a program reads of it: members and codes.  Sentences, and what the door fills in, are the door's own."""
    if answer.status_code in (204, 304, 405):
        return None if answer.request.method in ("HEAD", "OPTIONS") else answer.content
    body = answer.json()
    if "result" in body:
        return _plain(body["result"]), "\n  " in answer.text
    return {name: body[name] if name == "code" else type(body[name]) for name in body if name != "errors"}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items() if not name.startswith("requested_")}
    return value


async def test_where_the_door_differs_from_opa(door: Running, plain: httpx.Client) -> None:
    """What docs/grants.md says of it."""
    both = plain, door.http
    nothing = [client.request("DELETE", "/v1/data/grants/alice/INC-404") for client in (plain,)]
    assert nothing[0].status_code == 404
    assert (await both[1].delete("/v1/data/grants/alice/INC-404")).status_code == 204

    test = [{"op": "test", "path": "/reason", "value": "x"}]
    assert plain.patch(f"/v1/data/grants/{INC}", json=test).status_code in (400, 404)
    await door.put(INC, GRANT)
    assert (await door.http.patch(f"/v1/data/grants/{INC}", json=test)).status_code == 412


# -- PATCH ----------------------------------------------------------------------------------------------------------


async def test_a_patch_is_judged_by_the_whole_that_results(door: Running, world: Opa) -> None:
    await door.put(INC, grant())
    headers = {"content-type": "application/json-patch+json"}
    change = [
        {"op": "replace", "path": "/reason", "value": "still stuck"},
        {"op": "add", "path": "/ticket", "value": "T"},
    ]
    good = await door.http.patch(f"/v1/data/grants/{INC}", content=json.dumps(change), headers=headers)
    bad = await door.http.patch(f"/v1/data/grants/{INC}", json=[{"op": "remove", "path": "/approved_by"}])

    assert (good.status_code, good.content) == (204, b"")
    assert (stored(world)["reason"], stored(world)["ticket"]) == ("still stuck", "T")
    assert bad.status_code == 400
    assert [(error["code"], error["field"]) for error in bad.json()["errors"]] == [("missing", "approved_by")]
    [_, patched] = [record for record in door.records("grant") if record["outcome"] == "ok"]
    assert (patched["verb"], patched["old"]["reason"], patched["new"]["reason"]) == (
        "PATCH", "orders are stuck", "still stuck",
    )  # fmt: skip


async def test_a_patch_can_make_and_remove_a_document(door: Running, world: Opa) -> None:
    made = await door.http.patch(f"/v1/data/grants/{INC}", json=[{"op": "add", "path": "", "value": grant()}])
    assert made.status_code == 204, made.text
    assert stored(world)["requested_by"] == "ticketing"

    gone = await door.http.patch(f"/v1/data/grants/{INC}", json=[{"op": "remove", "path": ""}])
    assert gone.status_code == 204, gone.text
    assert stored(world) is None
    assert [record["verb"] for record in door.records("grant")] == ["PATCH", "DELETE"]


NEST = json.loads("[" * 30 + "]" * 30)
PATCHES: dict[str, tuple[Any, int]] = {
    "no list": ({"op": "add"}, 400),
    "no operation": ([7], 400),
    "unknown operation": ([{"op": "merge", "path": "/reason", "value": 1}], 400),
    "copy": ([{"op": "copy", "from": "/reason", "path": "/ticket"}], 400),
    "no path": ([{"op": "add", "value": 1}], 400),
    "path that is no text": ([{"op": "add", "path": 7, "value": 1}], 400),
    "path without a slash": ([{"op": "add", "path": "reason", "value": "x"}], 400),
    "no value": ([{"op": "replace", "path": "/reason"}], 400),
    "another member": ([{"op": "add", "path": "/reason", "value": "x", "valeu": 1}], 400),
    "bad escape": ([{"op": "add", "path": "/a~2b", "value": 1}], 400),
    "nothing there": ([{"op": "replace", "path": "/ticket/deep", "value": 1}], 404),
    "a member of a text": ([{"op": "add", "path": "/reason/x", "value": 1}], 404),
    "too deep": ([{"op": "add", "path": "/ticket", "value": NEST},
                  {"op": "add", "path": "/ticket" + "/0" * 29 + "/-", "value": NEST}], 400),
    "a test that fails": ([{"op": "test", "path": "/reason", "value": "x"}], 412),
}  # fmt: skip


@pytest.mark.parametrize("case", PATCHES)
async def test_a_patch_that_is_wrong_says_where_and_changes_nothing(door: Running, world: Opa, case: str) -> None:
    await door.put(INC, grant())
    before = stored(world)
    body, status = PATCHES[case]
    answer = await door.http.patch(f"/v1/data/grants/{INC}", json=body)

    assert answer.status_code == status, answer.text
    assert answer.json()["message"]
    assert stored(world) == before


async def test_a_dry_run_is_judged_and_recorded_and_stores_nothing(door: Running, world: Opa) -> None:
    good = await door.http.put(f"/v1/data/grants/{INC}?dry-run", json=grant())
    bad = await door.http.put(f"/v1/data/grants/{INC}?dry-run=true", json=grant(reason=""))
    missing = await door.http.put(f"/v1/data/grants/{INC}?dry-run", json=grant(), headers={"if-match": "*"})

    assert [answer.status_code for answer in (good, bad, missing)] == [204, 400, 412]
    assert "etag" not in good.headers
    assert [record["outcome"] for record in door.records("admission")] == ["allow", "deny", "allow"]
    assert (door.records("grant"), stored(world)) == ([], None)
    assert (await door.http.put(f"/v1/data/grants/{INC}?dry-run=false", json=grant())).status_code == 204
    assert stored(world) is not None


# -- many at once ---------------------------------------------------------------------------------------------------


async def test_many_documents_are_stored_by_one_patch(door: Running, world: Opa) -> None:
    await door.put("alice/OLD", grant())
    operations = [
        {"op": "add", "path": "/alice/INC-1", "value": grant()},
        {"op": "add", "path": "/bob/INC-2", "value": grant()},
        {"op": "replace", "path": "/bob/INC-2/reason", "value": "reports are late"},
        {"op": "remove", "path": "/alice/OLD"},
    ]
    answer = await door.http.patch("/v1/data/grants", json=operations)

    assert answer.status_code == 204, answer.text
    assert stored(world, "bob/INC-2")["reason"] == "reports are late"
    assert (stored(world, "alice/OLD"), stored(world)["requested_by"]) == (None, "ticketing")
    writes = [(record.get("index"), record["verb"], record["path"]) for record in door.records("grant")[1:]]
    assert writes == [
        (None, "PATCH", "grants"), (0, "PATCH", "grants/alice/INC-1"), (2, "PATCH", "grants/bob/INC-2"),
        (3, "DELETE", "grants/alice/OLD"),
    ]  # fmt: skip
    assert len(door.records("admission")) == 4, "each document is a decision"


async def test_one_that_is_refused_keeps_all_from_being_stored_and_each_fault_has_its_index(
    door: Running, world: Opa
) -> None:
    operations = [
        {"op": "add", "path": "/alice/INC-1", "value": grant()},
        {"op": "add", "path": "/bob/INC-2", "value": grant(reason="")},
        {"op": "remove", "path": "/bob/INC-404"},
        {"op": "add", "path": "/nobody/INC-3", "value": grant(target="no-such")},
    ]
    answer = await door.http.patch("/v1/data/grants", json=operations)

    assert answer.status_code == 400, answer.text
    assert {(error["index"], error["code"], error.get("field", "")) for error in answer.json()["errors"]} == {
        (1, "wrong_type", "reason"), (2, "resource_not_found", ""), (3, "unknown_person", "person"),
        (3, "unknown_target", "target"),
    }  # fmt: skip
    assert stored(world) is None
    assert all(record["outcome"] != "ok" for record in door.records("grant"))


async def test_a_person_alone_can_be_the_place_of_a_patch(door: Running, world: Opa) -> None:
    answer = await door.http.patch("/v1/data/grants/alice", json=[{"op": "add", "path": "/INC-1", "value": grant()}])

    assert answer.status_code == 204, answer.text
    assert stored(world)["reason"] == "orders are stuck"


@pytest.mark.parametrize("path", ["", "/", "/alice", "/../people/alice", "/alice/a~1b", "/alice/", "/a b/INC-1"])
async def test_a_patch_reaches_documents_only(door: Running, world: Opa, path: str) -> None:
    answer = await door.http.patch("/v1/data/grants", json=[{"op": "add", "path": path, "value": {"INC-1": grant()}}])

    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["index"] == 0
    assert everything(world)["grants"] in (None, {})


async def test_a_patch_of_too_much_is_refused_whole(door: Running) -> None:
    many = [{"op": "add", "path": f"/alice/INC-{number}", "value": {}} for number in range(1001)]
    answer = await door.http.patch("/v1/data/grants", json=many)
    assert (answer.status_code, door.records("admission")) == (400, [])

    answer = await door.http.patch("/v1/data/grants", content=b" " * (2 * 2**20 + 1))
    assert answer.status_code == 413


async def test_a_test_for_nothing_holds_where_there_is_nothing(door: Running, world: Opa) -> None:
    new = [
        {"op": "test", "path": "/alice/INC-1", "value": None},
        {"op": "add", "path": "/alice/INC-1", "value": grant()},
    ]
    first = await door.http.patch("/v1/data/grants", json=new)
    second = await door.http.patch("/v1/data/grants", json=new)

    assert (first.status_code, second.status_code) == (204, 412)
    assert second.json()["errors"] == [
        {"code": "precondition_failed", "message": second.json()["errors"][0]["message"], "index": 0}
    ]


async def test_in_an_opa_without_partitions_a_patch_makes_what_is_above(tmp_path: Path, plain: httpx.Client) -> None:
    """OPA in memory adds nothing below what is not there."""
    from gateway.policy.opa import Opa as Client
    from gateway.settings import PolicySettings

    async with Client.open(PolicySettings(url=str(plain.base_url))) as client:
        await client.patch("fresh", operations=[{"op": "add", "path": "/alice/INC-1", "value": {"a": 1}}])
        assert not await client.create("fresh", "alice", "INC-1", value={"a": 2})
        assert await client.read("fresh") == {"alice": {"INC-1": {"a": 1}}}


# -- other roots ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["approvals/alice/INC-1/erin", "reviews/alice/INC-1", "roster/orders"])
async def test_the_other_roots_are_read_by_the_same_paths(door: Running, world: Opa, path: str) -> None:
    world.put(path, {"a": 1})
    try:
        found = await door.http.get(f"/v1/data/{path}")
        above = await door.http.get(f"/v1/data/{path.rpartition('/')[0]}")
        assert found.json() == {"result": {"a": 1}}
        assert above.json() == {"result": {path.rpartition("/")[2]: {"a": 1}}}
        assert (await door.http.put(f"/v1/data/{path}/x", json={})).status_code == 400
    finally:
        world.delete(path)
