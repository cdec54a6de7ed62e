"""A workspace that turned against the gateway: it harms neither the gateway nor the session beside it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import String, UInt32

from gateway.ssh import raw
from tests.ssh.world import (
    ALICE,
    BOB,
    HostileBackend,
    HostileChannel,
    HostileConnection,
    resident,
    running,
    target,
)
from tests.stack.opa import Opa

MSG_OPEN, MSG_CONFIRM, MSG_ADJUST, MSG_DATA, MSG_CLOSE, MSG_REQUEST = 90, 91, 93, 94, 97, 98
EGRESS = [{"host": "db", "port": 5432, "address": {"host": "127.0.0.1", "port": 9}}]


@pytest.fixture
def opened(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> Callable[..., Any]:
    """`async with opened(script) as (site, alice, beside)`: Alice on the hostile workspace, Bob's shell beside it."""

    @asynccontextmanager
    async def opening(script: Any, egress: Any = (), session: Any = None, **attributes: Any) -> AsyncIterator[Any]:
        backend = HostileBackend(script, **attributes)
        changes = {"network": {"egress": list(egress)}, "session": session or {}}
        async with running(opa_server, tmp_path, backend, targets={"bad": target("hostile", **changes)}) as site:
            async with site.connect(BOB) as bob, site.connect() as alice:
                beside = await bob.create_process("cat")
                await echo(beside)
                yield site, alice, backend
                await echo(beside)
            await site.nothing_left()
            assert backend.running == 0

    return opening


async def echo(beside: Any) -> None:
    """The session beside still works, and soon."""
    async with asyncio.timeout(5):
        beside.stdin.write("here\n")
        assert await beside.stdout.readline() == "here\n"


async def idle(_connection: HostileConnection, _channel: HostileChannel) -> None:
    return


async def exit_7(channel: HostileChannel) -> None:
    channel.request(b"exit-status", UInt32(7))
    channel.chan.write_eof()
    channel.chan.close()


KINDS = [
    ("session", b""),
    ("direct-tcpip", String("127.0.0.1") + UInt32(22) + String("") + UInt32(0)),
    ("forwarded-tcpip", String("127.1.0.9") + UInt32(5432) + String("") + UInt32(0)),
    ("x11", String("") + UInt32(0)),
    ("auth-agent@openssh.com", b""),
    ("forwarded-streamlocal@openssh.com", String("/x") + String("")),
    ("direct-streamlocal@openssh.com", String("/x") + String("") + UInt32(0)),
    ("tun@openssh.com", UInt32(1) + UInt32(0)),
    ("channel", b""),
    ("..", b""),
]


async def test_a_channel_that_nobody_asked_for_is_refused_and_the_session_goes_on(opened: Any) -> None:
    refused: list[int] = []

    async def script(connection: HostileConnection, channel: HostileChannel) -> None:
        for kind, payload in KINDS:
            opening = asyncssh.channel.SSHTCPChannel(connection, connection._loop, None, "strict", 1000, 1000)
            try:
                await opening._open(kind.encode(), payload)
            except asyncssh.ChannelOpenError as error:
                refused.append(error.code)
        await exit_7(channel)

    async with opened(script) as (_, alice, _backend):
        assert (await alice.run("x")).exit_status == 7
    assert len(refused) == len(KINDS)


REQUESTS = [b"exec", b"shell", b"pty-req", b"signal", b"env", b"subsystem", b"window-change", b"x11-req", b"..", b""]


async def test_only_what_a_program_may_say_of_its_end_reaches_the_engineer_and_once(opened: Any) -> None:
    async def script(_connection: HostileConnection, channel: HostileChannel) -> None:
        for name in REQUESTS:
            channel.request(name, String("touch /tmp/never"), want_reply=False)
        # A client hangs up on these: they are not passed on.
        channel.request(b"exit-status", b"\x01")
        channel.request(b"exit-status", UInt32(1) + b"more")
        channel.request(b"exit-signal", b"")
        channel.request(b"xon-xoff", b"")
        channel.request(b"exit-status", UInt32(7))
        channel.request(b"exit-status", UInt32(8))
        channel.chan.close()

    async with opened(script) as (_, alice, _backend):
        ran = await alice.run("x")
        assert ran.exit_status == 7
        assert not alice.is_closed()


@pytest.mark.parametrize("count", [100_000])
async def test_a_flood_of_requests_ends_nobody_else(opened: Any, count: int) -> None:
    done = asyncio.Event()

    async def script(connection: HostileConnection, channel: HostileChannel) -> None:
        for number in range(count):
            channel.request(b"xon-xoff", b"\0", want_reply=number % 2 == 0)
            connection._send_global_request(b"keepalive@openssh.com", want_reply=False)
            if number % 500 == 0:
                await asyncio.sleep(0)
                if connection.is_closed():
                    break
        done.set()

    async with opened(script) as (site, alice, backend):
        before = resident()
        await alice.create_process("x")
        async with asyncio.timeout(60):
            await done.wait()
        assert resident() - before < 150 * 2**20
        alice.abort()
        del site, backend


def raw_packets(*packets: tuple[int, bytes]) -> Any:
    async def script(connection: HostileConnection, channel: HostileChannel) -> None:
        to = UInt32(channel.chan._send_chan)
        for kind, payload in packets:
            connection.send_packet(kind, payload.replace(b"CHAN", to))

    return script


BREACHES = {
    "data for an unknown channel": [(MSG_DATA, UInt32(77) + String(b"x"))],
    "a confirmation nobody waits for": [(MSG_CONFIRM, b"CHAN" + UInt32(1) + UInt32(1) + UInt32(1000))],
    "a reply nobody waits for": [(99, b"CHAN")],
    "close twice": [(MSG_CLOSE, b"CHAN"), (MSG_CLOSE, b"CHAN")],
    "EOF twice": [(96, b"CHAN"), (96, b"CHAN")],
    "data after EOF": [(96, b"CHAN"), (MSG_DATA, b"CHAN" + String(b"x"))],
    "another data type": [(95, b"CHAN" + UInt32(2) + String(b"x"))],
    "a truncated packet": [(MSG_DATA, b"CHAN" + UInt32(1000))],
    "an answer nobody waits for": [(81, b"")],
    "disconnect": [(1, UInt32(11) + String("\x1b]0;owned\x07 bye") + String(""))],
    "userauth": [(50, String("root") + String("ssh-connection") + String("none"))],
    "service": [(5, String("ssh-userauth"))],
}


@pytest.mark.parametrize("breach", BREACHES)
async def test_a_breach_of_the_protocol_ends_this_session_and_is_explained_and_recorded(
    opened: Any, breach: str
) -> None:
    async with opened(raw_packets(*BREACHES[breach])) as (site, alice, _):
        ran = await asyncio.wait_for(alice.run("x"), 8)
        assert ran.exit_status in (None, 254)
        assert "\x1b" not in ran.stderr
        session = site.audit("accept")[1]["session"]
        if breach not in ("close twice",):
            await asyncio.wait_for(alice.wait_closed(), 8)
            [relay] = [record for record in site.audit("relay") if record["session"] == session]
            assert relay["reasons"][0]["code"] == "workspace_gone"


async def test_a_huge_window_does_not_make_the_gateway_keep_what_the_agent_does_not_read(opened: Any) -> None:
    """The engineer sends a lot to an agent that grants every window and reads nothing."""

    async def script(connection: HostileConnection, channel: HostileChannel) -> None:
        channel.chan.send_packet(MSG_ADJUST, UInt32(2**31))
        assert connection._transport is not None
        connection._transport.pause_reading()

    async with opened(script) as (_, alice, _backend):
        process = await alice.create_process("x", encoding=None)
        await asyncio.sleep(0)
        before = resident()
        chunk = bytes(2**20)
        sent = 0
        while process.channel.get_write_buffer_size() < 2**20 and sent < 200 * 2**20:
            process.stdin.write(chunk)
            sent += len(chunk)
            await asyncio.sleep(0.002)
        assert sent < 64 * 2**20
        assert resident() - before < 48 * 2**20
        alice.abort()


async def test_answers_are_not_kept_for_an_agent_that_does_not_read(opened: Any) -> None:
    async def script(connection: HostileConnection, channel: HostileChannel) -> None:
        transport = connection._transport
        assert transport is not None
        transport.pause_reading()
        while not transport.is_closing() and not connection.is_closed():
            for _ in range(500):
                connection._send_global_request(b"x", want_reply=True)
            await asyncio.sleep(0)

    async with opened(script) as (_, alice, backend):
        await alice.create_process("x")
        await asyncio.wait_for(alice.wait_closed(), 40)
        del backend


async def test_packets_of_one_byte_are_not_written(opened: Any) -> None:
    """Each would cost a whole encryption, in the loop that all sessions share."""

    async def script(_connection: HostileConnection, _channel: HostileChannel) -> None:
        return

    async with opened(script) as (_, alice, backend):
        backend.connection_class.send_channel_open_confirmation = lambda self, to, chan, window, _size, *rest: (
            self.send_packet(MSG_CONFIRM, UInt32(to) + UInt32(chan) + UInt32(window) + UInt32(1))
        )
        ran = await asyncio.wait_for(alice.run("x"), 8)
        assert ran.exit_status == 254


async def test_a_terminal_that_said_eof_does_not_stop_the_judge_of_all(opened: Any) -> None:
    """Whoever is told something after EOF cannot be told: that must not end the sweep that judges everybody."""

    async def script(_connection: HostileConnection, channel: HostileChannel) -> None:
        channel.chan.write_eof()

    async with opened(script) as (site, alice, _):
        process = await alice.create_process("x", term_type="xterm")
        await process.stdout.read()
        site.gateway.live.say("doorward: a word to all")
        site.opa.delete(f"grants/{ALICE}/g1")
        await asyncio.wait_for(alice.wait_closed(), 8)


@pytest.mark.parametrize("answer", [b"\x1b[2Jno", False, None], ids=["refused with escapes", "refused", "never"])
async def test_setup_that_is_not_granted_is_a_workspace_that_is_not_there(
    opened: Any, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ssh.agent.SETUP_SECONDS", 0.3)
    async with opened(idle, setup_answer=answer) as (_, alice, _backend):
        ran = await asyncio.wait_for(alice.run("x"), 5)
        assert ran.exit_status == 254
        assert "workspace_unavailable" in ran.stderr
        assert "\x1b" not in ran.stderr


async def test_a_listener_that_is_never_answered_does_not_hang_the_start(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ssh.agent.SETUP_SECONDS", 0.3)
    silent = {"_process_tcpip_forward_global_request": lambda _self, _packet: None}
    async with opened(idle, egress=EGRESS, **silent) as (_, alice, _backend):
        ran = await asyncio.wait_for(alice.run("x"), 5)
        assert ran.exit_status == 254
        assert "workspace_unavailable" in ran.stderr


async def test_an_exec_that_is_never_answered_ends_by_the_idle_clock(opened: Any) -> None:
    async with opened(idle, session={"idle_seconds": 1, "warn_seconds": 0}) as (site, alice, backend):
        backend.connection_class._process_session_open = lambda *_: (_Silent(), None)
        ran = await asyncio.wait_for(alice.run("x"), 8)
        assert ran.exit_status == 254
        assert "idle" in ran.stderr
        del site


class _Silent:
    def process_open(self, *_: Any) -> None:
        """Neither confirm nor refuse."""


async def test_words_of_a_refusal_cannot_drive_the_engineers_terminal(opened: Any) -> None:
    def refuse(_self: Any, _packet: Any) -> Any:
        raise asyncssh.ChannelOpenError(2, "\x1b]0;owned\x07 no")

    async with opened(idle, _process_direct_tcpip_open=refuse) as (_, alice, _backend):
        with pytest.raises(asyncssh.ChannelOpenError) as refused:
            await alice.open_connection("127.0.0.1", 7)
        assert refused.value.code == 2
        assert "\x1b" not in refused.value.reason


async def test_a_workspace_has_a_bounded_number_of_ways_out(opened: Any) -> None:
    accepted: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0), backlog=300)
    egress = [{"host": "db", "port": 5432, "address": {"host": "127.0.0.1", "port": listener.getsockname()[1]}}]
    refused: list[int] = []

    async def script(connection: HostileConnection, channel: HostileChannel) -> None:
        payload = String("127.1.0.1") + UInt32(5432) + String("") + UInt32(0)

        async def one() -> None:
            opening = asyncssh.channel.SSHTCPChannel(connection, connection._loop, None, "strict", 1000, 1000)
            try:
                await opening._open(b"forwarded-tcpip", payload)
            except asyncssh.ChannelOpenError as error:
                refused.append(error.code)

        await asyncio.gather(*(one() for _ in range(150)))
        await exit_7(channel)

    granted = {"_process_tcpip_forward_global_request": lambda self, _packet: self._report_global_response(True)}
    with listener:
        async with opened(script, egress=egress, **granted) as (_, alice, _backend):
            assert (await alice.run("x")).exit_status == 7
    assert refused == [asyncssh.OPEN_RESOURCE_SHORTAGE] * (150 - raw.MAX_EGRESS)
    del accepted


async def test_gigabytes_to_a_client_that_reads_slowly_are_not_kept(opened: Any) -> None:
    async def script(_connection: HostileConnection, channel: HostileChannel) -> None:
        while channel.chan._send_chan is not None and not channel.chan.is_closing():
            if channel.chan.get_write_buffer_size() < 2**20:
                channel.chan.write(bytes(2**18))
            await asyncio.sleep(0)

    async with opened(script) as (_, alice, _backend):
        before = resident()
        process = await alice.create_process("x", encoding=None)
        read = 0
        for _ in range(40):
            read += len(await process.stdout.read(65536))
        assert resident() - before < 64 * 2**20
        alice.abort()


async def _silent(theirs: socket.socket) -> None:
    del theirs


async def _garbage(theirs: socket.socket) -> None:
    await asyncio.get_running_loop().sock_sendall(theirs, b"SSH-2.0-x\r\n" + os.urandom(4096))


async def _chatter(theirs: socket.socket) -> None:
    with_lines = b"hello\r\n" * 5000
    await asyncio.get_running_loop().sock_sendall(theirs, with_lines)


@pytest.mark.parametrize("stream", [_silent, _garbage, _chatter])
async def test_a_stream_that_is_no_ssh_is_a_workspace_that_is_not_there(
    opened: Any, stream: Callable[[socket.socket], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ssh.agent.HANDSHAKE_SECONDS", 0.3)
    async with opened(idle) as (_, alice, backend):
        backend.raw = stream
        ran = await asyncio.wait_for(alice.run("x"), 5)
        assert (ran.exit_status, "workspace_unavailable" in ran.stderr) == (254, True)
