"""The short way of channel data: taken for bulk, left for everything else, and never at the price of a byte."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from typing import Any

import asyncssh
import pytest
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_CHANNEL_DATA
from asyncssh.packet import String, UInt32

from gateway.ssh.bounds import Bounded
from gateway.ssh.express import Express
from gateway.ssh.raw import GateConnection
from tests.ssh.world import Site
from tests.waiting import SECONDS, until

SIZE = 24 * 2**20
GCM: dict[str, Any] = {"encryption_algs": ["aes128-gcm@openssh.com"]}
"""asyncssh's client would put another first, and its order decides; OpenSSH's is offered no other."""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many packets of data the gateway took and sent the short way, and how many packets asyncssh took itself."""
    found: Counter[str] = Counter()

    def counting(cls: type, name: str, when: Any) -> None:
        inner = getattr(cls, name)

        def outer(self: Any, *args: Any) -> Any:
            answer = inner(self, *args)
            found[name] += bool(isinstance(self, Bounded) and when(answer))
            return answer

        monkeypatch.setattr(cls, name, outer)

    counting(Express, "_deliver", bool)
    counting(Express, "send_data", bool)
    counting(SSHConnection, "_recv_packet", bool)
    return found


async def test_bulk_takes_the_short_way_both_ways(site: Site, counted: Counter[str]) -> None:
    data = random.Random(1).randbytes(SIZE)
    async with site.connect(**GCM) as connection:
        ran = await connection.run("cat", input=data, encoding=None)
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(data).digest()  # type: ignore[arg-type]
    packets = 2 * SIZE // 32768  # at most 32 KiB each, there and back
    assert counted["_deliver"] >= packets
    assert counted["send_data"] >= packets
    assert counted["_recv_packet"] < packets // 2 + 100  # asyncssh's client sends an MSG_IGNORE before each of its own


async def test_requests_between_data_keep_their_place(site: Site) -> None:
    """A status that overtook the output, or output behind its EOF, would be lost."""
    async with site.connect(**GCM) as connection:
        for size in (1, 4095, 4096, 32768, 32769, 3 * 2**20 + 7):
            ran = await connection.run(f"head -c {size} /dev/zero; exit 7", encoding=None)
            assert (len(ran.stdout or b""), ran.exit_status) == (size, 7)


@pytest.mark.parametrize("what", ["a wrong tag", "an unknown channel", "a length beyond the end", "beyond the window"])
async def test_what_is_out_of_order_is_for_asyncssh_to_refuse(site: Site, what: str) -> None:
    async with site.connect(**GCM) as connection:
        process = await connection.create_process("echo on; sleep 60", encoding=None)
        assert await process.stdout.readexactly(3) == b"on\n"
        channel: Any = process.channel
        number = UInt32(channel._send_chan)
        match what:
            case "a wrong tag":
                cipher: Any = connection._send_encryption
                cipher._cipher._iv = bytes(12)
                channel.send_packet(MSG_CHANNEL_DATA, String(b"y"))
            case "an unknown channel":
                connection.send_packet(MSG_CHANNEL_DATA, UInt32(99), String(b"y"))
            case "a length beyond the end":
                connection.send_packet(MSG_CHANNEL_DATA, number, UInt32(2**31), b"y")
            case _:
                for _ in range(80):  # the program reads nothing, so nothing makes room
                    channel.send_packet(MSG_CHANNEL_DATA, String(bytes(2**15 * 3)))
        with pytest.raises((asyncssh.DisconnectError, ConnectionError)):
            await asyncio.wait_for(_lost(connection), SECONDS)
    await site.nothing_left()
    async with site.connect(**GCM) as again:
        assert (await again.run("echo ok")).stdout == "ok\n"


async def _lost(connection: asyncssh.SSHClientConnection) -> None:
    await connection.wait_closed()
    raise ConnectionError("closed")


async def test_a_client_that_reads_nothing_stops_its_source(site: Site) -> None:
    async with site.connect(**GCM) as connection:
        process = await connection.create_process("cat /dev/zero", encoding=None)
        await process.stdout.readexactly(1)
        transport: Any = connection._transport
        transport.pause_reading()
        [gate] = [c for c in _gates() if c._transport is not None]
        await until(lambda: gate.choked or all(not chan._send_window for chan in gate._channels.values()))
        assert gate._transport is not None
        assert gate._transport.get_write_buffer_size() + sum(map(len, gate._outbox)) < 2**20
        transport.resume_reading()
        assert len(await process.stdout.readexactly(8 * 2**20)) == 8 * 2**20


def _gates() -> list[GateConnection]:
    import gc

    return [one for one in gc.get_objects() if type(one) is GateConnection]
