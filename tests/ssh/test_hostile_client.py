"""An engineer's client that does what no client does: it harms itself at most."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import Boolean, String, UInt32

from gateway.ssh import bounds
from gateway.ssh.raw import WINDOW, RawChannel
from tests.ssh.world import ALICE, BOB, Site, agents, resident
from tests.waiting import SECONDS, until

SOON = 20.0
"""Seconds within which the door hangs up on whoever misbehaves: less than the grace of its logins, which would too."""
MSG_OPEN, MSG_FAILURE, MSG_ADJUST, MSG_REQUEST, MSG_GLOBAL = 90, 92, 93, 98, 80


async def still_serves(site: Site) -> None:
    async with site.connect(BOB) as bob:
        ran = await asyncio.wait_for(bob.run("echo on"), SECONDS)
        assert ran.stdout == "on\n"


@pytest.mark.parametrize("kind", ["channel", "session_open_of", "userauth", "..", "", "x11", "forwarded-tcpip"])
async def test_an_unknown_channel_type_is_refused_and_the_connection_goes_on(site: Site, kind: str) -> None:
    async with site.connect() as connection:
        with pytest.raises(asyncssh.ChannelOpenError) as refused:
            await _raw(connection)._open(kind.encode())
        assert refused.value.code == asyncssh.OPEN_UNKNOWN_CHANNEL_TYPE
        assert (await connection.run("echo on")).stdout == "on\n"


@pytest.mark.parametrize("name", ["channel", "", "..", "hostkeys-prove-00@openssh.com", "tcpip-forward"])
async def test_a_global_request_is_answered_with_no_also_when_nothing_was_opened(site: Site, name: str) -> None:
    async with site.connect() as connection:
        kind, _ = await asyncio.wait_for(connection._make_global_request(name.encode(), b""), SECONDS)
        assert kind == 82
        assert (await connection.run("echo on")).stdout == "on\n"


async def test_requests_are_not_queued_without_end(site: Site) -> None:
    async with site.connect() as connection:
        channel, _ = await connection.create_session(asyncssh.SSHClientSession, "sleep 60")
        for _ in range(10_000):
            channel._send_request(b"env", String("LC_X") + String("x" * 1000), want_reply=True)
        await asyncio.wait_for(connection.wait_closed(), SECONDS)
    await still_serves(site)
    await site.nothing_left()


async def test_global_requests_are_not_queued_without_end(site: Site) -> None:
    async with site.connect() as connection:
        for _ in range(bounds.MAX_QUEUED_REQUESTS * 2):
            connection._send_global_request(b"tcpip-forward", String("") + UInt32(0), want_reply=True)
        await asyncio.wait_for(connection.wait_closed(), SECONDS)
    await still_serves(site)


async def test_channels_opened_at_once_are_limited_as_those_one_after_the_other(site: Site) -> None:
    async with site.connect() as connection:
        processes = await asyncio.gather(*(connection.create_process("echo up; cat") for _ in range(25)))
        said = [await process.stdout.readline() for process in processes]
        assert said.count("up\n") == 20
        assert said.count("") == 5


async def test_a_flood_of_opens_is_refused(site: Site) -> None:
    async with site.connect() as connection:
        opening = [asyncio.ensure_future(_raw(connection)._open(b"session")) for _ in range(bounds.MAX_CHANNELS + 50)]
        await asyncio.wait(opening)
        codes = [task.exception() for task in opening if task.exception() is not None]
        assert len(codes) == 50
    await site.nothing_left()


async def test_a_huge_window_that_is_not_read_is_not_filled(site: Site) -> None:
    async with site.connect() as connection:
        process = await connection.create_process("cat /dev/zero", encoding=None)
        channel: Any = process.channel
        channel.send_packet(MSG_ADJUST, UInt32(2**31 - 1))
        channel._recv_window = channel._init_recv_window = 2**31
        assert connection._transport is not None
        connection._transport.pause_reading()
        before = resident()
        last = -1
        while last != (last := await _judged_again(site)) and resident() - before < 100 * 2**20:
            pass
        assert resident() - before < 32 * 2**20

        # And who does not read is still put out at once.
        started = time.monotonic()
        site.opa.delete(f"grants/{ALICE}/g1")
        await until(lambda: not agents(site.backend), 3)
        assert time.monotonic() - started < 2
        await site.nothing_left()


async def _judged_again(site: Site) -> int:
    """Let two sweeps pass; what the gateway holds by then."""
    [entry] = site.gateway.live._entries.values()
    judged = entry.judged + 2
    await until(lambda: entry.judged >= judged)
    return resident() // 2**20


async def test_packets_of_one_byte_are_refused(site: Site) -> None:
    async with site.connect() as connection:
        channel = _raw(connection)
        channel._recv_pktsize = 1
        with pytest.raises(asyncssh.ChannelOpenError):
            await channel._open(b"session")
        assert (await connection.run("echo on")).stdout == "on\n"


MALFORMED = [
    (b"pty-req", b""), (b"pty-req", String("xterm\0") + UInt32(1) * 4 + String("")), (b"env", String("LC_A")),
    (b"env", String("LC_A\0LD_PRELOAD") + String("x")), (b"env", String(b"LC_\xff") + String("x")),
    (b"exec", b""), (b"exec", String("a\0b")), (b"exec", String("true") + b"more"), (b"shell", b"more"),
    (b"subsystem", b"\0\0\0\5sftp"), (b"window-change", UInt32(1)), (b"signal", b""), (b"break", b""),
]  # fmt: skip


async def test_malformed_requests_are_refused_one_by_one(site: Site) -> None:
    async with site.connect() as connection:
        channel = _raw(connection)
        await channel._open(b"session")
        for name, payload in MALFORMED:
            assert await channel._make_request(name, payload) is False
        assert await channel._make_request(b"exec", String("true")) is True
        assert await channel._make_request(b"exec", String("true")) is False
        assert await channel._make_request(b"shell") is False


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 0), ("127.0.0.1", 65536), ("127.0.0.1\0x", 7), ("x", 1)])
async def test_a_forward_to_nowhere_is_refused(site: Site, host: str, port: int) -> None:
    async with site.connect() as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await _raw(connection)._open(b"direct-tcpip", String(host) + UInt32(port) + String("") + UInt32(0))
        assert (await connection.run("echo on")).stdout == "on\n"


def _raw(connection: asyncssh.SSHClientConnection) -> Any:
    return asyncssh.channel.SSHTCPChannel(connection, connection._loop, None, "strict", 2**21, 32768)


async def before_authentication(site: Site, login: str = ALICE) -> asyncssh.SSHClientConnection:
    """A connection that has ended its key exchange and asked for nobody's admission."""
    options = await asyncssh.SSHClientConnectionOptions.construct(
        None, host="x", **{**site.options(), "username": login, "client_keys": None, "login_timeout": 0}
    )
    options.waiter = asyncio.get_running_loop().create_future()
    connection = asyncssh.SSHClientConnection(asyncio.get_running_loop(), options, wait="auth_methods")
    await connection._loop.create_connection(lambda: connection, "127.0.0.1", site.port)
    await options.waiter
    return connection


@pytest.mark.parametrize(
    ("number", "payload"),
    [
        (MSG_OPEN, String("session") + UInt32(0) + UInt32(2**20) + UInt32(32768)),
        (MSG_GLOBAL, String("keepalive@openssh.com") + Boolean(True)),
        (MSG_REQUEST, UInt32(0) + String("exec") + Boolean(True) + String("true")),
    ],
)
async def test_nothing_is_opened_before_authentication(site: Site, number: int, payload: bytes) -> None:
    connection = await before_authentication(site)
    connection._auth_complete = True  # else it would hold the packet back itself
    connection.send_packet(number, payload)
    await asyncio.wait_for(connection.wait_closed(), SOON)
    await site.nothing_left()
    assert not site.audit("config")


def _attempt(site: Site, connection: Any, algorithm: bytes, key: asyncssh.SSHKey, signer: Any = None) -> bytes:
    """A public-key request of Alice's, offered, or signed by `signer(data)`."""
    packet = (
        bytes([50]) + String(ALICE) + String("ssh-connection") + String("publickey")
        + Boolean(signer is not None) + String(algorithm) + String(key.public_data)
    )  # fmt: skip
    if signer is not None:
        packet += String(signer(String(connection._session_id) + packet))
    return packet[1:]


@pytest.mark.parametrize("how", ["another key", "another session", "empty", "truncated", "garbage"])
async def test_a_signature_that_is_not_this_keys_for_this_session_admits_nobody(site: Site, how: str) -> None:
    key = site.keys[ALICE]
    signers = {
        "another key": lambda data: site.keys[BOB].sign(data, b"ssh-ed25519"),
        "another session": lambda data: key.sign(b"x" + data, b"ssh-ed25519"),
        "empty": lambda _data: b"",
        "truncated": lambda _data: b"\0\0\0\x0bssh",
        "garbage": lambda _data: String("ssh-ed25519") + String(bytes(64)),
    }
    connection = await before_authentication(site)
    for _ in range(10):
        connection.send_packet(50, _attempt(site, connection, b"ssh-ed25519", key, signers[how]))
    await asyncio.wait_for(connection.wait_closed(), SOON)
    await site.nothing_left()
    assert not [record for record in site.audit("authn") if record["input"]["attempt"]["proven"]]


@pytest.mark.parametrize("algorithm", [b"ssh-rsa", b"rsa-sha2-256"])
async def test_sha1_signatures_are_refused(site: Site, algorithm: bytes) -> None:
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    site.opa.put(f"people/{ALICE}", {"keys": [key.export_public_key().decode().strip()], "groups": ["oncall"]})
    connection = await before_authentication(site)
    connection.send_packet(50, _attempt(site, connection, algorithm, key, lambda data: key.sign(data, algorithm)))
    asked = await until(lambda: keys_judged(site)) if algorithm == b"rsa-sha2-256" else []
    for _ in range(10):
        connection.send_packet(50, String(ALICE) + String("ssh-connection") + String("none"))
    if asked:
        assert asked[0]["input"]["attempt"]["proven"]
        connection.abort()
    else:
        await asyncio.wait_for(connection.wait_closed(), SOON)
        assert not keys_judged(site)


def keys_judged(site: Site) -> list[dict[str, Any]]:
    return [record for record in site.audit("authn") if record["input"]["attempt"]["method"] == "publickey"]


async def test_welcome_offers_cannot_be_repeated_for_ever(site: Site) -> None:
    connection = await before_authentication(site)
    for _ in range(40):
        connection.send_packet(50, _attempt(site, connection, b"ssh-ed25519", site.keys[ALICE]))
    await asyncio.wait_for(connection.wait_closed(), SOON)
    await site.nothing_left()
    assert len(site.audit("authn")) <= 21  # three for each try, and three more


@pytest.mark.parametrize("method", ["none", "password", "keyboard-interactive", "hostbased", "x"])
async def test_other_methods_admit_nobody(site: Site, method: str) -> None:
    connection = await before_authentication(site)
    for _ in range(10):
        request = String(ALICE) + String("ssh-connection") + String(method) + Boolean(False) + String("")
        connection.send_packet(50, request)
    await asyncio.wait_for(connection.wait_closed(), SOON)
    assert {record["outcome"] for record in site.audit("authn")} <= {"continue", "reject", "cancelled"}
    assert not site.audit("config")


@pytest.mark.parametrize("login", ["a\nb", "\x1b[2J", "x" * 5000, "", b"\xff"])
async def test_odd_login_names_admit_nobody(site: Site, login: str | bytes) -> None:
    connection = await before_authentication(site)
    for _ in range(10):
        connection.send_packet(50, String(login) + String("ssh-connection") + String("none"))
    await asyncio.wait_for(connection.wait_closed(), SOON)
    await still_serves(site)


async def test_what_a_program_does_not_read_is_one_window_whatever_the_packets(site: Site) -> None:
    """Delivered a piece, asyncssh gave the whole window back, with what waited behind it uncounted: no bound at all."""
    async with site.connect() as connection:
        process = await connection.create_process("while head -c 50000 >/dev/null; do sleep 0.2; done", encoding=None)
        process.channel._send_pktsize = 500
        process.stdin.write(bytes(16 * 2**20))
        channels = [channel for channel in gc.get_objects() if isinstance(channel, RawChannel)]

        def waiting() -> int:
            return max(sum(len(piece) for piece, _ in channel._recv_buf) for channel in channels)

        await until(lambda: waiting() > WINDOW // 2)
        quiet = asyncio.get_running_loop().time() + 2
        while asyncio.get_running_loop().time() < quiet:
            assert waiting() <= WINDOW
            assert max(len(channel._recv_buf) for channel in channels) < 2 * WINDOW // bounds.PIECE
            await asyncio.sleep(0.01)
        process.kill()


async def test_what_is_sent_to_the_refused_is_not_kept(site: Site) -> None:
    """A refused channel stays open to be told why; a thousand of them would keep a window each."""
    async with site.connect() as connection:
        opened = [RawChannel(connection, lambda *_: True) for _ in range(50)]  # the permit's max_channels is 20
        for channel in opened:
            await channel.open("session", b"", asyncssh.SSHClientSession())
        for channel in opened[20:]:
            channel.write(bytes(2**20))
        await until(lambda: not any(channel._send_buf for channel in opened))
        assert (await connection.run("true")).exit_status == 254  # so all that was sent has arrived
        mine = [one for one in gc.get_objects() if isinstance(one, RawChannel) and one not in opened]
        assert sum(len(piece) for channel in mine for piece, _ in channel._recv_buf) == 0
