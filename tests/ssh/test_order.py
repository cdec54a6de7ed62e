"""What is had at once and what waits: credentials beside workspace and agent, and nothing starts before all are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.audit.writer import Writer
from gateway.credentials import Leases
from gateway.credentials.vault import NoLeases
from gateway.errors import CredentialsUnavailable
from gateway.model import CredentialSpec, Holder, Lease
from tests.ssh.world import Site, agents, running, target
from tests.stack.opa import Opa
from tests.waiting import until

CREDENTIAL = {
    "name": "orders", "issuer": "slow", "role": "reader", "ttl_seconds": 60,
    "deliver": {"host": "127.0.0.1", "port": 5432, "dbname": "orders"},
}  # fmt: skip


class Slow:
    """An issuer that issues when the test says so, or refuses then."""

    name = "slow"

    def __init__(self) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.error: CredentialsUnavailable | None = None
        self.held = 0

    @asynccontextmanager
    async def lease(self, credentials: Sequence[CredentialSpec], holder: Holder) -> AsyncIterator[Leases]:
        self.asked.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        leases = NoLeases()
        leases.items = [
            Lease(spec, "lease-1", "v-alice", SecretStr("hunter2"), datetime.now(UTC) + timedelta(minutes=1))
            for spec in credentials
        ]
        self.held += 1
        try:
            yield leases
        finally:
            self.held -= 1

    async def check(self) -> None:
        return


@pytest.fixture
async def issued(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> AsyncIterator[tuple[Site, Slow]]:
    issuer = Slow()
    async with running(opa_server, tmp_path, targets={"paid": target(credentials=[CREDENTIAL])}) as site:
        site.gateway.front._sessions._issuers = {issuer.name: issuer}
        yield site, issuer
        issuer.go.set()
        await site.nothing_left()
        assert issuer.held == 0


def events(site: Site) -> list[str]:
    return [record["event"] for record in site.audit()]


async def test_workspace_and_agent_are_had_while_credentials_are_issued_and_nothing_starts_before_all(
    issued: tuple[Site, Slow], tmp_path: Path
) -> None:
    site, issuer = issued
    started = tmp_path / "started"
    async with site.connect() as connection:
        running_now = asyncio.ensure_future(connection.run(f"touch {started}; env | grep ^PG"))
        await issuer.asked.wait()
        await until(lambda: "agent" in events(site) and len(site.audit("request")) == 2)  # the channel, the program
        assert not {"lease", "relay"} & set(events(site))
        assert not started.exists()
        assert not running_now.done()
        issuer.go.set()
        assert "PGSERVICE=orders" in str((await running_now).stdout)
    await until(lambda: "relay" in events(site))
    order = events(site)
    assert order.index("config") < min(order.index("workspace"), order.index("lease"))
    assert order.index("workspace") < order.index("agent") < order.index("lease") < order.index("relay")
    assert "hunter2" not in (tmp_path / "state" / "audit.jsonl").read_text()


async def test_credentials_that_are_not_to_be_had_take_the_agent_along_and_say_why(
    issued: tuple[Site, Slow], tmp_path: Path
) -> None:
    site, issuer = issued
    issuer.error = CredentialsUnavailable("the issuer is on strike", code="on_strike")
    async with site.connect() as connection:
        running_now = asyncio.ensure_future(connection.run(f"touch {tmp_path / 'started'}"))
        await until(lambda: "agent" in events(site))
        assert agents(site.backend) == 1
        issuer.go.set()
        ran = await running_now
        assert ran.exit_status == 254
        assert "on_strike: the issuer is on strike" in str(ran.stderr)
    await until(lambda: not agents(site.backend))
    assert "relay" not in events(site)
    assert not (tmp_path / "started").exists()


async def test_a_lease_that_cannot_be_recorded_is_not_delivered(
    issued: tuple[Site, Slow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, issuer = issued
    append = Writer.append

    def full(self: Writer, entries: Any) -> Any:
        if any(record["event"] == "lease" and record["outcome"] == "ok" for record, _ in entries):
            raise OSError(28, "No space left on device")
        return append(self, entries)

    async with site.connect() as connection:
        running_now = asyncio.ensure_future(connection.run(f"touch {tmp_path / 'started'}"))
        await until(lambda: "agent" in events(site))
        monkeypatch.setattr(Writer, "append", full)
        issuer.go.set()
        ran = await running_now
        assert ran.exit_status == 254
        assert "audit" in str(ran.stderr)
    monkeypatch.undo()
    await until(lambda: not agents(site.backend) and issuer.held == 0)
    assert not (tmp_path / "started").exists()


async def test_who_leaves_while_credentials_are_issued_leaves_no_agent(issued: tuple[Site, Slow]) -> None:
    site, _ = issued
    async with site.connect() as connection:
        running_now = asyncio.ensure_future(connection.run("true"))
        await until(lambda: "agent" in events(site))
        connection.abort()
        await asyncio.gather(running_now, return_exceptions=True)
    await until(lambda: not agents(site.backend) and not site.gateway.live.ids())
    assert "lease" not in [record["event"] for record in site.audit() if record["outcome"] == "ok"]
