"""How many sessions may be open at once: on a grant, of a person, at a target; also when two begin at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.sections import SecretRef
from tests.authn.serving import serving
from tests.e2e.world import Terminal, grant_of
from tests.ssh.obliging import codes, ssh
from tests.ssh.test_desk import at_terminal
from tests.ssh.test_races import Gated
from tests.ssh.world import ALICE, BOB, Site, running, target
from tests.stack.opa import Opa
from tests.waiting import until

LONG = 60.0
ONE: dict[str, Any] = {"max_sessions": 1}


@pytest.fixture
async def busy(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> AsyncIterator[Site]:
    """Alice has grants for two targets, Bob for the one of them that takes one session."""
    targets = {"plain": target(), "narrow": target(**ONE)}
    async with running(opa_server, tmp_path, targets=targets) as site:
        opa_server.put(f"grants/{ALICE}/n1", grant_of(target="narrow"))
        opa_server.put(f"grants/{BOB}/n2", grant_of(target="narrow"))
        yield site
        await site.nothing_left()


@asynccontextmanager
async def inside(site: Site, login: str, person: str = ALICE) -> AsyncIterator[str]:
    """A session that stays open; its id."""
    before = set(site.gateway.live.ids())
    async with site.connect(person, username=login) as connection:
        process = await connection.create_process("echo in; cat")
        assert await asyncio.wait_for(process.stdout.readline(), LONG) == "in\n"
        [session] = set(site.gateway.live.ids()) - before
        yield session


async def test_one_more_than_the_grant_is_for_is_told_which_is_open_and_may_come_when_it_was_left(
    busy: Site, opa_server: Opa
) -> None:
    opa_server.put(f"grants/{ALICE}/g1", grant_of(target="plain", **ONE))

    async with inside(busy, f"{ALICE}+plain") as session:
        seen: list[str] = []

        def play(terminal: Terminal) -> int:
            status = terminal.wait_end()
            seen.append(terminal.seen)
            return status

        status = await at_terminal(busy, f"{ALICE}+plain", play)
        told = " ".join(seen[0].split())
        assert status == 254
        assert "too_many_sessions: Your grant g1 is for 1 session at once, and 1 is open" in told
        assert f"session {session} (plain, since" in told
        assert "what to do: Leave one of them and connect again. For more at once: Ask at #ask" in told
        assert len(busy.audit("workspace")) == 1
        async with inside(busy, f"{ALICE}+narrow"):
            pass
    assert (await ssh(busy, "true", options=("-l", f"{ALICE}+plain"))).returncode == 0, "there is room again"


async def test_the_sessions_of_one_person_are_counted_wherever_they_are(busy: Site, opa_server: Opa) -> None:
    opa_server.put(f"people/{ALICE}/max_sessions", 1)

    async with inside(busy, f"{ALICE}+plain"), inside(busy, f"{BOB}+beside", BOB):
        told = await ssh(busy, "true", options=("-l", f"{ALICE}+narrow"))
        assert (told.returncode, "You may have 1 session at once" in told.stderr) == (254, True)
        answered = await ssh(busy, "access", options=("-l", f"{ALICE}+narrow"))
        assert (answered.returncode, "Grants of alice" in answered.stdout) == (0, True), "the door itself still answers"


async def test_the_sessions_at_a_target_are_counted_whosever_they_are(busy: Site) -> None:
    async with inside(busy, f"{BOB}+narrow", BOB) as session:
        told = await ssh(busy, "true", options=("-l", f"{ALICE}+narrow"))
        assert (told.returncode, "narrow takes 1 session at once, and 1 is open, 0 of them" in told.stderr) == (
            254,
            True,
        )
        assert session not in told.stderr, "whose it is, is not for others"


async def test_a_session_counts_as_itself_in_no_question(busy: Site, opa_server: Opa) -> None:
    opa_server.put(f"grants/{ALICE}/g1", grant_of(target="plain", **ONE))

    async with busy.connect(username=f"{ALICE}+plain") as connection:
        first = await connection.run("true")
        word = await connection.run("access")
        assert (first.exit_status, word.exit_status) == (0, 0)
    assert {record["outcome"] for record in busy.audit("config")} == {"allow"}


async def test_of_two_that_both_have_a_permit_for_the_last_place_one_begins(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    arrived = 0
    both = asyncio.Event()

    async def answer(_request: web.Request) -> web.StreamResponse:
        """Both permits are there before either webhook is told."""
        nonlocal arrived
        arrived += 1
        if arrived == 2:
            both.set()
        await both.wait()
        return web.Response(status=204)

    async def first_line(site: Site) -> str:
        async with site.connect() as connection:
            process = await connection.create_process("echo in; cat")
            line = await asyncio.wait_for(process.stdout.readline(), LONG)
            if line:
                begun.set()
                await told.wait()
                return str(line)
            why = await asyncio.wait_for(process.stderr.read(), LONG)
            told.set()
            return str(why)

    begun, told = asyncio.Event(), asyncio.Event()
    (tmp_path / "hook.secret").write_text("of the hook")
    async with serving(answer) as served:
        hook = {"url": f"{served.url}/in", "secret": SecretRef(file=tmp_path / "hook.secret"), "timeout_seconds": 30}
        targets = {"plain": target(**ONE, oblige={"notify": [{"hook": "slow", "required": True}]})}
        async with running(opa_server, tmp_path, targets=targets, hooks={"slow": hook}) as site:
            said = await asyncio.wait_for(asyncio.gather(first_line(site), first_line(site)), LONG)
            assert sorted(line == "in\n" for line in said) == [False, True]
            [refusal] = [line for line in said if line != "in\n"]
            assert "too_many_sessions: plain takes 1 session at once, and 1 is open" in refusal
            assert codes(site, "notify") == []
            assert [record["answer"]["allow"] for record in site.audit("config")] == [True, True, False]
            assert len(site.audit("workspace")) == 1
            await site.nothing_left()


async def test_of_many_at_once_no_more_begin_than_there_are_places(busy: Site, opa_server: Opa) -> None:
    opa_server.put(f"grants/{ALICE}/g1", grant_of(target="plain", max_sessions=3))
    enough = asyncio.Event()
    told: list[str] = []

    async def one() -> None:
        async with busy.connect(username=f"{ALICE}+plain") as connection:
            process = await connection.create_process("echo in; cat")
            line = await asyncio.wait_for(process.stdout.readline(), LONG)
            told.append("in" if line else "out")
            if len(told) == 8:
                enough.set()
            await enough.wait()

    await asyncio.wait_for(asyncio.gather(*(one() for _ in range(8))), LONG)

    assert (told.count("in"), told.count("out")) == (3, 5)
    await until(lambda: len(busy.gone("workspace")) == 3, LONG)


async def test_a_client_that_left_has_left_its_place_while_its_workspace_is_still_taken_away(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    slow = Gated("after leaving")
    async with running(opa_server, tmp_path, slow, targets={"slow": target("gated", **ONE)}) as site:
        assert (await ssh(site, "true")).returncode == 0
        await asyncio.wait_for(slow.reached.wait(), LONG)
        slow.stop_at = ""
        assert len(site.gateway.live.ids()) == 1, "the first is not yet away"
        assert (await ssh(site, "true")).returncode == 0
        slow.go.set()
        await site.nothing_left()


@pytest.mark.parametrize("limit", ["2", 0, 1.5, True])
async def test_a_limit_of_a_person_that_cannot_be_read_lets_nobody_in(busy: Site, opa_server: Opa, limit: Any) -> None:
    opa_server.put(f"people/{ALICE}/max_sessions", limit)

    told = await ssh(busy, "true", options=("-l", f"{ALICE}+plain"))

    assert (told.returncode, "too_many_sessions: You may have 0 sessions" in told.stderr) == (254, True)
