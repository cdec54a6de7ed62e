"""The life of a grant, from the command line to the stock client's terminal: a real OPA, a real door, real sessions."""

from __future__ import annotations

import asyncio
import re
import shlex
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.commands import Ran, doorward
from tests.e2e.world import Terminal
from tests.moved_clock import MovedClock
from tests.ssh.obliging import ssh
from tests.ssh.test_desk import at_terminal
from tests.ssh.world import ALICE, BOB, Site, running, target
from tests.stack import IN_THE_CLEAR
from tests.stack.example import door_token, settings_toml
from tests.stack.opa import Opa
from tests.stack.process import write_secret
from tests.waiting import until

LONG = 60.0
TWO = {"needed": 2, "by": {"groups": ["leads"]}}
ON_CALL = {"on_call": "orders"}
LEADS = ("erin", "frank")
OWN = (
    "targets/orders",
    "approvals",
    "roster",
    *(f"{root}/{name}" for root in ("people", "automations") for name in LEADS),
)


@dataclass
class Life:
    """A site whose only target for alice is `orders`, and the commands of whoever asks and approves."""

    site: Site
    config: Path
    inside: threading.Event = field(default_factory=threading.Event)

    async def command(self, *words: str, by: str = "ticketing") -> Ran:
        file = str(self.site.directory / f"{by}.token")
        return await doorward("grants", *words, "--config", self.config, env={"DOORWARD_TOKEN_FILE": file})

    async def grants(self, *words: str, by: str = "ticketing") -> Ran:
        """What must be done."""
        ran = await self.command(*words, by=by)
        assert ran.status == 0, ran.err
        return ran

    async def request(self, *words: str) -> None:
        await self.grants("request", ALICE, "orders", "--reason", "orders are stuck", "--ticket", "INC-9", *words)

    async def on_duty(self, *shifts: tuple[str, str, str]) -> None:
        """The rota, written at the door: person, from, to."""
        assert self.site.gateway.door is not None
        token = door_token(self.site.directory).read_text()
        url = f"http://127.0.0.1:{self.site.gateway.door[1]}/v1/data/roster/orders"
        value = {"shifts": [{"person": person, "from": start, "to": end} for person, start, end in shifts]}
        async with httpx.AsyncClient(timeout=LONG, verify=IN_THE_CLEAR) as client:
            answer = await client.put(url, json=value, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 204, answer.text

    async def refused(self, code: str) -> str:
        """What `ssh` is told, which does not get in."""
        told = await ssh(self.site, "true")
        assert (told.returncode, f"doorward: {code}: " in told.stderr) == (254, True), told.stderr
        return told.stderr

    @asynccontextmanager
    async def entered(self, *last_words: str) -> AsyncIterator[None]:
        """Inside on a terminal while the body runs, which has to end it; these are seen on it then."""

        def play(terminal: Terminal) -> int:
            terminal.wait_for("grant INC-9", LONG)
            terminal.type("echo in-$((6*7))\n")
            terminal.wait_for("in-42", LONG)
            self.inside.set()
            status = terminal.wait_end(LONG)
            told = " ".join(terminal.seen.split())
            assert all(word in told for word in last_words), terminal.seen
            return status

        self.inside.clear()
        playing = asyncio.ensure_future(at_terminal(self.site, ALICE, play))
        try:
            await until(lambda: self.inside.is_set() or playing.done(), LONG)
            assert not playing.done(), playing.result()
            yield
            assert await playing == 254
        finally:
            await asyncio.wait([playing])


@asynccontextmanager
async def living(opa: Opa, directory: Path, **orders: Any) -> AsyncIterator[Life]:
    """`orders` are of the target.  Erin and Frank are leads, each with a token of their own."""
    asked: dict[str, Any] = target(**orders)
    token_files = {"ticketing": door_token(directory)}
    for name in LEADS:
        token_files[name] = write_secret(directory / f"{name}.token", f"token of {name}")
    door = {
        "listen": "127.0.0.1:0",
        "clients": {name: {"token": {"file": str(file)}} for name, file in token_files.items()},
    }
    try:
        async with running(opa, directory, targets={"orders": asked}, grant=False, door=door) as site:
            for name in LEADS:
                opa.put(f"people/{name}", {"keys": [], "groups": ["leads"]})
                opa.put(f"automations/{name}", {"roots": ["approvals"], "verbs": ["GET", "PUT"], "person": name})
            assert site.gateway.door is not None
            config = directory / "doorward.toml"
            policy = {"url": opa.url, "token": {"file": str(opa.token_files["gateway"])}}
            listen = f"127.0.0.1:{site.gateway.door[1]}"
            config.write_text(settings_toml({
                "state_dir": str(directory / "state"), "policy": policy, "door": {**door, "listen": listen},
            }))  # fmt: skip
            yield Life(site, config)
            await site.nothing_left()
    finally:
        for path in OWN:
            if "/" in path:
                opa.delete(path)
            else:
                opa.put(path, {})
        opa.put("grants", {})


async def test_from_a_ticket_to_the_door_and_out_again(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    """Requested, approved by two, used, extended, and ended early with a reason that the terminal shows."""
    async with living(opa_server, tmp_path, approval=TWO) as life:
        await life.request("--minutes", "30")
        told = await life.refused("grant_not_approved")
        assert "2 more approvals are needed" in told
        assert "doorward grants approve alice INC-9 --by NAME" in told

        await life.grants("approve", ALICE, "INC-9", "--by", "erin", by="erin")
        assert "1 more approvals are needed" in await life.refused("grant_not_approved")
        await life.grants("approve", ALICE, "INC-9", "--by", "frank", by="frank")

        async with life.entered("grant_ended_early", "by ticketing: orders flow again"):
            await life.grants("extend", ALICE, "INC-9", "--minutes", "30")
            [row] = (await life.grants("show", ALICE, "INC-9", "--json")).json["rows"]
            assert row["state"] == "active"
            assert row["until"] < row["value"]["ends_at"], "as far as the approvals reach"
            assert life.site.gateway.live.ids(), "an extension ends nothing"
            await life.grants("end", ALICE, "INC-9", "--reason", "orders flow again")
        assert "orders flow again" in await life.refused("grant_ended_early")


@pytest.mark.parametrize(
    ("day", "early", "opens", "closes"),
    [("2030-01-07", "07:59:59", "08:00:00", "16:00:00"), ("2030-07-01", "06:59:59", "07:00:00", "15:00:00")],
    ids=["winter", "summer"],
)
async def test_a_weekly_window_opens_and_closes_by_the_clock_of_its_zone(
    opa_server: Opa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unexpected: list[Any],
    day: str, early: str, opens: str, closes: str,
) -> None:  # fmt: skip
    clock = MovedClock(monkeypatch, f"{day}T{early}Z")
    async with living(opa_server, tmp_path, approval={**TWO, "needed": 1}, max_grant_seconds=7 * 86400) as life:
        await life.request(
            "--from", f"{day}T00:00:00Z", "--until", f"{day[:8]}{int(day[8:]) + 7:02}T00:00:00Z",
            "--window", "mon-fri 09:00-17:00 Europe/Berlin",
        )  # fmt: skip
        await life.grants("approve", ALICE, "INC-9", "--by", "erin", by="erin")
        assert f"opens next at {day} {opens[:5]} UTC" in await life.refused("grant_window_closed")

        clock.to(f"{day}T{opens}Z")
        async with life.entered("grant_window_closed"):
            clock.to(f"{day}T{closes}Z")
        tomorrow = f"{day[:8]}{int(day[8:]) + 1:02} {opens[:5]} UTC"
        assert f"opens next at {tomorrow}" in await life.refused("grant_window_closed")


async def test_a_session_has_a_clock_of_its_own_for_the_end_of_its_window(
    opa_server: Opa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unexpected: list[Any]
) -> None:
    """Policy's time stands still, so no sweep can be what ends it."""
    MovedClock(monkeypatch, "2030-01-07T15:59:58Z")

    def play(terminal: Terminal) -> int:
        terminal.wait_for("the hours of your grant are over", LONG)
        return terminal.wait_end(LONG)

    async with living(opa_server, tmp_path, approval={**TWO, "needed": 1}) as life:
        await life.request(
            "--from", "2030-01-07T12:00:00Z", "--until", "2030-01-07T18:00:00Z",
            "--window", "mon 09:00-17:00 Europe/Berlin",
        )  # fmt: skip
        await life.grants("approve", ALICE, "INC-9", "--by", "erin", by="erin")
        assert await at_terminal(life.site, ALICE, play) == 254


async def test_whoever_is_on_call_is_let_in_while_they_are(
    opa_server: Opa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unexpected: list[Any]
) -> None:
    clock = MovedClock(monkeypatch, "2030-01-07T10:00:00Z")
    async with living(opa_server, tmp_path, approval=ON_CALL, max_grant_seconds=86400) as life:
        await life.request("--from", "2030-01-07T09:00:00Z", "--until", "2030-01-08T09:00:00Z")
        await life.on_duty((BOB, "2030-01-07T09:00:00Z", "2030-01-07T12:00:00Z"),
                           (ALICE, "2030-01-07T12:00:00Z", "2030-01-07T15:00:00Z"))  # fmt: skip
        told = await life.refused("grant_not_approved")
        assert "while you are on call by the rota orders, next from 2030-01-07 12:00 UTC" in told

        clock.to("2030-01-07T12:00:00Z")
        async with life.entered("grant_approval_over"):
            clock.to("2030-01-07T15:00:00Z")
        await life.refused("grant_not_approved")


# -- the walk in docs/grants.md ---------------------------------------------------------------------------------------

DOCUMENT = Path(__file__).parents[2] / "docs" / "grants.md"


def walk() -> list[tuple[str, str]]:
    """The commands of the walk, each with what it is said to print."""
    section = DOCUMENT.read_text().partition("## From a ticket to the door")[2].partition("\n## ")[0]
    [block] = re.findall(r"^```console\n(.*?)^```", section, re.M | re.S)
    return [(command, told) for command, _, told in (step.partition("\n") for step in block.split("$ ")[1:])]


def plain(text: str) -> str:
    """Without what differs from one time to the next: moments, ids, and the width of columns."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"(decision|session) [0-9a-f-]{16,36}", r"\1 ID", text)
    return "\n".join(re.sub(r"  +", "  ", line) for line in text.splitlines())


async def test_the_walk_in_the_documentation_is_what_happens(opa_server: Opa, tmp_path: Path) -> None:
    async with living(opa_server, tmp_path, approval={**TWO, "needed": 1}) as life:
        found = []
        for command, _ in walk():
            name, *words = shlex.split(command)
            if name == "ssh":
                told = await ssh(life.site, *words[1:])
                found.append((command, plain(told.stdout + told.stderr)))
            else:
                ran = await life.command(*words[1:], by="erin" if "erin" in words else "ticketing")
                found.append((command, plain(ran.out + ran.err)))

        assert found == [(command, plain(told)) for command, told in walk()]
