"""A client, or a workspace, that speaks SFTP in bad faith: its channel ends with a reason, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gateway.ssh.sftp.packets import (
    MAX_PACKET,
    Attributes,
    Kind,
    Packet,
    Reader,
    Splitter,
    Status,
    packet,
    status,
    string,
)
from tests.ssh.delay import delaying
from tests.ssh.files import Wire, serving
from tests.ssh.test_hostile_agent import echo
from tests.ssh.world import ALICE, BOB, HostileBackend, HostileChannel, HostileConnection, resident, running, target
from tests.stack.opa import Opa
from tests.waiting import SECONDS, until

HELLO = packet(Kind.INIT, 3)
NONSENSE: dict[str, tuple[bool, bytes]] = {
    "a packet of no length": (True, b"\0\0\0\0"),
    "a packet that is too long": (True, (MAX_PACKET + 1).to_bytes(4, "big")),
    "an unknown kind": (True, b"\0\0\0\5\x63\0\0\0\0"),
    "an answer": (True, status(1, Status.OK)),
    "a second INIT": (True, HELLO),
    "a path longer than its packet": (True, packet(Kind.STAT, 1, b"\xff\xff\xff\xff")),
    "more than it says": (True, packet(Kind.STAT, 1, string(b"/x"), b"more")),
    "flags of another version": (True, packet(Kind.OPEN, 1, string(b"/x"), b"\0\0\1\0", Attributes().encoded())),
    "a handle that is too long": (True, packet(Kind.CLOSE, 1, string(b"h" * 300))),
    "a shell's prompt": (False, b"GET / HTTP/1.1\r\n\r\n"),
    "a request before INIT": (False, packet(Kind.STAT, 1, string(b"/x"))),
    "version 2": (False, packet(Kind.INIT, 2)),
}


async def test_nonsense_of_a_client_ends_its_channel_with_a_reason_and_no_other(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with serving(opa_server, tmp_path, judged=True) as files, files.site.connect() as connection:
        beside = await connection.start_sftp_client()
        for note, (greet, nonsense) in NONSENSE.items():
            process: Any = await connection.create_process(subsystem="sftp", encoding=None)
            wire = Wire(process)
            if greet:
                wire.send(HELLO)
                assert (await wire.receive()).kind is Kind.VERSION
            wire.send(nonsense)
            exit_status, told = await wire.ended()
            assert exit_status == 254, note
            assert b"doorward: sftp_malformed: the client does not speak SFTP version 3" in told, note
            assert await beside.stat("note"), note


# -- the workspace -----------------------------------------------------------------------------------------------------

Answer = Callable[[Packet], bytes]


def speaking(
    answer: Answer, version: bytes = packet(Kind.VERSION, 3, string(b"resolve@doorward"), string(b"1"))
) -> Any:
    """An agent whose file service answers each packet by `answer`."""

    async def script(_connection: HostileConnection, channel: HostileChannel) -> None:
        splitter = Splitter()
        while not channel.chan.is_closing():
            splitter.feed(bytes(channel.received))
            channel.received.clear()
            while (one := splitter.next()) is not None:
                channel.chan.write(version if one.kind is Kind.INIT else answer(one))
            await asyncio.sleep(0.002)

    return script


def resolved(asked: Packet, name: bytes = b"/tmp/x") -> bytes:
    return packet(Kind.NAME, asked.id, (1).to_bytes(4, "big"), string(name), string(b""), Attributes().encoded())


def then(answer: Answer) -> Answer:
    """Resolves as it should, and answers the rest by `answer`."""
    return lambda asked: resolved(asked) if asked.kind is Kind.EXTENDED else answer(asked)


ALL = {"read": ["/**"], "write": ["/**"]}
FAULTS: dict[str, Any] = {
    "another number": speaking(then(lambda asked: packet(Kind.ATTRS, asked.id + 1, Attributes().encoded()))),
    "twice": speaking(then(lambda asked: 2 * packet(Kind.ATTRS, asked.id, Attributes().encoded()))),
    "a handle for attributes": speaking(then(lambda asked: packet(Kind.HANDLE, asked.id, string(b"h")))),
    "a success without attributes": speaking(then(lambda asked: status(asked.id, Status.OK))),
    "a request": speaking(then(lambda asked: packet(Kind.OPEN, asked.id, string(b"/x"), bytes(8)))),
    "a packet without an end": speaking(then(lambda asked: b"\xff\xff\xff\xff")),
    "an unknown kind": speaking(then(lambda asked: b"\0\0\0\5\x63\0\0\0\0")),
    "two canonical names": speaking(
        lambda asked: packet(Kind.NAME, asked.id, (2).to_bytes(4, "big"), *[string(b"/a"), string(b""), bytes(4)] * 2)
    ),
    "version 6": speaking(then(lambda asked: b""), packet(Kind.VERSION, 6)),
    "no version": speaking(then(lambda asked: b""), status(3, Status.OK)),
    "no resolving": speaking(then(lambda asked: b""), packet(Kind.VERSION, 3)),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_file_service_that_breaks_the_protocol_ends_its_channel_alone(
    fault: str, opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    its = target("hostile", allow={"sftp": ALL})
    async with running(opa_server, tmp_path, HostileBackend(FAULTS[fault]), targets={"bad": its}) as site:
        async with site.connect(BOB) as bob, site.connect() as alice:
            beside = await bob.create_process("cat")
            await echo(beside)
            process: Any = await alice.create_process(subsystem="sftp", encoding=None)
            process.stdin.write(HELLO + packet(Kind.STAT, 1, string(b"/tmp/x")))
            done = await asyncio.wait_for(process.wait(), SECONDS)
            assert done.exit_status == 254
            assert b"doorward: workspace_unavailable: the workspace's file service" in bytes(done.stderr)
            await echo(beside)
            assert (await alice.create_process("x")) is not None  # its connection has not ended
        await site.nothing_left()


async def tried(
    answer: Answer, rules: Any, work: Callable[[asyncssh.SFTPClient], Awaitable[Any]], opa: Opa, at: Path
) -> Any:
    """What a client gets of a workspace that answers so; and what policy was asked."""
    its = target("hostile", allow={"sftp": rules})
    async with running(opa, at, HostileBackend(speaking(answer)), targets={"bad": its}) as site:
        try:
            async with site.connect() as alice:
                got = await work(await alice.start_sftp_client())  # not closed: such an agent never ends its side
        except asyncssh.SFTPError as error:
            got = error
        await site.nothing_left()
        asked = [record["input"]["request"] for record in site.audit("request")]
        return got, [request.get("path") for request in asked if request["kind"] == "sftp"]


async def test_a_lie_about_a_name_is_judged_as_the_name_it_says(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    """The agent is asked to open what was judged: it gains nothing that it had not, and the client nothing at all."""
    opened: list[Packet] = []

    def lying(asked: Packet) -> bytes:
        if asked.kind is Kind.EXTENDED:
            return resolved(asked, b"/forbidden")
        opened.append(asked)
        return status(asked.id, Status.FAILURE)

    rules = {"read": ["/tmp/**"], "write": []}
    got, asked = await tried(lying, rules, lambda client: client.stat("/tmp/x"), opa_server, tmp_path)
    assert isinstance(got, asyncssh.SFTPPermissionDenied)
    assert asked == ["/forbidden"]
    assert not opened


async def test_a_listing_cannot_make_a_client_write_elsewhere(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    def answer(asked: Packet) -> bytes:
        if asked.kind is Kind.OPENDIR:
            return packet(Kind.HANDLE, asked.id, string(b"h"))
        return packet(
            Kind.NAME, asked.id, (1).to_bytes(4, "big"), string(b"../evil"), string(b""), Attributes().encoded()
        )

    got, _ = await tried(then(answer), ALL, lambda client: client.listdir("/tmp"), opa_server, tmp_path)
    assert isinstance(got, asyncssh.SFTPError)


async def test_a_flood_of_a_file_service_is_not_kept(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    """It sends without end, of one packet that never ends: what is kept is one packet."""
    sent = 0

    async def script(_connection: HostileConnection, channel: HostileChannel) -> None:
        nonlocal sent
        await until(lambda: len(channel.received) > 0)
        channel.chan.write(packet(Kind.VERSION, 3, string(b"resolve@doorward"), string(b"1")))
        while not channel.chan.is_closing() and sent < 200:
            channel.chan.write((MAX_PACKET).to_bytes(4, "big") + bytes([Kind.DATA]) + bytes(MAX_PACKET - 1))
            sent += 1
            await asyncio.sleep(0.001)

    its = target("hostile", allow={"sftp": True})
    before = resident()
    async with running(opa_server, tmp_path, HostileBackend(script), targets={"bad": its}) as site:
        async with site.connect() as alice:
            process: Any = await alice.create_process(subsystem="sftp", encoding=None)
            process.stdin.write(HELLO)
            assert (await asyncio.wait_for(process.wait(), SECONDS)).exit_status == 254
        assert resident() - before < 60 * 2**20
        await site.nothing_left()


async def test_what_a_file_service_says_on_stderr_is_not_shown(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async def script(_connection: HostileConnection, channel: HostileChannel) -> None:
        await until(lambda: len(channel.received) > 0)
        channel.chan.write_stderr(b"\x1b]0;doorward: type your password\x07")
        channel.chan.write(packet(Kind.VERSION, 3))
        channel.request(b"exit-status", bytes(4))
        channel.chan.write_eof()
        channel.chan.close()

    its = target("hostile", allow={"sftp": True})
    async with running(opa_server, tmp_path, HostileBackend(script), targets={"bad": its}) as site:
        async with site.connect() as alice:
            process: Any = await alice.create_process(subsystem="sftp", encoding=None)
            process.stdin.write(HELLO)
            done = await asyncio.wait_for(process.wait(), SECONDS)
            assert bytes(done.stderr) == b""
        await site.nothing_left()


async def test_a_client_that_leaves_in_the_middle_of_everything_leaves_nothing(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with serving(opa_server, tmp_path, judged=True) as files:
        for number in range(10):
            connection: Any = await asyncssh.connect("127.0.0.1", files.site.port, **files.site.options())
            process: Any = await connection.create_process(subsystem="sftp", encoding=None)
            process.stdin.write(HELLO + b"".join(_many(number)))
            if number % 2:
                await process.stdout.read(1)
            connection.abort()
        await files.site.nothing_left()
        async with files.client() as client:
            assert await client.stat("note")


def _many(number: int) -> list[bytes]:
    opening = (0b11010).to_bytes(4, "big") + Attributes().encoded()
    return [
        *[packet(Kind.OPEN, each, string(b"f%d" % each), opening) for each in range(30)],
        *[packet(Kind.STAT, each, string(b"note")) for each in range(30)],
        packet(Kind.WRITE, 99, string(number.to_bytes(8, "big")), bytes(8), string(bytes(100_000))),
    ]


@pytest.mark.parametrize("end", ["workspace", "grant", "client"])
async def test_whatever_ends_while_a_decision_and_a_transfer_are_under_way_leaves_nothing(
    end: str, opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with (
        delaying(opa_server) as (url, gate),
        serving(opa_server, tmp_path, judged=True, policy={"url": url}) as files,
    ):
        site = files.site
        async with Wire.opened(files) as wire:
            wire.send(packet(Kind.OPEN, 1, string(b"f"), (0b11010).to_bytes(4, "big"), Attributes().encoded()))
            handle = Reader((await wire.receive()).body).string()
            wire.send(packet(Kind.WRITE, 2, string(handle), bytes(8), string(b"abc")))
            assert (await wire.receive()).kind is Kind.STATUS
            gate.close()
            wire.send(*[packet(Kind.REMOVE, number, string(b"note")) for number in range(3, 30)])
            await gate.waiting()
            match end:
                case "workspace":
                    [session] = site.gateway.live.ids()
                    await site.backend.kill(session)
                case "grant":
                    site.opa.delete(f"grants/{ALICE}/g1")
                    await until(lambda: any(record["outcome"] == "end" for record in site.audit("live")))
                case "client":
                    wire.process.channel.close()
            gate.open()
            await asyncio.wait_for(wire.process.wait_closed(), SECONDS)
        await site.nothing_left()
        cut = [one["bytes_written"] for one in await files.all_operations() if one["outcome"] == "cut"]
        assert cut == [3]
        # One decision was on its way; of what waited behind it nothing was asked any more.
        assert len([one for one in files.asked() if one["operation"] == "remove"]) <= 2
