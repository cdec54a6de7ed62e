"""PostgreSQL as the issuer contract wants to look at it: a role `READONLY`, in the group `readers` of `orders`."""

from __future__ import annotations

import asyncpg

from gateway.contracts.issuer import TTL_SECONDS, Cut
from gateway.deliveries import PostgresDelivery
from gateway.model import CredentialSpec, Lease

READONLY = "orders-readonly"
_ENDED = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


class PostgresDatabase:
    """A `Database`; what is particular to one server is in `roles` and `run`."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def credential(self, *, ttl_seconds: int = TTL_SECONDS, role: str = "") -> CredentialSpec:
        deliver = PostgresDelivery(host=self.host, port=self.port, dbname="orders")
        return CredentialSpec(
            name="orders", issuer="issuer", role=role or READONLY, ttl_seconds=ttl_seconds, deliver=deliver
        )

    async def roles(self) -> set[str]:
        raise NotImplementedError

    async def run(self, statement: str) -> None:
        raise NotImplementedError

    async def connected(self, lease: Lease) -> PostgresConnection:
        try:
            connection = await asyncpg.connect(
                host=self.host,
                port=self.port,
                database="orders",
                user=lease.username,
                password=lease.password.get_secret_value(),
            )
        except _ENDED as error:
            raise Cut(str(error)) from error
        return PostgresConnection(connection)

    async def take_away(self, lease: Lease) -> None:
        await self.run(f'DROP OWNED BY "{lease.username}"; DROP ROLE "{lease.username}"')


class PostgresConnection:
    """A `Connection`."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def read(self) -> None:
        await self._run("SELECT count(*) FROM orders")

    async def write(self) -> list[str]:
        await self._connection.execute("SET default_transaction_read_only = off")
        statements = ("DELETE FROM orders", "CREATE TABLE mine (x int)", "CREATE ROLE friend")
        return [statement for statement in statements if not await self._is_denied(statement)]

    async def _is_denied(self, statement: str) -> bool:
        try:
            await self._connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            return True
        return False

    async def hang(self) -> None:
        await self._run("SELECT pg_sleep(60)")

    async def close(self) -> None:
        self._connection.terminate()

    async def _run(self, statement: str) -> None:
        try:
            await self._connection.execute(statement)
        except _ENDED as error:
            raise Cut(str(error)) from error
