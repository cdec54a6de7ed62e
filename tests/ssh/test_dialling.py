"""A workspace's ways out from the gateway on: a server that speaks first is heard, and Redis is logged in to or not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncssh
import pytest
from pydantic import SecretStr

from gateway.deliveries import CredentialSpec, RedisDelivery
from gateway.model import Address, Lease
from gateway.ssh import dialling
from tests.ssh.world import running, target
from tests.stack.opa import Opa
from tests.stack.process import free_port
from tests.stack.redis import Redis, redis
from tests.stack.require import require

GREETING = b"x" * 200_000
PASSWORD = "s3cret-of-redis"


def lease(username: str = "default", password: str = PASSWORD, tls_name: str | None = None) -> Lease:
    deliver = RedisDelivery(kind="redis", host="cache", port=6379, tls_name=tls_name)
    spec = CredentialSpec(name="cache", issuer="vault", role="r", ttl_seconds=60, deliver=deliver)
    return Lease(spec, "id", username, SecretStr(password), datetime.now(UTC))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    require("redis-server", "redis-cli")
    with redis(tmp_path_factory.mktemp("redis")) as started:
        yield started


@asynccontextmanager
async def saying(words: bytes, *, and_ends: bool) -> AsyncIterator[Address]:
    """A server that says this to whoever connects, before it has heard anything."""

    speaking: set[asyncio.Task[None]] = set()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        speaking.add(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(OSError):  # hung up on
            writer.write(words)
            await writer.drain()
            if not and_ends:
                await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listening:
        yield Address(host="127.0.0.1", port=listening.sockets[0].getsockname()[1])
        await asyncio.gather(*speaking)


async def test_a_server_that_speaks_first_is_heard_whole_also_when_it_hangs_up_at_once(
    opa_server: Opa, tmp_path: Path
) -> None:
    port = free_port()
    async with saying(GREETING, and_ends=True) as where:
        way = {"host": "talker", "port": port, "address": where.model_dump()}
        async with (
            running(opa_server, tmp_path, targets={"plain": target(network={"egress": [way]})}) as site,
            site.connect() as connection,
        ):
            for _ in range(20):
                ran = await connection.run(f"bash -c 'cat </dev/tcp/127.1.0.1/{port} | wc -c'")
                assert str(ran.stdout).strip() == str(len(GREETING)), ran.stderr


@pytest.mark.parametrize("name", ["a..b", "a" * 64 + ".example", "a\0b"])
async def test_a_name_that_no_host_can_have_is_a_refusal(name: str) -> None:
    with pytest.raises(asyncssh.ChannelOpenError):
        await dialling.dialled(Address(host=name, port=5432), None)


@pytest.mark.parametrize(
    "words", [b"-WRONGPASS no\r\n", b"+OK\r\n+more\r\n", b"+OKAY\r\n", b"HTTP/1.1 200\r\n", b"y" * 4096]
)
async def test_whoever_does_not_grant_the_login_is_hung_up_on_and_not_quoted(words: bytes) -> None:
    async with saying(words, and_ends=False) as where:
        with pytest.raises(asyncssh.ChannelOpenError) as refused:
            await dialling.dialled(where, lease())
    assert str(refused.value) == "Redis refused the login"


async def test_a_server_that_hangs_up_or_is_silent_or_is_not_there_is_a_refusal_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dialling, "LOGIN_SECONDS", 0.3)
    async with saying(b"", and_ends=True) as ends, saying(b"", and_ends=False) as hangs:
        for where in (ends, hangs, Address(host="127.0.0.1", port=free_port())):
            began = time.monotonic()
            with pytest.raises(asyncssh.ChannelOpenError):
                await dialling.dialled(where, lease())
            assert time.monotonic() - began < 30


async def test_redis_takes_the_right_password_and_no_other_and_nothing_is_left_open(server: Redis) -> None:
    where = Address(host=server.host, port=server.port)
    await asyncio.to_thread(server.command, "ACL", "SETUSER", "alice", "on", "+@all", "~*", ">a b\r\n$1")
    try:
        (await dialling.dialled(where, lease("alice", "a b\r\n$1"))).close()
        with pytest.raises(asyncssh.ChannelOpenError):
            await dialling.dialled(where, lease("alice", "a b"))

        def clients() -> int:
            return len(server.command("CLIENT", "LIST").splitlines())

        deadline = time.monotonic() + 30
        while await asyncio.to_thread(clients) > 1:  # the one that asks
            assert time.monotonic() < deadline
    finally:
        await asyncio.to_thread(server.command, "ACL", "DELUSER", "alice")
