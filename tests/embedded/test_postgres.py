"""The embedded PostgreSQL: there on enter, gone on exit, and well after any crash."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from gateway.embedded.children import ChildUnavailable
from gateway.embedded.postgres import EmbeddedPostgres, postgres
from tests.waiting import until, within


async def count(running: EmbeddedPostgres) -> int:
    connection = await asyncpg.connect(running.dsn().get_secret_value())
    try:
        return int(await connection.fetchval("SELECT count(*) FROM orders"))
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


async def test_it_holds_orders_and_the_next_start_is_quick_and_at_the_same_address(state: Path) -> None:
    async with postgres(state) as first:
        assert await count(first) == 4
        second = first
    async with AsyncExitStack() as stack:

        async def started() -> None:
            nonlocal second
            await stack.aclose()
            second = await stack.enter_async_context(postgres(state))

        await within(3, started)
        assert second.port == first.port
        assert await count(second) == 4
    assert not Path(f"/proc/{second.child.pid}").exists()


async def test_every_login_needs_its_password(state: Path) -> None:
    async with postgres(state) as running:
        for user in ("postgres", "doorward_issuer"):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(
                    host=running.host, port=running.port, user=user, password="wrong", database="orders"
                )
        connection = await asyncpg.connect(running.issuer_dsn().get_secret_value())
        assert await connection.fetchval("SELECT NOT rolsuper FROM pg_roles WHERE rolname = current_user")
        await connection.close()
        connection = await asyncpg.connect(running.dsn().get_secret_value())
        stored = await connection.fetch("SELECT rolpassword FROM pg_authid")
        await connection.close()
        assert all(row[0] is None or row[0].startswith("SCRAM-SHA-256$") for row in stored)
    for file in (running.superuser_file, running.issuer_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_it_listens_on_loopback_alone_and_not_as_root(state: Path) -> None:
    async with postgres(state) as running:
        status = Path(f"/proc/{running.child.pid}/status").read_text()
        connection = await asyncpg.connect(running.dsn().get_secret_value())
        assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
        assert await connection.fetchval("SHOW unix_socket_directories") == ""
        await connection.close()
    assert next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1] != "0"


async def test_leaving_cuts_connections_and_does_not_wait_for_them(state: Path) -> None:
    began = 0.0
    async with postgres(state) as running:
        connection = await asyncpg.connect(running.dsn().get_secret_value())
        began = time.monotonic()
    assert time.monotonic() - began < running.child.command.stop_seconds, "it was asked, not killed"
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")


async def test_it_does_not_outlive_a_gateway_that_is_killed_and_its_data_is_well(state: Path) -> None:
    script = f"""
import asyncio
from pathlib import Path
from gateway.embedded.postgres import postgres
async def main():
    async with postgres(Path({str(state)!r})) as running:
        print(running.child.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    gateway = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert gateway.stdout is not None
    pid = int(await gateway.stdout.readline())
    gateway.kill()
    await gateway.wait()
    await until(lambda: not Path(f"/proc/{pid}").exists())
    async with postgres(state) as running:
        assert await count(running) == 4


async def test_it_recovers_when_everything_is_killed_at_once(state: Path) -> None:
    async with postgres(state) as running:
        connection = await asyncpg.connect(running.dsn().get_secret_value())
        await connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 1 AS x")
        os.kill(running.child.pid, signal.SIGKILL)
        await running.child.wait_ended()
    async with postgres(state) as running:
        connection = await asyncpg.connect(running.dsn().get_secret_value())
        assert await connection.fetchval("SELECT x FROM kept") == 1
        await connection.close()


async def test_data_of_a_version_that_is_not_here_is_told(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "data").mkdir(parents=True)
    (tmp_path / "postgres" / "data" / "PG_VERSION").write_text("99\n")
    with pytest.raises(ChildUnavailable, match="PostgreSQL 99 is not here"):
        async with postgres(tmp_path):
            pass
