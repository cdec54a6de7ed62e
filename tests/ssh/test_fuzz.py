"""Nonsense at every place where a stranger's bytes are read: seeded, bounded, and afterwards the door is as before.

What a run must leave: a login beside it works, nothing reached the event loop's last resort, no traceback and no bug in
the log, nobody counted who is not there, and no more memory than a bound.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import Boolean, NameList, String, UInt32

from gateway.proxy_header import SIGNATURE
from tests.ssh.test_front import clear, kexinit
from tests.ssh.test_hostile_client import before_authentication
from tests.ssh.world import (
    ALICE,
    BOB,
    HostileBackend,
    HostileChannel,
    HostileConnection,
    Site,
    resident,
    running,
    target,
)
from tests.stack.opa import Opa
from tests.test_proxy_header import TLVS, proxied, with_body
from tests.waiting import until

GROWTH = 48 * 2**20
AT_ONCE = 10
PATIENCE = 30.0


@pytest.fixture
def fuzzed(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], caplog: pytest.LogCaptureFixture
) -> Callable[..., Any]:
    """`async with fuzzed() as site`: a gateway that must be as before when the body is over."""

    @asynccontextmanager
    async def opening(balanced: bool = False, **ssh: Any) -> AsyncIterator[Site]:
        # Alice may do nothing but log in: what she is made to say by chance must not run here.
        allow = {"shell": False, "exec": False, "sftp": False, "forwards": [], "env": []}
        header = proxied() if balanced else b""
        async with running(opa_server, tmp_path, targets={"plain": target(allow=allow)}, ssh=ssh) as site:
            await still_serves(site, header)
            before = resident()
            yield site
            await until(lambda: site.front()["connections"] == 0, PATIENCE)
            assert resident() - before < GROWTH
            await still_serves(site, header)
            await site.nothing_left(PATIENCE)
        for bad in ("Traceback", "session_bug"):
            assert bad not in caplog.text

    return opening


async def still_serves(site: Site, header: bytes) -> None:
    sock = socket.create_connection(("127.0.0.1", site.port))
    sock.sendall(header)
    sock.setblocking(False)
    async with asyncio.timeout(PATIENCE), asyncssh.connect(sock=sock, **site.options(BOB)) as bob:
        assert (await bob.run("echo on")).stdout == "on\n"


async def some_at_once(many: int, one: Callable[[random.Random], Awaitable[None]], seed: int) -> None:
    """`one` so many times, each with dice of its own, so that a failing one can be had again alone."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def guarded(number: int) -> None:
        async with turn, asyncio.timeout(PATIENCE):
            await one(random.Random(seed * 100_000 + number))

    await asyncio.gather(*(guarded(number) for number in range(many)))


def mutated(dice: random.Random, data: bytes) -> bytes:
    """Some bytes changed, cut off, doubled or added; sometimes none."""
    work = bytearray(data)
    for _ in range(dice.choice([0, 1, 1, 2, 8])):
        match dice.randrange(5) if work else 3:
            case 0:
                work[dice.randrange(len(work))] = dice.choice([0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)])
            case 1:
                del work[dice.randrange(len(work)) :]
            case 2:
                at = dice.randrange(len(work))
                work[at:at] = work[at : at + 16]
            case 3:
                work += dice.randbytes(dice.randrange(1, 40))
            case _:
                at = dice.randrange(len(work))
                work[at : at + 4] = dice.choice([b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"])
    return bytes(work)


async def tcp(site: Site, data: bytes) -> None:
    """Say it, say no more, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    try:
        writer.write(data)
        await writer.drain()
        writer.write_eof()
        await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


# -- before authentication -------------------------------------------------------------------------------------------

VERSIONS = [
    b"SSH-2.0-OpenSSH_9.9\r\n", b"SSH-1.99-x\n", b"SSH-1.5-x\r\n", b"SSH-2.0-\r\n", b"SSH-\r\n", b"\r\n", b"\0\r\n",
    b"SSH-2.0-" + b"x" * 300 + b"\r\n", b"SSH-2.0-\xc3\x28\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00",
]  # fmt: skip


def opening_words(dice: random.Random) -> bytes:
    """What a stranger may begin with: a version, then packets that are nearly right."""
    said = dice.choice([VERSIONS[0], VERSIONS[0], mutated(dice, dice.choice(VERSIONS))])
    for _ in range(dice.randrange(4)):
        kind = dice.randrange(5)
        if kind == 0:
            said += clear(mutated(dice, kexinit()))
        elif kind == 1:
            said += mutated(dice, clear(kexinit()))
        elif kind == 2:
            said += clear(bytes([dice.randrange(256)]) + dice.randbytes(dice.randrange(200)))
        elif kind == 3:
            said += clear(bytes([30]) + String(dice.randbytes(dice.choice([0, 31, 32, 1216]))))
        else:
            said += UInt32(dice.choice([0, 1, 7, 34999, 35001, 2**31, 2**32 - 1])) + dice.randbytes(40)
    return said


async def test_what_strangers_begin_with(fuzzed: Any) -> None:
    async with fuzzed() as site:
        await some_at_once(500, lambda dice: tcp(site, opening_words(dice)), seed=1)


class Deaf:
    """Takes every answer for good, whatever it is."""

    def process_packet(self, *_: Any) -> bool:
        return True

    def log_received_packet(self, *_: Any) -> None:
        return

    def cancel(self) -> None:
        return


METHODS = [b"none", b"publickey", b"password", b"keyboard-interactive", b"hostbased", b"gssapi-with-mic", b"", b"\xff"]


def attempts(site: Site) -> list[bytes]:
    """Well-formed payloads around authentication, by message number."""
    key = site.keys[ALICE].public_data
    head = String(ALICE) + String("ssh-connection")
    certificate = String("ssh-ed25519-cert-v01@openssh.com")
    return [
        bytes([5]) + String("ssh-userauth"),
        bytes([5]) + String("ssh-connection"),
        *(bytes([50]) + head + String(method) for method in METHODS),
        bytes([50]) + head + String("publickey") + Boolean(False) + String("ssh-ed25519") + String(key),
        bytes([50]) + head + String("publickey") + Boolean(True) + String("ssh-ed25519") + String(key) + String("sig"),
        bytes([50]) + head + String("publickey") + Boolean(False) + certificate + String(certificate + bytes(200)),
        bytes([50]) + head + String("password") + Boolean(False) + String("hunter2"),
        bytes([50]) + head + String("password") + Boolean(True) + String("a") + String("b"),
        bytes([50]) + head + String("keyboard-interactive") + String("") + String("pam"),
        bytes([50]) + String("x" * 1023) + String("ssh-connection") + String("none"),
        bytes([60]) + bytes(20),
        bytes([61]) + UInt32(2**31) + String("x"),
        bytes([7]) + UInt32(1) + String("server-sig-algs") + String("x"),
        bytes([2]) + String("x"), bytes([4]) + Boolean(True) + String("x") + String("en"), bytes([3]) + UInt32(7),
        bytes([80]) + String("tcpip-forward") + Boolean(True), bytes([90]) + String("session") + bytes(12),
        bytes([192]) + String("ping"), kexinit(),
    ]  # fmt: skip


async def test_what_strangers_say_once_they_are_encrypted(fuzzed: Any) -> None:
    async with fuzzed(max_auth_tries=1000) as site:

        async def one(dice: random.Random) -> None:
            connection: Any = await before_authentication(site)
            connection._auth, connection.process_packet = Deaf(), lambda *_: True
            connection._auth_complete = True  # else it would hold some of it back itself
            known = attempts(site)
            for _ in range(20):
                payload = mutated(dice, dice.choice(known))
                if payload and not connection.is_closed():
                    connection.send_packet(payload[0], payload[1:])
                if dice.random() < 0.2:
                    await asyncio.sleep(0)
            connection._auth = None
            connection.abort()
            await connection.wait_closed()

        await some_at_once(150, one, seed=2)
        assert not site.audit("config")[1:], "nobody but Bob, before, was authenticated"


# -- the PROXY header ------------------------------------------------------------------------------------------------

HEADERS = [
    proxied(), proxied(tlvs=TLVS), proxied(("2001:db8::7", 1), ("::1", 2)), with_body(b"", 0x20), SIGNATURE,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 22\r\n", with_body(bytes(12), family=0), b"",
]  # fmt: skip


async def test_what_is_no_proxy_header(fuzzed: Any) -> None:
    everybody = {"exempt": ["0.0.0.0/0", "::/0"]}
    async with fuzzed(balanced=True, proxy_from=["127.0.0.0/8"], penalties=everybody) as site:

        async def one(dice: random.Random) -> None:
            await tcp(site, mutated(dice, dice.choice(HEADERS)) + opening_words(dice) * dice.randrange(2))

        await some_at_once(400, one, seed=3)
        assert site.front()["refused"]["proxy_header"] > 50


# -- after authentication --------------------------------------------------------------------------------------------

ROOM = UInt32(2**20) + UInt32(32768)
REQUESTS = {
    b"pty-req": String("xterm") + UInt32(80) * 4 + String(b"\x01\0\0\0\x03\0"), b"env": String("LC_A") + String("x"),
    b"exec": String("true"), b"shell": b"", b"subsystem": String("sftp"), b"window-change": UInt32(80) * 4,
    b"signal": String("TERM"), b"break": UInt32(100), b"xon-xoff": Boolean(True), b"eow@openssh.com": b"",
    b"x11-req": Boolean(True) + String("MIT-MAGIC-COOKIE-1") + String("00" * 16) + UInt32(0),
    b"auth-agent-req@openssh.com": b"", b"exit-status": UInt32(0),
    b"exit-signal": String("KILL") + Boolean(False) + String("") + String(""), b"keepalive@openssh.com": b"",
    b"surprise@example.com": b"x", b"": b"",
}  # fmt: skip
OPENS = {
    b"session": b"", b"direct-tcpip": String("127.0.0.1") + UInt32(7) + String("::1") + UInt32(1),
    b"direct-streamlocal@openssh.com": String("/run/x") + String("") + UInt32(0), b"x11": String("::1") + UInt32(1),
    b"forwarded-tcpip": String("x") + UInt32(7) + String("::1") + UInt32(1), b"auth-agent@openssh.com": b"",
    b"tun@openssh.com": UInt32(1) + UInt32(0), b"channel": b"", b"": b"", b"\xff": b"",
}  # fmt: skip
GLOBALS = {
    b"tcpip-forward": String("127.0.0.1") + UInt32(0), b"cancel-tcpip-forward": String("127.0.0.1") + UInt32(9),
    b"streamlocal-forward@openssh.com": String("/run/x"), b"cancel-streamlocal-forward@openssh.com": String("/run/x"),
    b"hostkeys-prove-00@openssh.com": String("x"), b"hostkeys-00@openssh.com": String("x"),
    b"no-more-sessions@openssh.com": b"", b"keepalive@openssh.com": b"", b"": b"", b"\xff": b"",
}  # fmt: skip


async def test_every_channel_request_with_every_kind_of_damage(fuzzed: Any) -> None:
    """Sent on a channel that is open, so that it is read: names in turn, payloads by the dice."""
    names = list(REQUESTS)

    async with fuzzed() as site:

        async def one(dice: random.Random) -> None:
            async with site.connect() as connection:
                for _ in range(4):
                    channel: Any = asyncssh.channel.SSHTCPChannel(
                        connection, connection._loop, None, "strict", 2**20, 32768
                    )
                    await channel._open(b"session")
                    channel.process_packet = lambda *_: True
                    for name in dice.sample(names, len(names)):
                        channel._send_request(name, mutated(dice, REQUESTS[name]), want_reply=dice.random() < 0.5)
                    await asyncio.sleep(0)
                    channel.send_packet(97)
                connection.send_packet(98, UInt32(0) + String(dice.choice([b"\xff", b"exec"])) + dice.randbytes(3))

        await some_at_once(40, one, seed=4)
        asked = {record["input"]["request"]["kind"] for record in site.audit("request")}
        assert asked >= {"session", "pty-req", "env", "exec", "shell", "subsystem", "signal", "window-change"}
        answers = {
            record["outcome"] for record in site.audit("request") if record["input"]["request"]["kind"] == "exec"
        }
        assert "allow" not in answers or site.audit("request")[0]["person"] == BOB


async def test_every_message_of_the_connection_protocol_with_every_kind_of_damage(fuzzed: Any) -> None:
    """Opens, global requests, and channel messages to channels that are there or not."""

    def message(dice: random.Random) -> bytes:
        number = dice.choice(
            [80, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 81, 82, 53, 52, 51, 50, 21, 20, 1, 0, 255]
        )
        if number == 80:
            name = dice.choice(list(GLOBALS))
            return bytes([80]) + String(name) + Boolean(dice.random() < 0.5) + mutated(dice, GLOBALS[name])
        if number == 90:
            kind = dice.choice(list(OPENS))
            return bytes([90]) + String(kind) + UInt32(dice.randrange(9)) + ROOM + mutated(dice, OPENS[kind])
        whole = UInt32(dice.choice([0, 1, 7, 2**32 - 1])) + dice.choice([b"", UInt32(2**32 - 1), String("x"), ROOM])
        return bytes([number]) + whole

    async with fuzzed() as site:

        async def one(dice: random.Random) -> None:
            connection: Any = await asyncssh.connect("127.0.0.1", site.port, **site.options())
            connection.process_packet = lambda *_: True
            for _ in range(15):
                payload = mutated(dice, message(dice)) if dice.random() < 0.3 else message(dice)
                if payload and not connection.is_closed():
                    connection.send_packet(payload[0], payload[1:])
                await asyncio.sleep(0)
            connection.abort()
            await connection.wait_closed()

        await some_at_once(100, one, seed=5)


async def test_what_a_workspace_says(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    """The agent's side of the same protocol: any message, damaged, once a program was started."""
    numbers = [80, 81, 82, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 1, 2, 3, 4, 5, 6, 7, 20, 21, 50, 52, 53, 255]
    names = [b"exit-status", b"exit-signal", b"xon-xoff", b"exec", b"forwarded-tcpip", b"x11", b"session", b"\xff"]
    turns = iter(range(10_000))

    async def script(connection: HostileConnection, channel: HostileChannel) -> None:
        dice = random.Random(700_000 + next(turns))
        for _ in range(12):
            number = UInt32(dice.choice([0, channel.chan._send_chan or 0, 2**32 - 1]))
            rest = String(dice.choice(names)) + Boolean(True) + dice.choice([b"", UInt32(7), String("x") * 3])
            payload = mutated(dice, dice.choice([number, b""]) + rest)
            if not connection.is_closed():
                connection.send_packet(dice.choice(numbers), payload)
            await asyncio.sleep(0)
        connection.abort()

    backend = HostileBackend(script)
    async with running(opa_server, tmp_path, backend, targets={"bad": target("hostile")}) as site:
        async with site.connect(BOB) as bob:
            beside = await bob.create_process("cat")

            async def one(_dice: random.Random) -> None:
                async with site.connect() as alice:
                    with suppress(asyncssh.Error):  # the session may be over before it has begun
                        ran = await alice.run("x")
                        assert "\x1b" not in str(ran.stderr)

            await some_at_once(60, one, seed=7)
            beside.stdin.write("here\n")
            assert await asyncio.wait_for(beside.stdout.readline(), PATIENCE) == "here\n"
        await site.nothing_left(PATIENCE)
    assert backend.running == 0


# -- the login name --------------------------------------------------------------------------------------------------

LOGINS = [
    "alice", "alice+plain", "bob", "alice+", "+plain", "alice+plain+plain", "alice:plain", "alice/plain", "alice@door",
    "Alice", "alice ", " alice", "al\x00ice", "alice\x1b[2J", "alice\n", "../alice", "alice+../beside", "ａｌｉｃｅ",
    "ali\u00adce", "\u202ealice", "é" * 200, "x" * 1023, "x" * 1024, '{"person":"alice"}', "alice+{{.}}", "$(id)", "*",
    "data.people", "", "alice+beside", "alice+" + "x" * 900, "null", "true", "0", "\U0001f600", "alice\ufeff",
]  # fmt: skip


async def test_login_names_of_every_kind_open_the_door_to_nobody_else(fuzzed: Any) -> None:
    """Through the gateway and OPA: only what Rego reads as Alice admits who has Alice's key."""
    admitted: list[str] = []
    left = list(LOGINS)

    async with fuzzed() as site:

        async def one(dice: random.Random) -> None:
            login = left.pop() if left else dice.choice(LOGINS)
            if dice.random() < 0.3 and not left:
                at = dice.randrange(len(login) + 1)
                login = login[:at] + chr(dice.choice([0, 9, 0x2B, 0x7F, 0xAD, 0x301, 0xFFFD, 0x1F600])) + login[at:]
            try:
                async with site.connect(username=login):
                    admitted.append(login)
            except (asyncssh.Error, OSError, ValueError):
                pass

        await some_at_once(120, one, seed=6)
        names = {record["input"]["login"]["user"] for record in site.audit("authn") if record["outcome"] == "accept"}

    assert "alice" in admitted
    assert {name.partition("+")[0] for name in names} == {ALICE, BOB}


def test_the_dice_fall_as_they_fell() -> None:
    """A failing case can be had again: the same seed says the same."""
    again = [opening_words(random.Random(1)), opening_words(random.Random(1))]
    assert again[0] == again[1]
    assert NameList([]) == bytes(4)
