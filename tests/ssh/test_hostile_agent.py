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

from gateway.ssh import inside, ledger, raw
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
from tests.waiting import SECONDS, until

MSG_OPEN, MSG_CONFIRM, MSG_ADJUST, MSG_DATA, MSG_CLOSE, MSG_REQUEST = 90, 91, 93, 94, 97, 98
EGRESS = [{"host": "db", "port": 5432, "address": {"host": "127.0.0.1", "port": 9}}]


@pytest.fixture
def opened(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> Callable[..., Any]:
    """`async with opened(script) as (site, alice, beside)`: Alice on the hostile workspace, Bob's shell beside it."""

    @asynccontextmanager
    async def opening(
        script: Any, egress: Any = (), session: Any = None, allow: Any = None, **attributes: Any
    ) -> AsyncIterator[Any]:
        backend = HostileBackend(script, **attributes)
        changes = {"network": {"egress": list(egress)}, "session": session or {}, "allow": allow or {}}
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
    async with asyncio.timeout(SECONDS):
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


async def refusals(connection: HostileConnection) -> list[int]:
    """What each kind of channel was refused with, that was opened and not asked for."""
    refused = []
    for kind, payload in KINDS:
        opening = asyncssh.channel.SSHTCPChannel(connection, connection._loop, None, "strict", 1000, 1000)
        try:
            await opening._open(kind.encode(), payload)
        except asyncssh.ChannelOpenError as error:
            refused.append(error.code)
    return refused


async def test_a_channel_that_nobody_asked_for_is_refused_and_the_session_goes_on(opened: Any) -> None:
    refused: list[int] = []

    async def script(connection: HostileConnection, channel: HostileChannel) -> None:
        refused.extend(await refusals(connection))
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
        ran = await asyncio.wait_for(alice.run("x"), 30)
        assert ran.exit_status in (None, 254)
        assert "\x1b" not in ran.stderr
        session = site.audit("accept")[1]["session"]
        if breach not in ("close twice",):
            await asyncio.wait_for(alice.wait_closed(), 30)
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
        await asyncio.wait_for(alice.wait_closed(), 120)
        del backend


async def test_packets_of_one_byte_are_not_written(opened: Any) -> None:
    """Each would cost a whole encryption, in the loop that all sessions share."""

    async def script(_connection: HostileConnection, _channel: HostileChannel) -> None:
        return

    async with opened(script) as (_, alice, backend):
        backend.connection_class.send_channel_open_confirmation = lambda self, to, chan, window, _size, *rest: (
            self.send_packet(MSG_CONFIRM, UInt32(to) + UInt32(chan) + UInt32(window) + UInt32(1))
        )
        ran = await asyncio.wait_for(alice.run("x"), 30)
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
        await asyncio.wait_for(alice.wait_closed(), 30)


@pytest.mark.parametrize("answer", [b"\x1b[2Jno", False, None], ids=["refused with escapes", "refused", "never"])
async def test_setup_that_is_not_granted_is_a_workspace_that_is_not_there(
    opened: Any, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ssh.agent.SETUP_SECONDS", 0.3)
    async with opened(idle, setup_answer=answer) as (_, alice, _backend):
        ran = await asyncio.wait_for(alice.run("x"), SECONDS)
        assert ran.exit_status == 254
        assert "workspace_unavailable" in ran.stderr
        assert "\x1b" not in ran.stderr


async def test_a_listener_that_is_never_answered_does_not_hang_the_start(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ssh.agent.SETUP_SECONDS", 0.3)
    silent = {"_process_tcpip_forward_global_request": lambda _self, _packet: None}
    async with opened(idle, egress=EGRESS, **silent) as (_, alice, _backend):
        ran = await asyncio.wait_for(alice.run("x"), SECONDS)
        assert ran.exit_status == 254
        assert "workspace_unavailable" in ran.stderr


async def test_an_exec_that_is_never_answered_ends_by_the_idle_clock(opened: Any) -> None:
    async with opened(idle, session={"idle_seconds": 1, "warn_seconds": 0}) as (site, alice, backend):
        backend.connection_class._process_session_open = lambda *_: (_Silent(), None)
        ran = await asyncio.wait_for(alice.run("x"), 30)
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
    assert refused == [asyncssh.OPEN_RESOURCE_SHORTAGE] * (150 - inside.MAX_EGRESS)
    del accepted


GRANTING = {
    "_process_tcpip_forward_global_request": lambda self, packet: _granted(self, packet),
    "_process_cancel_tcpip_forward_global_request": lambda self, _packet: self._report_global_response(True),
    "_process_streamlocal_forward_at_openssh_dot_com_global_request": lambda self, _packet: (
        self._report_global_response(True)
    ),
}
"""An agent that says that it listens wherever it is asked to; on port 40000 where it may choose."""
LISTENING = {
    "x11": True, "agent": True, "listen": [{"host": "localhost", "port": port} for port in (0, 8080, 8081)],
    "sockets": {"listen": ["/tmp/mine"]},
}  # fmt: skip


def _granted(agent: HostileConnection, packet: Any) -> None:
    packet.get_string()
    agent._report_global_response(UInt32(40000) if packet.get_uint32() == 0 else True)


async def arrive(agent: HostileConnection, kind: str, payload: bytes = b"") -> int:
    """Open a channel as a listener would: 0 once it is confirmed, else the code of the refusal."""
    opening = asyncssh.channel.SSHTCPChannel(agent, agent._loop, None, "strict", 1000, 1000)
    try:
        await opening._open(kind.encode(), payload)
    except asyncssh.ChannelOpenError as error:
        return error.code
    return 0


def to_port(port: int, host: str = "localhost", originator: str = "127.0.0.1") -> bytes:
    return String(host) + UInt32(port) + String(originator) + UInt32(7)


def counting(connection: Any, kinds: list[str], code: int = 0) -> None:
    """Let the engineer's client confirm every channel that is opened towards it, or refuse with `code`."""

    class Taking(type(connection)):  # type: ignore[misc]
        def _process_forwarded(self, packet: Any, kind: str) -> Any:
            kinds.append(kind)
            if code:
                raise asyncssh.ChannelOpenError(code, "\x1b]0;no\x07")

            async def session() -> Any:
                return asyncssh.SSHTCPSession()

            return raw.RawChannel(self, lambda *_: False), session()

    for name in ("forwarded_tcpip", "x11", "auth_agent_at_openssh_dot_com", "forwarded_streamlocal_at_openssh_dot_com"):
        setattr(Taking, f"_process_{name}_open", lambda self, packet, name=name: self._process_forwarded(packet, name))
    connection.__class__ = Taking


async def global_request(connection: Any, name: str, payload: bytes) -> tuple[int, bytes]:
    kind, packet = await asyncio.wait_for(connection._make_global_request(name.encode(), payload), SECONDS)
    return kind, packet.get_remaining_payload()


PROHIBITED = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED


async def test_a_listener_is_what_was_granted_and_still_stands_whatever_the_agent_says(opened: Any) -> None:
    kinds: list[str] = []
    async with opened(idle, allow=LISTENING, **GRANTING) as (site, alice, backend):
        counting(alice, kinds)
        await alice.create_process("x")
        [agent] = [one for one in backend.connections if not one.is_closed()]
        assert await arrive(agent, "forwarded-tcpip", to_port(8080)) == PROHIBITED
        assert await global_request(alice, "tcpip-forward", String("localhost") + UInt32(8080)) == (81, b"")
        assert await global_request(alice, "tcpip-forward", String("localhost") + UInt32(0)) == (81, UInt32(40000))
        mine = String("/tmp/mine")
        assert await global_request(alice, "streamlocal-forward@openssh.com", mine) == (81, b"")
        for kind, payload, code in [
            ("forwarded-tcpip", to_port(8080), 0),
            ("forwarded-tcpip", to_port(40000), 0),
            ("forwarded-tcpip", to_port(8081), PROHIBITED),  # the target would allow it, and nobody asked
            ("forwarded-tcpip", to_port(0), PROHIBITED),
            ("forwarded-tcpip", to_port(8080, "127.0.0.1"), PROHIBITED),
            ("forwarded-tcpip", to_port(8080, originator="\x1b]0;owned\x07"), asyncssh.OPEN_CONNECT_FAILED),
            ("forwarded-tcpip", to_port(8080) + b"more", asyncssh.OPEN_CONNECT_FAILED),
            ("forwarded-streamlocal@openssh.com", mine + String(""), 0),
            ("forwarded-streamlocal@openssh.com", String("/tmp/other") + String(""), PROHIBITED),
            ("forwarded-streamlocal@openssh.com", b"", asyncssh.OPEN_CONNECT_FAILED),
            ("x11", String("127.0.0.1") + UInt32(7), PROHIBITED),
            ("auth-agent@openssh.com", b"", PROHIBITED),
        ]:
            assert await arrive(agent, kind, payload) == code, (kind, payload)
        assert kinds == ["forwarded_tcpip"] * 2 + ["forwarded_streamlocal_at_openssh_dot_com"]
        # Cancelled, it is gone at once, also if the agent listens on.
        cancel = await global_request(alice, "cancel-tcpip-forward", String("localhost") + UInt32(40000))
        assert cancel == (81, b"")
        assert await arrive(agent, "forwarded-tcpip", to_port(40000)) == PROHIBITED
        again = await global_request(alice, "cancel-tcpip-forward", String("localhost") + UInt32(40000))
        assert again == (82, b"")
        assert await arrive(agent, "forwarded-tcpip", to_port(8080)) == 0
        # With the grant goes everything, and nothing comes in while the engineer reads why.
        assert len([r for r in site.audit("arrival") if r["outcome"] == "ok"]) == 4
        site.opa.delete(f"grants/{ALICE}/g1")
        await asyncio.wait_for(alice.wait_closed(), SECONDS)


async def test_an_agent_that_lies_about_where_it_listens_gets_nobody_elses_place(opened: Any) -> None:
    replies: list[Any] = []
    lying = {**GRANTING, "_process_tcpip_forward_global_request": lambda self, _: _say(self, replies)}
    egress = [{"host": "db", "port": 5432, "address": {"host": "127.0.0.1", "port": 9}}]
    replies.append(True)  # to the way out
    allow = {"listen": [{"host": host, "port": 0} for host in ("127.1.0.1", "localhost")]}
    async with opened(idle, egress=egress, allow=allow, **lying) as (_, alice, backend):
        counting(alice, [])
        await alice.create_process("x")
        for host, reply, code in [
            ("127.1.0.1", UInt32(5432), 82),  # the way out's own
            ("localhost", UInt32(40000), 81),
            ("localhost", UInt32(40000), 82),  # that of the one before
            ("localhost", UInt32(0), 82), ("localhost", UInt32(70000), 82), ("localhost", b"", 82),
            ("localhost", b"xyz", 82), ("localhost", UInt32(40001) + b"x", 82), ("localhost", False, 82),
        ]:  # fmt: skip
            replies.append(reply)
            answer, _ = await global_request(alice, "tcpip-forward", String(host) + UInt32(0))
            assert answer == code, (host, reply)
        [agent] = [one for one in backend.connections if not one.is_closed()]
        assert await arrive(agent, "forwarded-tcpip", to_port(40000)) == 0
        assert await arrive(agent, "forwarded-tcpip", to_port(40001)) == PROHIBITED


def _say(agent: HostileConnection, replies: list[Any]) -> None:
    reply = replies.pop(0)
    if reply == b"":
        agent.send_packet(81)
        agent._global_request_queue.pop(0)
    else:
        agent._report_global_response(reply)


async def test_ways_back_of_a_program_are_its_own_and_a_single_one_is_single(opened: Any) -> None:
    kinds: list[str] = []

    def session(self: Any, _packet: Any) -> Any:
        async def end() -> Any:
            return asyncssh.SSHTCPSession()

        return raw.RawChannel(self, lambda *_: True), end()

    origin = String("127.0.0.1") + UInt32(7)
    cookie = String("MIT-MAGIC-COOKIE-1") + String("5a" * 16) + UInt32(0)
    async with opened(idle, allow=LISTENING, _process_session_open=session) as (site, alice, backend):
        counting(alice, kinds)
        once, many, spare = (_client_channel(alice) for _ in range(3))
        for channel in (once, many, spare):
            await channel._open(b"session")
        assert await once._make_request(b"x11-req", b"\1" + cookie) is True
        [agent] = [one for one in backend.connections if not one.is_closed()]
        assert [await arrive(agent, "x11", origin) for _ in range(3)] == [0, PROHIBITED, PROHIBITED]
        assert await many._make_request(b"x11-req", b"\0" + cookie) is True
        assert await many._make_request(b"auth-agent-req@openssh.com") is True
        assert [await arrive(agent, "x11", origin) for _ in range(3)] == [0, 0, 0]
        assert await arrive(agent, "x11", b"") == asyncssh.OPEN_CONNECT_FAILED
        assert await arrive(agent, "auth-agent@openssh.com", b"x") == asyncssh.OPEN_CONNECT_FAILED
        assert await arrive(agent, "auth-agent@openssh.com") == 0
        for payload in (b"", b"\0" + cookie + b"x", b"\0" + String("M") + String("no hex") + UInt32(0)):
            assert await many._make_request(b"x11-req", payload) is False
        # One that is good for a single connection is kept for when there is no other.
        assert await spare._make_request(b"x11-req", b"\1" + cookie) is True
        assert await arrive(agent, "x11", origin) == 0
        many.close()
        await asyncio.wait_for(many.wait_closed(), SECONDS)
        assert [await arrive(agent, "x11", origin) for _ in range(2)] == [0, PROHIBITED]
        assert await arrive(agent, "auth-agent@openssh.com") == PROHIBITED
        assert "5a" * 16 not in (site.directory / "state" / "audit.jsonl").read_text()
    assert kinds.count("x11") == 6
    assert kinds.count("auth_agent_at_openssh_dot_com") == 1


def _client_channel(connection: asyncssh.SSHClientConnection) -> Any:
    return asyncssh.channel.SSHTCPChannel(connection, connection._loop, None, "strict", 2**21, 32768)


async def test_nothing_comes_in_before_its_listener_is_granted_nor_when_it_is_refused(opened: Any) -> None:
    """The agent sends a connection before it answers that it listens, and then that it does not."""
    kinds: list[str] = []
    arrivals: list[asyncio.Task[int]] = []

    def hasty(agent: HostileConnection, _packet: Any) -> None:
        async def answer() -> None:
            arrivals.append(asyncio.ensure_future(arrive(agent, "forwarded-tcpip", to_port(8080))))
            await until(lambda: agent._channels)
            agent._report_global_response(False)

        agent.create_task(answer())

    hasty_one = {"_process_tcpip_forward_global_request": hasty}
    async with opened(idle, allow=LISTENING, **hasty_one) as (site, alice, _backend):
        counting(alice, kinds)
        assert await global_request(alice, "tcpip-forward", String("localhost") + UInt32(8080)) == (82, b"")
        assert await arrivals[0] == PROHIBITED
        assert not kinds
        assert [r["outcome"] for r in site.audit("listener")] == ["failed"]


async def test_what_was_cancelled_while_the_client_took_its_time_does_not_come_in(opened: Any) -> None:
    async with opened(idle, allow=LISTENING, **GRANTING) as (_, alice, backend):
        offered, confirmed = asyncio.Event(), asyncio.Event()

        class Slow(type(alice)):  # type: ignore[misc]
            def _process_forwarded_tcpip_open(self, _packet: Any) -> Any:
                async def session() -> Any:
                    offered.set()
                    await confirmed.wait()
                    return asyncssh.SSHTCPSession()

                return raw.RawChannel(self, lambda *_: False), session()

        alice.__class__ = Slow
        place = String("localhost") + UInt32(8080)
        assert await global_request(alice, "tcpip-forward", place) == (81, b"")
        [agent] = [one for one in backend.connections if not one.is_closed()]
        arriving = asyncio.ensure_future(arrive(agent, "forwarded-tcpip", to_port(8080)))
        await asyncio.wait_for(offered.wait(), SECONDS)
        assert await global_request(alice, "cancel-tcpip-forward", place) == (81, b"")
        confirmed.set()
        assert await asyncio.wait_for(arriving, SECONDS) == PROHIBITED


async def test_what_the_client_refuses_is_refused_inside_with_its_words_made_harmless(opened: Any) -> None:
    async with opened(idle, allow=LISTENING, **GRANTING) as (site, alice, backend):
        counting(alice, [], code=asyncssh.OPEN_RESOURCE_SHORTAGE)
        assert await global_request(alice, "tcpip-forward", String("localhost") + UInt32(8080)) == (81, b"")
        [agent] = [one for one in backend.connections if not one.is_closed()]
        opening = asyncssh.channel.SSHTCPChannel(agent, agent._loop, None, "strict", 1000, 1000)
        with pytest.raises(asyncssh.ChannelOpenError) as refused:
            await opening._open(b"forwarded-tcpip", to_port(8080))
        assert (refused.value.code, "\x1b" in refused.value.reason) == (asyncssh.OPEN_RESOURCE_SHORTAGE, False)
        assert [r["outcome"] for r in site.audit("arrival")] == ["refused"]


async def test_listeners_and_what_comes_in_there_are_bounded_and_cost_no_channel_of_the_engineers(opened: Any) -> None:
    ports = range(9000, 9000 + ledger.MAX_LISTENERS + 1)
    places = [{"host": "localhost", "port": port} for port in ports]
    async with opened(idle, allow={"listen": places}, **GRANTING) as (site, alice, backend):
        kinds: list[str] = []
        counting(alice, kinds)
        answers = [
            (await global_request(alice, "tcpip-forward", String("localhost") + UInt32(port)))[0] for port in ports
        ]
        assert answers == [81] * ledger.MAX_LISTENERS + [82]
        assert site.audit("listener")[-1]["reasons"][0]["code"] == "too_many_listeners"
        [agent] = [one for one in backend.connections if not one.is_closed()]
        each = ledger.MAX_PER_LISTENER + 5
        first = await asyncio.gather(*(arrive(agent, "forwarded-tcpip", to_port(9000)) for _ in range(each)))
        assert sorted(first) == [0] * ledger.MAX_PER_LISTENER + [asyncssh.OPEN_RESOURCE_SHORTAGE] * 5
        others = [
            await arrive(agent, "forwarded-tcpip", to_port(9001 + number % 3)) for number in range(ledger.MAX_ARRIVALS)
        ]
        assert others.count(0) == ledger.MAX_ARRIVALS - ledger.MAX_PER_LISTENER
        assert len(kinds) == ledger.MAX_ARRIVALS
        # The engineer's own channels are counted for themselves.
        await alice.create_process("x")


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


MALFORMED = b"SSH-2.0-x\r\n" + UInt32(28) + bytes([10, 20]) + bytes(26)
"""An SSH server whose first packet is a KEXINIT that ends in the middle of a list."""


async def _silent(theirs: socket.socket) -> None:
    del theirs


async def _garbage(theirs: socket.socket) -> None:
    await asyncio.get_running_loop().sock_sendall(theirs, b"SSH-2.0-x\r\n" + os.urandom(4096))


async def _chatter(theirs: socket.socket) -> None:
    with_lines = b"hello\r\n" * 5000
    await asyncio.get_running_loop().sock_sendall(theirs, with_lines)


async def _malformed(theirs: socket.socket) -> None:
    await asyncio.get_running_loop().sock_sendall(theirs, MALFORMED)


@pytest.mark.parametrize("stream", [_silent, _garbage, _chatter, _malformed])
async def test_a_stream_that_is_no_ssh_is_a_workspace_that_is_not_there(
    opened: Any, stream: Callable[[socket.socket], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ssh.agent.HANDSHAKE_SECONDS", 0.3)
    async with opened(idle) as (_, alice, backend):
        backend.raw = stream
        ran = await asyncio.wait_for(alice.run("x"), SECONDS)
        assert (ran.exit_status, "workspace_unavailable" in ran.stderr) == (254, True)
