"""A forced command runs whatever is asked for, knows what that was, and is on record with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from asyncssh.packet import String

from gateway.ssh.requests import original_command
from tests.ssh.world import running, target
from tests.stack.opa import Opa

FORCED = 'echo "forced: ${SSH_ORIGINAL_COMMAND-nothing}"'


@pytest.mark.parametrize(
    ("name", "payload", "said"),
    [
        ("shell", b"", None),
        ("exec", String("rsync --server; id"), b"rsync --server; id"),
        ("exec", String(b"\xff\n"), b"\xff\n"),
        ("exec", String(""), b""),
        ("subsystem", String("sftp"), b"internal-sftp"),
    ],
)
def test_what_was_asked_for_is_said_as_sshd_says_it(name: str, payload: bytes, said: bytes | None) -> None:
    assert original_command(name, payload) == said


async def test_it_runs_in_place_of_every_program_and_both_are_on_record(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    asked: list[dict[str, Any]] = [{"command": "id; exit 7"}, {"command": b"\xff"}, {}, {"subsystem": "sftp"}]
    async with running(opa_server, tmp_path, targets={"forced": target(force_command=FORCED)}) as site:
        async with site.connect() as connection:
            ran = [await connection.run(encoding=None, **options) for options in asked]
            terminal = await connection.run(term_type="dumb", encoding=None)
        await site.nothing_left()
        assert [(one.stdout, one.exit_status) for one in ran] == [
            (b"forced: id; exit 7\n", 0),
            (b"forced: \xff\n", 0),
            (b"forced: nothing\n", 0),
            (b"forced: internal-sftp\n", 0),
        ]
        assert isinstance(terminal.stdout, bytes)
        assert terminal.stdout.endswith(b"forced: nothing\r\n")
        [relay] = site.audit("relay")
        assert {(lane["command"], lane["forced_command"]) for lane in relay["channels"]} == {
            ("id; exit 7", FORCED), ("\\xff", FORCED), ("shell", FORCED), ("sftp", FORCED),
        }  # fmt: skip
        judged = [record["input"] for record in site.audit("request")]
        assert {one["permit"]["force_command"] for one in judged} == {FORCED}
        assert {"kind": "exec", "command": "id; exit 7"} in [one["request"] for one in judged]
        assert site.audit("config")[0]["answer"]["permit"]["workspace"]["force_command"] == FORCED


async def test_what_policy_refuses_is_refused_and_nothing_runs(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    allow = {"exec": False, "sftp": False}
    forced = target(force_command=FORCED, allow=allow)
    async with running(opa_server, tmp_path, targets={"forced": forced}) as site, site.connect() as connection:
        for options in ({"command": "id"}, {"subsystem": "sftp"}):
            refused = await connection.run(**options)  # type: ignore[arg-type]
            assert (refused.exit_status, refused.stdout) == (254, "")
            assert "_refused: " in str(refused.stderr)


@pytest.mark.parametrize("takes", [["SSH_*"], ["*"]])
async def test_no_client_can_say_what_was_asked_for(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], takes: list[str]
) -> None:
    forced = target(force_command=FORCED, allow={"env": takes})
    async with running(opa_server, tmp_path, targets={"forced": forced}) as site, site.connect() as connection:
        for options in ({}, {"command": "real"}):
            ran = await connection.run(env={"SSH_ORIGINAL_COMMAND": "mine", "LC_X": "y"}, **options)  # type: ignore[arg-type]
            assert "mine" not in str(ran.stdout)


async def test_nothing_runs_where_it_cannot_be_told_what_was_asked_for(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    """The agent refuses a variable that the permit's own environment holds."""
    broken = target(force_command=FORCED, env={"SSH_ORIGINAL_COMMAND": "fixed"})
    async with running(opa_server, tmp_path, targets={"forced": broken}) as site, site.connect() as connection:
        refused = await connection.run("id")
        assert (refused.exit_status, refused.stdout) == (254, "")
        assert "forced command" in str(refused.stderr)
