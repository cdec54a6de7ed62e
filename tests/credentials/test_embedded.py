"""The embedded issuer on the embedded PostgreSQL: the whole contract, and what is its own: sweeping, SCRAM, honesty."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.assets import folder
from gateway.contracts.issuer import Cut, IssuerContract, Outage, holder
from gateway.contracts.postgres import PostgresConnection, PostgresDatabase
from gateway.credentials.embedded import EmbeddedIssuer, scram_verifier
from gateway.deliveries import CredentialSpec, FileDelivery, RedisDelivery, SecretFile, StaticSecret
from gateway.embedded.postgres import EmbeddedPostgres, postgres
from gateway.errors import CredentialsUnavailable
from gateway.sections import SecretRef
from gateway.settings import EmbeddedIssuerSettings
from tests.waiting import eventually, within


class Server(PostgresDatabase):
    """The embedded PostgreSQL, asked as its superuser."""

    def __init__(self, running: EmbeddedPostgres) -> None:
        super().__init__(running.host, running.port)
        self.running = running

    async def ask(self, query: str) -> list[str]:
        connection = await asyncpg.connect(self.running.dsn().get_secret_value())
        try:
            return [str(row[0]) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    async def roles(self) -> set[str]:
        return set(await self.ask("SELECT rolname FROM pg_roles WHERE rolname LIKE 'dw-%'"))

    async def run(self, statement: str) -> None:
        connection = await asyncpg.connect(self.running.dsn().get_secret_value())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def log(self) -> str:
        return (self.running.issuer_file.parent / "postgres.log").read_text()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept for the module: only the first test pays for initdb."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture
async def database(state: Path) -> AsyncIterator[Server]:
    async with postgres(state) as running:
        server = Server(running)
        for name in await server.roles():
            await server.run(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')
        yield server


@pytest.fixture
def issuer(database: Server) -> EmbeddedIssuer:
    roles = folder("secrets") / "vault" / "database"
    return EmbeddedIssuer(EmbeddedIssuerSettings(dsn=SecretRef(file=database.running.issuer_file), roles=roles))


@pytest.fixture
def outage(database: Server) -> Outage:
    async def down() -> None:
        os.kill(database.running.child.pid, signal.SIGQUIT)
        await database.running.child.wait_ended()

    return down


class TestEmbedded(IssuerContract):
    pass


async def test_a_server_that_hangs_is_refused_within_two_seconds(issuer: EmbeddedIssuer, database: Server) -> None:
    async def refused() -> None:
        with pytest.raises(CredentialsUnavailable):
            await issuer.lease([database.credential()], holder()).__aenter__()

    pid = database.running.child.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        await within(2, refused)
    finally:
        os.kill(pid, signal.SIGCONT)

    async def is_clean() -> bool:
        return await database.roles() == set()

    assert await eventually(is_clean)


async def test_the_sweep_ends_expired_roles_of_ours_and_their_connections_and_nothing_else(
    issuer: EmbeddedIssuer, database: Server
) -> None:
    past, future = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (-60, 60))
    ours, living, other = "dw-alice-s-1-0123456789ab", "dw-bob-s-2-0123456789ab", "dw-reporting"
    issuing = await asyncpg.connect(database.running.issuer_dsn().get_secret_value())
    for name in (ours, living, other):
        await issuing.execute(f"""CREATE ROLE "{name}" LOGIN PASSWORD 'x' VALID UNTIL '{future}' IN ROLE readers""")
    left = await asyncpg.connect(host=database.host, port=database.port, user=ours, password="x", database="orders")
    for name in (ours, other):
        await issuing.execute(f"""ALTER ROLE "{name}" VALID UNTIL '{past}'""")
    await issuing.close()

    assert await issuer.sweep() == [ours]
    with pytest.raises(Cut):
        await PostgresConnection(left).read()
    assert await database.roles() == {living, other}


async def test_the_sweeper_sweeps_at_once_and_again(issuer: EmbeddedIssuer, database: Server) -> None:
    sweeping = asyncio.ensure_future(issuer.keep_swept(every=0.02))

    async def is_clean() -> bool:
        return await database.roles() == set()

    try:
        for number in range(2):
            name = f"dw-alice-s-{number}-0123456789ab"
            issuing = await asyncpg.connect(database.running.issuer_dsn().get_secret_value())
            await issuing.execute(f"""CREATE ROLE "{name}" VALID UNTIL '2020-01-01'""")
            await issuing.close()
            assert await eventually(is_clean)
    finally:
        sweeping.cancel()
        await asyncio.wait([sweeping])


async def test_the_server_never_sees_a_password(issuer: EmbeddedIssuer, database: Server) -> None:
    await database.run("ALTER SYSTEM SET log_statement = 'all'")
    await database.run("SELECT pg_reload_conf()")
    try:
        async with issuer.lease([database.credential()], holder()) as leases:
            await (await database.connected(leases.items[0])).close()
            password = leases.items[0].password.get_secret_value()
            name = leases.items[0].username

        async def is_logged() -> bool:
            return f'CREATE ROLE "{name}"' in database.log()

        assert await eventually(is_logged)
        assert password not in database.log()
    finally:
        await database.run("ALTER SYSTEM RESET log_statement")


REDIS = RedisDelivery(kind="redis", host="cache", port=6379)
KEPT = StaticSecret(mount="kv", path="a")
A_FILE = FileDelivery(kind="file", files=(SecretFile(path="a"),))


@pytest.mark.parametrize("other", [{"role": "orders-readonly", "deliver": REDIS}, {"secret": KEPT, "deliver": A_FILE}])
async def test_what_is_not_of_postgresql_is_refused_and_nothing_is_made(
    issuer: EmbeddedIssuer, database: Server, other: dict[str, Any]
) -> None:
    spec = CredentialSpec(name="other", issuer="embedded", ttl_seconds=5, **other)
    with pytest.raises(CredentialsUnavailable) as caught:
        await issuer.lease([database.credential(), spec], holder()).__aenter__()
    assert caught.value.reasons[0].code == "credential_kind_unknown"
    assert await database.roles() == set()


async def test_names_say_who_and_fit(issuer: EmbeddedIssuer, database: Server) -> None:
    long = replace(holder("session-0123456789"), person="a" * 200)
    async with issuer.lease([database.credential()], long) as leases:
        assert leases.items[0].username.startswith(f"dw-{'a' * 32}-session-0123")
        assert await database.roles() == {leases.items[0].username}


async def test_a_role_that_may_not_issue_is_told_so(database: Server, tmp_path: Path) -> None:
    await database.run("CREATE ROLE weak LOGIN PASSWORD 'x'; GRANT CONNECT ON DATABASE orders TO weak")
    file = tmp_path / "dsn"
    file.write_text(f"postgresql://weak:x@{database.host}:{database.port}/orders")
    try:
        with pytest.raises(CredentialsUnavailable) as caught:
            await EmbeddedIssuer(EmbeddedIssuerSettings(dsn=SecretRef(file=file), roles=tmp_path)).check()
        assert "pg_signal_backend" in caught.value.reasons[0].remedy
    finally:
        await database.run("DROP OWNED BY weak; DROP ROLE weak")


def test_a_verifier_is_salted() -> None:
    assert scram_verifier("x") != scram_verifier("x")
    assert scram_verifier("x").startswith("SCRAM-SHA-256$4096:")
