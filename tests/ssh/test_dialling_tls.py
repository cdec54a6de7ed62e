"""Redis within TLS, from the gateway on: whoever does not prove the permit's name is told nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
import uvloop

from gateway.errors import SettingsError
from gateway.model import Address
from gateway.settings import RedisSettings
from gateway.ssh import dialling
from gateway.ssh.host import reaching
from gateway.trust import trusting
from tests.policy.test_opa import certificates
from tests.ssh.test_dialling import PASSWORD, lease
from tests.stack.redis import Redis, redis
from tests.stack.require import require
from tests.waiting import until

Files = tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Files) -> Iterator[Redis]:
    require("redis-server", "redis-cli")
    with redis(tmp_path_factory.mktemp("redis"), pair=authority[1:]) as started:
        yield started


class Heard(asyncssh.SSHForwarder):
    """The workspace's side, in place of its channel."""

    def __init__(self) -> None:
        super().__init__()
        self.words = bytearray()
        self.ended = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.words += data

    def write_eof(self) -> None:
        """It ends with the connection."""

    def close(self) -> None:
        self.ended.set()


def trusted(authority: Files) -> ssl.SSLContext:
    return trusting(authority[0], "redis")


async def converses(server: Redis, tls: ssl.SSLContext) -> None:
    where = Address(host=server.host, port=server.tls_port)
    own = lease(password=server.password_file.read_text(), tls_name="server.test")
    near = await dialling.dialled(where, own, tls)
    far, heard = near._peer, Heard()
    assert isinstance(far, dialling._Far)
    far.set_peer(heard)
    far.go_on(heard)
    value = "x" * 300_000
    far.write(dialling._command("ECHO", value))
    await until(lambda: bytes(heard.words) == f"$300000\r\n{value}\r\n".encode())
    far.write(dialling._command("QUIT"))
    await until(heard.ended.is_set)
    assert heard.words.endswith(b"+OK\r\n")


async def test_redis_is_spoken_to_within_tls(server: Redis, authority: Files, caplog: pytest.LogCaptureFixture) -> None:
    await converses(server, trusted(authority))
    assert not caplog.records


def test_and_under_uvloop(server: Redis, authority: Files) -> None:
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(converses(server, trusted(authority)))
    finally:
        loop.close()


async def test_a_workspace_that_hangs_up_leaves_no_connection(server: Redis, authority: Files) -> None:
    own = lease(password=server.password_file.read_text(), tls_name="server.test")

    async def clients() -> int:
        return len((await asyncio.to_thread(server.command, "CLIENT", "LIST")).splitlines())

    near = await dialling.dialled(Address(host=server.host, port=server.tls_port), own, trusted(authority))
    assert await clients() == 2
    assert near._peer is not None
    near._peer.write_eof()  # as when a client half-closes
    async with asyncio.timeout(30):
        while await clients() > 1:  # the one that asks
            continue


@pytest.mark.parametrize("fault", ["another name", "another authority", "no TLS there", "none spoken here"])
async def test_whoever_does_not_prove_the_name_is_sent_no_password(
    authority: Files, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls: ssl.SSLContext | None = trusted(authority)
    if fault == "another authority":
        tls = trusted(certificates(tmp_path))
    elif fault == "none spoken here":
        tls = None
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            heard.extend(await reader.read(65536))
            writer.write(b"+OK\r\n")
        writer.close()

    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(*authority[1:])
    there = None if fault == "no TLS there" else own
    name = "other.test" if fault == "another name" else "server.test"
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=there) as listening:
        where = Address(host="127.0.0.1", port=listening.sockets[0].getsockname()[1])
        with pytest.raises(asyncssh.ChannelOpenError):
            await dialling.dialled(where, lease(tls_name=name), tls)
    assert b"AUTH" not in heard
    assert PASSWORD.encode() not in heard


@pytest.mark.parametrize("content", [None, "no certificate\n"])
def test_an_authority_that_cannot_be_read_is_told_by_its_setting(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match=r"redis\.ca_file: .*ca\.pem"):
        reaching(RedisSettings(ca_file=file))
