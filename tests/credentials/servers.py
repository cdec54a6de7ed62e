"""MariaDB and Redis as the issuer contract wants to look at them: what is issued by Vault, as its roles say."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from gateway.contracts.issuer import TTL_SECONDS, Cut
from gateway.credentials.delivery import delivery
from gateway.deliveries import MysqlDelivery, RedisDelivery
from gateway.model import CredentialSpec, Lease
from tests.stack.mariadb import DATABASE, MariaDb
from tests.stack.redis import Redis
from tests.stack.vault import Vault


class FromVault:
    """What both have in common: the superuser of Vault takes leases away, which the session's token then cannot renew.

    Vault asks neither engine at a renewal, so a user that is dropped in the server itself is not noticed.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def take_away(self, lease: Lease) -> None:
        body = {"lease_id": lease.lease_id, "sync": True}
        await asyncio.to_thread(self._vault.client().adapter.put, "/v1/sys/leases/revoke", json=body)


class MariaDatabase(FromVault):
    def __init__(self, vault: Vault, server: MariaDb) -> None:
        super().__init__(vault)
        self._server = server

    def credential(self, *, ttl_seconds: int = TTL_SECONDS, role: str = "") -> CredentialSpec:
        deliver = MysqlDelivery(kind="mysql", host=self._server.host, port=self._server.port, dbname=DATABASE)
        role = role or "stock-readonly"
        return CredentialSpec(name="stock", issuer="vault", role=role, ttl_seconds=ttl_seconds, deliver=deliver)

    async def roles(self) -> set[str]:
        query = "SELECT user FROM mysql.user WHERE user LIKE 'v-%'"
        return set((await asyncio.to_thread(self._server.sql, query)).split())

    async def connected(self, lease: Lease) -> MysqlClient:
        client = MysqlClient(lease)
        await client.start()
        return client


class MysqlClient:
    """The stock `mysql`, on the files that a workspace gets and without an argument that says where or who."""

    def __init__(self, lease: Lease) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="doorward-mysql-")
        made = delivery([lease], self._home.name)
        for file in made.files:
            Path(file.path).write_bytes(file.data)
        self._env = {**os.environ, **made.env}

    async def start(self) -> None:
        self._process = await self._client("--unbuffered", stdin=asyncio.subprocess.PIPE)
        try:
            await self.read()
        except BaseException:
            await self.close()
            raise

    async def read(self) -> None:
        assert await self._answer("SELECT COUNT(*) FROM items") == "3"

    async def write(self) -> list[str]:
        statements = (
            "DELETE FROM items", "CREATE TABLE mine (x INT)", "CREATE USER friend", "SELECT user FROM mysql.user",
            "CALL doorward.end_user('v-other')", "GRANT SELECT ON stock.* TO doorward_issuer@'%'",
        )  # fmt: skip
        return [statement for statement in statements if not await self._is_denied(statement)]

    async def hang(self) -> None:
        await self._answer("SELECT SLEEP(60)")
        await self.read()

    async def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._home.cleanup()

    async def _answer(self, statement: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{statement};\n".encode())
            line = await self._process.stdout.readline()
        except OSError as error:
            raise Cut(str(error)) from error
        if not line:
            raise Cut("mysql has ended")
        return line.decode().strip()

    async def _is_denied(self, statement: str) -> bool:
        client = await self._client("-e", statement)
        _, said = await client.communicate()
        return client.returncode == 1 and b"denied" in said

    async def _client(self, *words: str, stdin: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "mysql", "--batch", "--skip-column-names", *words, env=self._env, stdin=stdin,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip


class RedisDatabase(FromVault):
    def __init__(self, vault: Vault, server: Redis) -> None:
        super().__init__(vault)
        self._server = server

    def credential(self, *, ttl_seconds: int = TTL_SECONDS, role: str = "") -> CredentialSpec:
        deliver = RedisDelivery(kind="redis", host=self._server.host, port=self._server.port)
        role = role or "cache-readonly"
        return CredentialSpec(name="cache", issuer="vault", role=role, ttl_seconds=ttl_seconds, deliver=deliver)

    async def roles(self) -> set[str]:
        users = await asyncio.to_thread(self._server.command, "ACL", "USERS")
        return {user for user in users.split() if user.startswith("V_")}

    async def connected(self, lease: Lease) -> RedisConnection:
        reader, writer = await asyncio.open_connection(self._server.host, self._server.port)
        connection = RedisConnection(reader, writer)
        if await connection.ask(f"AUTH {lease.username} {lease.password.get_secret_value()}") != "+OK":
            await connection.close()
            raise Cut("not let in")
        return connection


class RedisConnection:
    """Commands in a line, of which the first line of the answer is enough."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> None:
        assert await self.ask("STRLEN stock:lamp") == ":2"

    async def write(self) -> list[str]:
        commands = (
            "SET stock:lamp 0", "GET other:lamp", "ACL SETUSER friend on", "ACL LIST", "CONFIG GET *", "KEYS *",
            "CLIENT LIST", "PUBLISH news x", "EVAL return 0",
        )  # fmt: skip
        return [command for command in commands if not (await self.ask(command)).startswith("-NOPERM")]

    async def hang(self) -> None:
        await self.ask("XREAD BLOCK 60000 STREAMS stock:stream $")

    async def close(self) -> None:
        self._writer.close()

    async def ask(self, command: str) -> str:
        try:
            self._writer.write(f"{command}\r\n".encode())
            line = await self._reader.readline()
        except OSError as error:
            raise Cut(str(error)) from error
        if not line:
            raise Cut("Redis has hung up")
        return line.decode().strip()
