"""Nothing that a client can send gets through undecided: each message of the table in `protocol.py`, sent for real."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_REQUEST_FAILURE, MSG_REQUEST_SUCCESS
from asyncssh.packet import String, UInt32

from tests.ssh.openssh import answering
from tests.ssh.protocol import HOST, ORIGIN, PORT, ROWS, SOCKET, Fate, Row, Sent, rendered
from tests.ssh.world import Site, running, target
from tests.stack.opa import Opa
from tests.waiting import SECONDS, until

OPEN = {
    "shell": True, "exec": True, "sftp": True, "agent": True, "x11": True, "env": ["*"],
    "forwards": [{"host": HOST, "port": PORT}],
    "listen": [{"host": "localhost", "port": 0}],
    "sockets": {"connect": [SOCKET], "listen": [SOCKET]},
}  # fmt: skip
CLOSED = {**dict.fromkeys(("shell", "exec", "sftp"), False), "env": [], "forwards": []}
MSG_UNIMPLEMENTED, MSG_PING = 3, 192


@pytest.mark.parametrize(("allow", "outcome"), [(OPEN, "allow"), (CLOSED, "deny")], ids=["allowed", "not allowed"])
async def test_every_message_is_decided_and_recorded_or_refused_by_name(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], allow: dict[str, Any], outcome: str
) -> None:
    targets = {"it": target(allow=allow, session={"max_channels": 200})}
    async with running(opa_server, tmp_path, targets=targets) as site:
        async with site.connect() as connection:
            for row in ROWS:
                await _sent(site, connection, row, outcome)
            await _no_session_opens_any_more(site, connection)
        await site.nothing_left()
    assert not Path(SOCKET).exists()


async def _sent(site: Site, connection: Any, row: Row, outcome: str) -> None:
    channel = await _session(connection) if row.sent is Sent.REQUEST else None
    before = len(site.audit("request"))
    answer = await asyncio.wait_for(SENDERS[row.sent](connection, row, channel), SECONDS)
    recorded = [(r["input"]["request"]["kind"], r["outcome"]) for r in site.audit("request")[before:]]
    match row.fate:
        case Fate.DECIDED:
            # Whoever holds a grant may open a session: it is where they can be told the rest.
            assert recorded == [(row.name, "allow" if row.name == "session" else outcome)], row
        case Fate.UNKNOWN:
            assert recorded == [(row.name, "deny")], row
            assert answer in (False, asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED), row
        case Fate.REFUSED:
            assert recorded == [], row
            refusals = (MSG_REQUEST_FAILURE, asyncssh.OPEN_UNKNOWN_CHANNEL_TYPE, MSG_UNIMPLEMENTED)
            assert answer in refusals, row
        case Fate.ANSWERED:
            assert recorded == [], row
            assert answer == (MSG_REQUEST_FAILURE if "prove" in row.name else MSG_REQUEST_SUCCESS), row
    # What is refused ends nothing but itself.
    assert not connection.is_closed(), row
    if channel is not None:
        channel.close()
        await asyncio.wait_for(channel.wait_closed(), SECONDS)


async def _open(connection: Any, row: Row, _channel: Any) -> int:
    opening = _raw(connection)
    try:
        await opening._open(row.name.encode(), row.payload)
    except asyncssh.ChannelOpenError as error:
        return error.code
    opening.close()
    return 0


async def _ask(_connection: Any, row: Row, channel: Any) -> Any:
    return await channel._make_request(row.name.encode(), row.payload)


async def _ask_all(connection: Any, row: Row, _channel: Any) -> int:
    kind, _ = await connection._make_global_request(row.name.encode(), row.payload)
    return int(kind)


async def _packet(connection: Any, row: Row, _channel: Any) -> int:
    answers: list[int] = []
    connection.log_received_packet = lambda kind, *_args, **_more: answers.append(kind)
    connection.send_packet(MSG_PING, row.payload)
    return int(await until(lambda: next((kind for kind in answers if kind in (MSG_UNIMPLEMENTED, MSG_PING + 1)), 0)))


SENDERS: Any = {Sent.CHANNEL: _open, Sent.REQUEST: _ask, Sent.GLOBAL: _ask_all, Sent.TRANSPORT: _packet}


async def _session(connection: Any) -> Any:
    channel = _raw(connection)
    await channel._open(b"session")
    return channel


def _raw(connection: Any) -> Any:
    channel = asyncssh.channel.SSHTCPChannel(connection, connection._loop, None, "strict", 2**21, 32768)
    channel._read_datatypes = {1}
    channel._session = asyncssh.SSHTCPSession()  # a program that ends at once sends its EOF before the test goes on
    return channel


async def _no_session_opens_any_more(site: Site, connection: Any) -> None:
    before = len(site.audit("request"))
    with pytest.raises(asyncssh.ChannelOpenError) as refused:
        await _session(connection)
    assert refused.value.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
    [record] = site.audit("request")[before:]
    assert record["reasons"][0]["code"] == "no_more_sessions"


async def test_no_more_sessions_holds_also_while_a_listener_is_waited_for(site: Site) -> None:
    """Global requests are answered in their order; what is given up does not wait for that."""
    async with site.connect() as connection:
        slow = asyncio.ensure_future(_ask_all(connection, _row("tcpip-forward"), None))
        over = asyncio.ensure_future(_ask_all(connection, _row("no-more-sessions@openssh.com"), None))
        await asyncio.sleep(0)  # both are sent
        with pytest.raises(asyncssh.ChannelOpenError):
            await _session(connection)
        assert (await slow, await over) == (MSG_REQUEST_FAILURE, MSG_REQUEST_SUCCESS)


async def test_a_request_on_a_channel_that_is_no_session_is_refused(opa_server: Opa, tmp_path: Path) -> None:
    """A forward has nothing to ask, so policy is not asked either."""
    async with answering() as port, AsyncExitStack() as stack:
        targets = {"it": target(allow={**OPEN, "forwards": [{"host": HOST, "port": port}]})}
        site = await stack.enter_async_context(running(opa_server, tmp_path, targets=targets))
        connection = await stack.enter_async_context(site.connect())
        forward = _raw(connection)
        await forward._open(b"direct-tcpip", String(HOST) + UInt32(port) + ORIGIN)
        for row in ROWS:
            if row.sent is Sent.REQUEST:
                assert await _ask(connection, row, forward) is False, row
        assert [r["input"]["request"]["kind"] for r in site.audit("request")] == ["direct-tcpip"]
        forward.close()
        await forward.wait_closed()


def _row(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)


def test_the_table_is_in_the_documentation() -> None:
    assert rendered() in Path("docs/ssh.md").read_text()
