"""What stands in examples/ runs, as it stands there."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import yaml

from tests.cli.commands import doorward
from tests.door.running import TOKEN, Running, running
from tests.door.test_grants import stored
from tests.policy.world import grant
from tests.stack.opa import Opa
from tests.stack.process import write_secret

EXAMPLES = Path(__file__).parents[2] / "examples"


async def run(*command: str | Path, cwd: Path, **env: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=cwd, env={"PATH": "/usr/local/bin:/usr/bin:/bin", **env},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_curl_lives_the_life_of_a_grant(door: Running, world: Opa, tmp_path: Path) -> None:
    header = write_secret(tmp_path / "header", f"Authorization: Bearer {TOKEN}\n")
    base = str(door.http.base_url).rstrip("/")
    status, out, err = await run("sh", EXAMPLES / "grants.sh", cwd=tmp_path, DOOR=base, HEADER=str(header))

    assert (status, err) == (0, "")
    assert '"reason": "stuck orders"' in out
    assert '"field": "reason"' in out, "what is wrong with a change that was tried"
    writes = [(record["verb"], record["outcome"]) for record in door.records("grant")]
    assert writes == [("PUT", "ok"), ("PATCH", "ok"), ("DELETE", "ok")]
    assert stored(world) is None


async def test_curl_deletes_at_opa_and_has_the_gateway_look_at_once(world: Opa, tmp_path: Path) -> None:
    world.put("grants/alice/INC-1", grant())
    theirs = write_secret(tmp_path / "opa.header", f"Authorization: Bearer {world.token('automation')}\n")
    ours = write_secret(tmp_path / "header", f"Authorization: Bearer {TOKEN}\n")
    async with running(tmp_path, world, door={"admin_listen": "127.0.0.1:0"}) as door:
        assert door.gateway.admin is not None
        there = {"OPA": world.url, "ADMIN": f"http://127.0.0.1:{door.gateway.admin[1]}"}
        headers = {"OPA_HEADER": str(theirs), "HEADER": str(ours)}
        status, out, err = await run("sh", EXAMPLES / "push.sh", cwd=tmp_path, **there, **headers)

    assert (status, json.loads(out), err) == (0, {"judged": 0}, "")
    assert stored(world) is None


async def test_python_writes_and_removes_and_says_what_is_wrong(door: Running, world: Opa, tmp_path: Path) -> None:
    file, wrong = tmp_path / "grant.json", tmp_path / "wrong.json"
    file.write_text(json.dumps(grant()))
    wrong.write_text(json.dumps(grant(approved_by="alice")))
    token = write_secret(tmp_path / "token", TOKEN)
    words: list[str | Path] = [
        sys.executable,
        EXAMPLES / "grants_client.py",
        str(door.http.base_url).rstrip("/"),
        token,
        "alice",
        "INC-1",
    ]

    assert (await run(*words, file, cwd=tmp_path))[0] == 0
    assert stored(world)["reason"] == "orders are stuck"
    status, _, err = await run(*words, wrong, cwd=tmp_path)
    assert (status, "approved_by: Nobody approves a grant of their own." in err) == (1, True)
    assert (await run(*words, cwd=tmp_path))[:2] == (0, "now removed\n")
    assert stored(world) is None


def test_the_python_client_has_few_lines() -> None:
    lines = (EXAMPLES / "grants_client.py").read_text().partition('"""\n\nimport')[2].splitlines()

    assert len([line for line in lines if line.strip()]) <= 30


async def test_the_folder_is_one_that_apply_takes(door: Running) -> None:
    planned = await doorward("grants", "apply", "-f", EXAMPLES / "grants", "--dry-run", "--config", door.file)

    assert planned.status in (1, 2), "its times, or its targets, may be over"
    assert "Traceback" not in planned.err
    assert all(entry["person"] for entry in yaml.safe_load_all((EXAMPLES / "grants" / "orders.yaml").read_text()))
