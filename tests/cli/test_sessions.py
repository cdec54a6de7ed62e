"""`doorward sessions`, by the socket and over TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.commands import doorward, written
from tests.door.engineer import connected, granted
from tests.door.running import TOKEN, Running
from tests.policy.world import ALICE
from tests.stack.opa import Opa
from tests.stack.process import free_port, write_secret


@pytest.fixture
async def door(opa_server: Opa, tmp_path: Path) -> AsyncIterator[Running]:
    async with granted(tmp_path, opa_server, door={"admin_listen": "127.0.0.1:0"}) as opened:
        yield opened


async def test_over_tcp_sessions_are_listed_judged_again_and_ended_with_a_reason(door: Running, tmp_path: Path) -> None:
    assert door.gateway.admin is not None
    url = f"http://127.0.0.1:{door.gateway.admin[1]}"
    there: list[str | Path] = ["--url", url, "--token-file", write_secret(tmp_path / "token", TOKEN)]
    async with connected(door) as connection:
        process = await connection.create_process("echo up; cat")
        assert await process.stdout.readline() == "up\n"
        shown, judged = await asyncio.gather(
            doorward("sessions", "list", "--json", *there),
            doorward("sessions", "reevaluate", "--person", ALICE, *there),
        )
        ended = await doorward("sessions", "end", shown.json[0]["id"], "--reason", "ticket closed: 100 %", *there)
        result = await process.wait()

    assert shown.json[0]["person"] == ALICE
    assert (judged.status, judged.out) == (0, "judged 1 sessions\n")
    assert ended.status == 0, ended.err
    assert "ticketing ended this session: ticket closed: 100 %" in str(result.stderr)


async def test_by_the_socket_the_reason_is_on_the_terminal_too(door: Running) -> None:
    async with connected(door) as connection:
        process = await connection.create_process("echo up; cat")
        assert await process.stdout.readline() == "up\n"
        [session] = door.gateway.live.ids()
        ended = await doorward("sessions", "end", session, "--reason", "maintenance", "--json", "--config", door.file)
        result = await process.wait()

    assert ended.json == {"ended": session}
    assert "an operator ended this session: maintenance" in str(result.stderr)


async def test_refusals_and_what_is_not_there_say_what_to_do(door: Running, tmp_path: Path) -> None:
    assert door.gateway.admin is not None
    url = f"http://127.0.0.1:{door.gateway.admin[1]}"
    wrong = write_secret(tmp_path / "wrong", "nobody's")
    unknown, nobody, no_token = await asyncio.gather(
        doorward("sessions", "--url", url, "--token-file", wrong),
        doorward("sessions", "--url", f"http://127.0.0.1:{free_port()}", "--token-file", wrong),
        doorward("sessions", "--url", url, "--config", written(tmp_path, {"state_dir": str(tmp_path)})),
    )

    assert (unknown.status, "no client has this token" in unknown.err) == (1, True)
    assert (nobody.status, "door.admin_listen" in nobody.err) == (1, True)
    assert (no_token.status, "--token-file" in no_token.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["end"], "doorward sessions end ID"),
        (["approve", "x"], "doorward sessions approve ID --by NAME"),
        (["list", "x"], "list takes no ID"),
        (["reevaluate", "--reason", "x"], "reevaluate takes no --reason"),
        (["--token-file", "x"], "--url"),
    ],
)
def test_what_does_not_go_together_is_told(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.cli import main

    monkeypatch.delenv("DOORWARD_CONFIG", raising=False)

    assert main(["sessions", *words]) == 1
    assert said in capsys.readouterr().err
