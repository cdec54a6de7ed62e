"""Line by line what the relay carries (RFC 4254, OpenSSH's PROTOCOL), between real ends."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.packet import Boolean, String, UInt32

from gateway.ssh import raw
from tests.ssh.world import HostileBackend, Site, running, target
from tests.stack.opa import Opa
from tests.waiting import SECONDS, until

REQUESTS = [
    ("env", String("LC_A") + String("é")),
    ("pty-req", String("xterm") + UInt32(80) + UInt32(24) + UInt32(1) + UInt32(2) + String(b"\x35\0\0\0\1\0")),
    ("exec", String(b"printf '\xff\x01'")),
    ("window-change", UInt32(81) + UInt32(25) + UInt32(3) + UInt32(4)),
    ("signal", String("USR1")),
    ("break", UInt32(500)),
    ("xon-xoff", Boolean(True)),
    ("eow@openssh.com", b""),
]


async def test_payloads_of_requests_arrive_byte_for_byte_in_order(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    """The workspace's end is a raw channel that writes down what it is asked."""
    seen: list[tuple[str, bytes]] = []

    def session(self: Any, _packet: Any) -> Any:
        def asked(name: str, payload: bytes, _want_reply: bool) -> bool:
            seen.append((name, payload))
            return name != "break"

        async def end() -> Any:
            return asyncssh.SSHTCPSession()

        return raw.RawChannel(self, asked), end()

    async def nothing(*_: Any) -> None:
        return

    backend = HostileBackend(nothing, _process_session_open=session)
    async with running(opa_server, tmp_path, backend, targets={"seen": target("hostile")}) as site:  # noqa: SIM117
        async with site.connect() as connection:
            channel = asyncssh.channel.SSHTCPChannel(connection, connection._loop, None, "strict", 2**21, 32768)
            channel._read_datatypes = {1}
            await channel._open(b"session")
            answers = [await channel._make_request(name.encode(), payload) for name, payload in REQUESTS]
    assert seen == REQUESTS
    assert answers == [name != "break" for name, _ in REQUESTS]  # refused inside is refused outside


async def test_status_streams_and_signals(site: Site) -> None:
    async with site.connect() as connection:
        ran = await connection.run("echo out; echo err >&2; exit 3", encoding=None)
        assert (ran.stdout, ran.stderr, ran.exit_status) == (b"out\n", b"err\n", 3)
        killed = await connection.run("kill -TERM $$")
        assert killed.exit_signal is not None
        assert killed.exit_signal[0] == "TERM"
        # One that fails leaves its sibling alone.
        beside = await connection.create_process("cat")
        assert (await connection.run("exit 9")).exit_status == 9
        beside.stdin.write_eof()
        assert (await beside.wait()).exit_status == 0


async def test_bytes_survive_rekeying_and_half_close(site: Site, tmp_path: Path) -> None:
    """With OpenSSH: asyncssh's own client stalls when it is to rekey more often than its window is long."""
    data = random.Random(3).randbytes(6 * 2**20)
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_bytes(site.keys["alice"].export_private_key())
    options = "IdentitiesOnly=yes StrictHostKeyChecking=no UserKnownHostsFile=/dev/null BatchMode=yes RekeyLimit=512K"
    words = [word for option in options.split() for word in ("-o", option)]
    ssh = await asyncio.create_subprocess_exec(
        "ssh", "-F", "none", "-i", str(key), "-p", str(site.port), *words, "alice@127.0.0.1", "cat",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(ssh.communicate(data), 30)
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
    assert ssh.returncode == 0


async def test_several_programs_at_once_and_keepalives(site: Site) -> None:
    async with site.connect(keepalive_interval=0.05, keepalive_count_max=3) as connection:
        ran = await asyncio.gather(*(connection.run(f"sleep 0.3; echo {number}") for number in range(12)))
        assert [one.stdout for one in ran] == [f"{number}\n" for number in range(12)]
    await site.nothing_left()


async def test_nothing_of_a_program_overtakes_the_confirmation_of_its_start(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    """A program that ends at once sends the reply, its output and its end in one go."""
    kinds: list[int] = []

    def session(self: Any, _packet: Any) -> Any:
        def asked(_name: str, _payload: bytes, _want_reply: bool) -> bool:
            # All in one write: the reply, what was printed, and the end.
            channel.send_packet(99)
            channel.send_packet(94, String(b"out"))
            channel.send_request("exit-status", UInt32(5))
            channel.write_eof()
            channel.close()
            return True

        async def end() -> Any:
            return asyncssh.SSHTCPSession()

        channel = raw.RawChannel(self, asked)
        return channel, end()

    async def nothing(*_: Any) -> None:
        return

    backend = HostileBackend(nothing, _process_session_open=session)
    async with running(opa_server, tmp_path, backend, targets={"seen": target("hostile")}) as site:  # noqa: SIM117
        async with site.connect() as connection:
            channel = asyncssh.channel.SSHTCPChannel(connection, connection._loop, None, "strict", 2**21, 32768)
            channel._read_datatypes = {1}
            channel.log_received_packet = lambda kind, *_: kinds.append(kind)  # type: ignore[method-assign]
            await channel._open(b"session")
            channel._session = asyncssh.SSHTCPSession()
            channel.resume_reading()
            assert await channel._make_request(b"exec", String("x")) is True
            await asyncio.wait_for(channel.wait_closed(), SECONDS)
    assert [kind for kind in kinds if kind >= 94 and kind != 96] == [99, 98, 94, 97]


async def test_a_client_that_closes_after_the_last_output_still_gets_the_status(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    """OpenSSH closes as soon as both directions have ended; the status comes when the program has."""
    kinds: list[int] = []
    closed = asyncio.Event()

    async def script(_connection: Any, inside: Any) -> None:
        inside.chan.write_eof()
        await closed.wait()
        inside.request(b"exit-status", UInt32(5))
        inside.chan.close()

    async with running(opa_server, tmp_path, HostileBackend(script), targets={"late": target("hostile")}) as site:  # noqa: SIM117
        async with site.connect() as connection:
            channel = asyncssh.channel.SSHTCPChannel(connection, connection._loop, None, "strict", 2**21, 32768)
            channel._read_datatypes = {1}
            channel.log_received_packet = lambda kind, *_: kinds.append(kind)  # type: ignore[method-assign]
            await channel._open(b"session")
            channel._session = asyncssh.SSHTCPSession()
            channel.resume_reading()
            assert await channel._make_request(b"exec", String("x")) is True
            await until(lambda: 96 in kinds)
            channel.send_packet(97)
            await connection._make_global_request(b"keepalive@openssh.com")  # the close has arrived
            closed.set()
            await until(lambda: 97 in kinds, 1.5)
    assert [kind for kind in kinds if kind >= 94] == [99, 96, 98, 97]
