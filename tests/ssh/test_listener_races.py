"""Listeners when something fails or two things meet: nothing listens that was not recorded, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_REQUEST_FAILURE, MSG_REQUEST_SUCCESS
from asyncssh.packet import String, UInt32

from gateway.audit.writer import Writer
from tests.ssh.openssh import OpenSSH, answering, listens, reversed_by
from tests.ssh.world import ALICE, Site, running, target
from tests.stack.opa import Opa, opa
from tests.waiting import until

LISTENING = {"open": target(allow={"listen": [{"host": "localhost", "port": 0}]}, session={"max_channels": 20})}
SECONDS = 30


async def global_request(connection: Any, name: str, port: int) -> tuple[int, int]:
    """The answer to a request about a listener on localhost, and the port in it."""
    kind, packet = await asyncio.wait_for(
        connection._make_global_request(name.encode(), String("localhost") + UInt32(port)), SECONDS
    )
    said = packet.get_remaining_payload()
    return kind, int.from_bytes(said, "big")


def take(connection: Any, how: Any) -> None:
    """Let the engineer's client answer what comes in with `how()`: a channel and its session."""

    class Taking(type(connection)):  # type: ignore[misc]
        def _process_forwarded_tcpip_open(self, _packet: Any) -> Any:
            return how(self)

    connection.__class__ = Taking


class Silent:
    """Neither confirms nor refuses."""

    def process_open(self, *_: Any) -> None:
        return


@asynccontextmanager
async def listening(opa_server: Opa, directory: Path, **changes: Any) -> AsyncIterator[tuple[Site, Any, int]]:
    """A site, Alice's connection, and the port that listens for her."""
    async with running(opa_server, directory, targets=LISTENING, **changes) as site:
        async with site.connect() as connection:
            kind, port = await global_request(connection, "tcpip-forward", 0)
            assert kind == MSG_REQUEST_SUCCESS
            yield site, connection, port
            connection.abort()
        await site.nothing_left(SECONDS)
    assert not listens(port)


def failing(monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    """From now on the disk is full for records of `event`."""
    append = Writer.append

    def appending(self: Writer, entries: Any) -> Any:
        if any(record["event"] == event for record, _ in entries):
            raise OSError(28, "No space left on device")
        return append(self, entries)

    monkeypatch.setattr(Writer, "append", appending)


async def test_a_listener_that_cannot_be_recorded_does_not_listen(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(opa_server, tmp_path, audit={"grace_seconds": SECONDS}) as (_, connection, port):
        failing(monkeypatch, "listener")
        assert await global_request(connection, "tcpip-forward", 0) == (MSG_REQUEST_FAILURE, 0)
        monkeypatch.undo()
        assert listening_ports(port) == [port]


def listening_ports(among: int) -> list[int]:
    """All the ports of the process that listens at `among`: the workspace's agent."""
    inodes: dict[str, int] = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            inodes[f"socket:[{fields[9]}]"] = int(fields[1].rpartition(":")[2], 16)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = [inodes[link] for fd in (process / "fd").iterdir() if (link := os.readlink(fd)) in inodes]
        except OSError:
            continue
        if among in held:
            return held
    return []


async def test_a_connection_that_cannot_be_recorded_does_not_come_in(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(opa_server, tmp_path, audit={"grace_seconds": SECONDS}) as (_, connection, port):
        received = bytearray()

        class Session(asyncssh.SSHTCPSession[bytes]):
            def data_received(self, data: bytes, _datatype: Any) -> None:
                received.extend(data)

        async def session() -> Any:
            return Session()

        def confirmed(self: Any) -> Any:
            return asyncssh.channel.SSHTCPChannel(self, self._loop, None, "strict", 1000, 1000), session()

        take(connection, confirmed)
        failing(monkeypatch, "arrival")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"secret")
        assert await read_to_the_end(reader) == b""
        writer.close()
        assert not received
        monkeypatch.undo()


@pytest.mark.parametrize("gone", ["OPA", "the audit log"])
async def test_what_is_cancelled_is_gone_whoever_does_not_answer(
    tmp_path: Path, unexpected: list[Any], monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    with opa(tmp_path / "own-opa") as server:
        async with listening(server, tmp_path, audit={"grace_seconds": SECONDS}) as (_, connection, port):
            if gone == "OPA":
                server.process.end()
            else:
                failing(monkeypatch, "gone")
            kind, _ = await global_request(connection, "cancel-tcpip-forward", port)
            assert kind == MSG_REQUEST_FAILURE
            assert not listens(port)
            monkeypatch.undo()
            if gone == "OPA":
                assert (await global_request(connection, "tcpip-forward", 0))[0] == MSG_REQUEST_FAILURE


@pytest.mark.parametrize("end", ["the engineer leaves", "the grant is withdrawn", "the workspace is killed"])
async def test_a_client_that_does_not_answer_what_comes_in_holds_up_nothing(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], end: str
) -> None:
    async with listening(opa_server, tmp_path) as (site, connection, port):
        taken: list[Any] = []

        def silent(_self: Any) -> Any:
            taken.append(Silent())
            return taken[-1], None

        take(connection, silent)
        waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(70)]
        await until(lambda: len(taken) == 50, SECONDS)  # and the others were refused
        assert (await asyncio.wait_for(connection.run("echo on"), SECONDS)).stdout == "on\n"
        match end:
            case "the grant is withdrawn":
                site.opa.delete(f"grants/{ALICE}/g1")
                await asyncio.wait_for(connection.wait_closed(), SECONDS)
            case "the workspace is killed":
                [workspace] = site.backend._running.values()
                os.kill(int(workspace.id), signal.SIGKILL)
                await asyncio.wait_for(connection.wait_closed(), SECONDS)
            case _:
                connection.abort()
        for reader, writer in waiting:
            assert await read_to_the_end(reader) == b""
            writer.close()


async def read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), SECONDS)
    except ConnectionError:
        return b""


async def test_listeners_alone_are_a_session_that_ends_with_its_grant(
    opa_server: Opa, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, unexpected: list[Any]
) -> None:
    """`ssh -N -R`: no channel is ever opened, so the listener asks for the permit."""
    async with running(opa_server, tmp_path, targets=LISTENING) as site, answering() as answer:
        options = ("-N", "-R", f"0:127.0.0.1:{answer}", "-o", "ExitOnForwardFailure=yes")
        async with OpenSSH(site, tmp_path_factory.mktemp("s")).started(options=options) as client:
            port = int((await client.says("Allocated port")).split()[2])
            assert await reversed_by(*await asyncio.open_connection("127.0.0.1", port), b"stressed") == b"desserts"
            assert [r["input"]["request"]["kind"] for r in site.audit("config")] == ["tcpip-forward"]
            site.opa.delete(f"grants/{ALICE}/g1")
            status, _, said = await client.end()
            assert status != 0
            assert "grant_deleted: " in said  # there is no program to tell it to
        await site.nothing_left(SECONDS)
        assert not listens(port)
    [relay] = site.audit("relay")
    assert relay["reasons"][0]["code"] == "grant_deleted"


async def test_a_listener_before_its_session_leaves_the_permit_to_it(
    opa_server: Opa, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, unexpected: list[Any]
) -> None:
    """`ssh -R` asks for the listener first; the session is where one can be told things, and asked for a target."""
    async with running(opa_server, tmp_path, targets=LISTENING) as site:
        client = OpenSSH(site, tmp_path_factory.mktemp("s"))
        status, out, _ = await client.run("echo on", options=("-R", "0:127.0.0.1:9", "-o", "ExitOnForwardFailure=yes"))
        assert (status, out) == (0, "on\n")
        assert [r["input"]["request"]["kind"] for r in site.audit("config")] == ["session"]
