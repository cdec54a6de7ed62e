"""`doorward grants apply`: a folder as the door shall hold it, all of it or nothing; and lint and token beside it."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.cli.grants_apply import apply as applied
from gateway.cli.manifests import read
from gateway.errors import DoorwardError
from tests.cli.commands import Ran, doorward
from tests.door.running import Running, running
from tests.door.test_grants import everything, stored
from tests.policy.world import REPORTS, grant, in_minutes
from tests.stack import IN_THE_CLEAR
from tests.stack.opa import Opa

END = in_minutes(60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, three grants."""
    folder = tmp_path / "grants"
    (folder / "more").mkdir(parents=True)
    (folder / "alice.yaml").write_text(yaml.safe_dump_all([entry("alice", "INC-1"), entry("alice", "INC-2")]))
    (folder / "more" / "bob.json").write_text(json.dumps([entry("bob", "INC-3", target=REPORTS)]))
    return folder


START = in_minutes(-1)


def entry(person: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"person": person, "id": name, **grant(**{"starts_at": START, "ends_at": END, **fields})}


async def apply(door: Running, folder: Path, *more: str) -> Ran:
    return await doorward("grants", "apply", "-f", folder, "--config", door.file, *more)


async def test_a_folder_is_shown_then_written_then_unchanged(door: Running, world: Opa, folder: Path) -> None:
    planned = await apply(door, folder, "--dry-run")
    assert (planned.status, planned.err) == (2, "")
    assert "3 to create, 0 to change, 0 to delete, 0 unchanged" in planned.out
    assert everything(world)["grants"] in (None, {})

    done = await apply(door, folder)
    assert (done.status, done.err) == (0, "")
    assert "3 created" in done.out
    assert stored(world, "bob/INC-3")["target"] == REPORTS
    assert stored(world, "alice/INC-1")["ends_at"] == END, "a time stays as it was written"

    again, dry = await apply(door, folder), await apply(door, folder, "--dry-run", "--json")
    assert "0 created, 0 changed, 0 deleted, 3 unchanged" in again.out
    assert (dry.status, {step["action"] for step in dry.json["steps"]}) == (0, {"unchanged"})


async def test_a_change_is_shown_by_its_fields_and_made(door: Running, world: Opa, folder: Path) -> None:
    await apply(door, folder)
    (folder / "alice.yaml").write_text(
        yaml.safe_dump_all([entry("alice", "INC-1", reason="new"), entry("alice", "INC-2")])
    )
    planned = await apply(door, folder, "--dry-run", "--json")
    [change] = [step for step in planned.json["steps"] if step["action"] != "unchanged"]

    assert (change["action"], change["what"]) == ("change", "reason: orders are stuck -> new")
    assert (await apply(door, folder)).status == 0
    assert stored(world, "alice/INC-1")["reason"] == "new"


async def test_prune_takes_away_what_this_client_wrote_and_nothing_else(
    door: Running, world: Opa, folder: Path
) -> None:
    await apply(door, folder)
    world.put("grants/alice/OTHERS", {**grant(), "requested_by": "somebody"})
    world.put("grants/alice/NOBODYS", grant())
    (folder / "more" / "bob.json").unlink()
    kept = await apply(door, folder)
    assert "0 deleted" in kept.out
    assert stored(world, "bob/INC-3") is not None, "without --prune"

    pruned = await apply(door, folder, "--prune")
    assert "1 deleted" in pruned.out
    assert stored(world, "bob/INC-3") is None
    assert everything(world)["grants"]["alice"].keys() == {"INC-1", "INC-2", "OTHERS", "NOBODYS"}


async def test_what_another_client_wrote_is_not_taken_over(door: Running, world: Opa, folder: Path) -> None:
    world.put("grants/alice/INC-2", {**grant(), "requested_by": "somebody"})
    done = await apply(door, folder)

    assert done.status == 1
    assert "alice.yaml: id: somebody wrote alice/INC-2" in done.err
    assert stored(world, "alice/INC-1") is None


async def test_one_wrong_grant_keeps_all_from_being_written_and_is_told_by_file_and_field(
    door: Running, world: Opa, folder: Path
) -> None:
    (folder / "more" / "bob.json").write_text(json.dumps(entry("bob", "INC-3", approved_by="bob", end_at="x")))
    for more in ([], ["--dry-run"]):
        done = await apply(door, folder, *more)

        assert done.status == 1
        assert "self_approved: more/bob.json: bob/INC-3: approved_by: Nobody approves a grant of their own." in done.err
        assert "unknown_field: more/bob.json: bob/INC-3: end_at: A grant has no such field." in done.err
        assert "what to do: " in done.err
        assert everything(world)["grants"] in (None, {})


async def test_a_change_between_reading_and_writing_is_a_conflict(door: Running, world: Opa, folder: Path) -> None:
    """The command's own plan, with somebody between its two requests."""
    await apply(door, folder)
    (folder / "alice.yaml").write_text(yaml.safe_dump(entry("alice", "INC-1", reason="mine")))
    headers = {"authorization": door.http.headers["authorization"]}

    def meddled(method: str, path: str, value: Any = None) -> httpx.Response:
        if method == "PATCH":
            world.put("grants/alice/INC-1/reason", "theirs")
        with httpx.Client(base_url=door.http.base_url, headers=headers, timeout=30, verify=IN_THE_CLEAR) as client:
            return client.request(method, f"/v1/data/{path}", json=value)

    asked = argparse.Namespace(file=folder, prune=False, dry_run=False, json=False)
    with pytest.raises(DoorwardError) as refused:
        await asyncio.to_thread(applied, asked, read(folder), meddled)
    assert refused.value.reasons[0].code == "conflict"
    assert "alice.yaml: alice/INC-1" in refused.value.reasons[0].message
    assert stored(world, "alice/INC-1")["reason"] == "theirs"


WRONG: dict[str, tuple[str, str]] = {
    "a.yaml": ("person: [", "it is not YAML"),
    "b.yaml": ("- 7", "a grant is an object"),
    "c.yaml": ("id: INC-1", "person: must be text"),
    "d.yaml": ("person: alice\nid: 7", "id: must be text"),
    "e.yaml": ("person: alice\nperson: bob\nid: x", "twice"),
    "f.yaml": ("a: &x [1]\nb: *x", "aliases are not taken"),
    "g.json": ("{", "Expecting"),
    "h.json": ('{"person": "a", "person": "b"}', "twice"),
    "i.yaml": ("!!python/object/apply:os.system [true]", "it is not YAML"),
    "j.yaml": ("1: x", "names are text"),
}


async def test_everything_that_is_wrong_in_a_folder_is_told_before_anybody_is_asked(tmp_path: Path) -> None:
    for name, (text, _) in WRONG.items():
        (tmp_path / name).write_text(text)
    done = await doorward("grants", "apply", "-f", tmp_path, "--door", "http://127.0.0.1:1")

    assert done.status == 1
    for name, (_, said) in WRONG.items():
        [line] = [line for line in done.err.splitlines() if f"manifest: {name}: " in line]
        assert said in line


async def test_the_same_grant_in_two_files_is_told(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump(entry("alice", "INC-1")))
    done = await doorward("grants", "apply", "-f", tmp_path, "--door", "http://127.0.0.1:1")

    assert "b.yaml: id: alice/INC-1 is in a.yaml already" in done.err


async def test_a_folder_that_is_not_there_and_one_that_is_empty(door: Running, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    missing, empty = await apply(door, tmp_path / "missing"), await apply(door, tmp_path / "empty")

    assert (missing.status, "no such folder" in missing.err) == (1, True)
    assert (empty.status, empty.out) == (0, "nothing to do\n")


# -- lint and token -------------------------------------------------------------------------------------------------


async def test_lint_lists_what_has_no_effect_and_fails_then(door: Running, world: Opa) -> None:
    await door.put("alice/INC-1", grant())
    clean = await doorward("grants", "lint", "--config", door.file)
    world.put("grants/alice/INC-7", grant(reason=None), role="automation")
    found, told = (
        await doorward("grants", "lint", "--json", "--config", door.file),
        await doorward("grants", "lint", "--config", door.file),
    )

    assert (clean.status, clean.out) == (0, "every grant is well-formed\n")
    assert (found.status, found.json) == (
        1,
        {"malformed": [{"person": "alice", "id": "INC-7", "problems": ["reason: missing"]}]},
    )
    assert told.out.splitlines()[1].split() == ["alice", "INC-7", "reason:", "missing"]


async def test_a_token_is_made_with_its_hash_and_opens_the_door(world: Opa, tmp_path: Path) -> None:
    made = (await doorward("grants", "token", "ticketing", "--json")).json
    told = await doorward("grants", "token", "ticketing")

    assert hashlib.sha256(made["token"].encode()).hexdigest() == made["token_sha256"]
    assert made["token"].startswith("dwg_")
    assert 'clients.ticketing.token_sha256 = ["' in told.out
    assert told.out.splitlines()[0] != made["token"]
    clients = {"ticketing": {"token": None, "token_sha256": [made["token_sha256"]]}}
    async with running(tmp_path, world, door={"clients": clients}) as door:
        answer = await door.http.get("/v1/data/grants", headers={"authorization": f"Bearer {made['token']}"})
        assert answer.status_code == 200
    assert (await doorward("grants", "token", "a b")).status == 1
