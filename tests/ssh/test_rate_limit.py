"""`rate_limit` at the door: never faster, nothing lost, and everything else as it is without it.

Durations are compared with what the limit must at least take, so that a slow machine cannot fail them; that nothing
takes for ever is in the bounds of the waits.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncssh

from gateway.ssh.limits import BURST_SECONDS
from tests.ssh.test_desk import command
from tests.ssh.world import ALICE, Site, running, target
from tests.stack.opa import Opa

RATE = 256 * 1024
AMOUNT = 512 * 1024
LEAST = AMOUNT / RATE - BURST_SECONDS
"""Seconds that AMOUNT takes at RATE, after a burst."""
MOST = 60
BOTH: Any = {"bytes_in_per_second": RATE, "bytes_out_per_second": RATE}


@asynccontextmanager
async def limited(
    server: Opa,
    directory: Path,
    *,
    requests: dict[str, Any] | None = None,
    allow: dict[str, Any] | None = None,
    **limit: int,
) -> AsyncIterator[Site]:
    oblige: dict[str, Any] = {"rate_limit": limit} if limit else {}
    if requests:
        oblige["requests"] = {kind: {"rate_limit": held} for kind, held in requests.items()}
    async with running(server, directory, targets={"slow": target(oblige=oblige, allow=allow or {})}) as site:
        yield site
        await site.nothing_left()


@contextmanager
def takes(least: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began >= least


async def stock(site: Site, *words: str, stdin: bytes = b"", options: tuple[str, ...] = ()) -> tuple[int, bytes]:
    """The stock client, to its end: status and output."""

    def run() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command(site, ALICE, *words, options=options), input=stdin, capture_output=True, timeout=MOST, check=False
        )

    told = await asyncio.to_thread(run)
    return told.returncode, told.stdout


@asynccontextmanager
async def serving(data: bytes) -> AsyncIterator[int]:
    """A port that sends `data` to whoever connects, and then what came in, until its end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.write(b"%d" % len(await reader.read()))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


# -- each way that bytes go -------------------------------------------------------------------------------------------


async def test_what_a_command_writes_is_held_to_the_limit_and_its_status_arrives(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with limited(opa_server, tmp_path, bytes_out_per_second=RATE) as site:
        with takes(LEAST):
            status, out = await stock(site, f"head -c {AMOUNT} /dev/zero; echo end; exit 3")

    assert status == 3
    assert out == b"\0" * AMOUNT + b"end\n"


async def test_what_a_command_reads_is_held_to_the_limit(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with limited(opa_server, tmp_path, bytes_in_per_second=RATE) as site:
        with takes(LEAST):
            status, out = await stock(site, "wc -c; exit 4", stdin=b"x" * AMOUNT)

    assert (status, out.split()) == (4, [b"%d" % AMOUNT])


async def test_the_other_direction_is_as_fast_as_ever(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    """At this limit it would take 8 minutes."""
    async with limited(opa_server, tmp_path, bytes_in_per_second=1024) as site:
        _, out = await stock(site, f"head -c {AMOUNT} /dev/zero")

    assert len(out) == AMOUNT


async def test_the_limit_of_a_request_holds_its_channel_alone(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    requests = {"exec": {"bytes_out_per_second": RATE}}
    async with limited(opa_server, tmp_path, requests=requests) as site, site.connect() as connection:
        with takes(LEAST):
            slow, other = await asyncio.gather(
                connection.run(f"head -c {AMOUNT} /dev/zero", encoding=None),
                connection.run(f"head -c {AMOUNT} /dev/zero", encoding=None),
            )
        shell = await asyncio.wait_for(connection.run(None, input=f"head -c {AMOUNT} /dev/zero\n"), MOST)

    assert len(slow.stdout or b"") == len(other.stdout or b"") == len(shell.stdout or "") == AMOUNT


async def test_files_are_held_to_the_limit_both_ways(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    data = os.urandom(AMOUNT)
    (tmp_path / "file").write_bytes(data)
    async with (
        limited(opa_server, tmp_path, **BOTH) as site,
        site.connect() as connection,
        connection.start_sftp_client() as client,
    ):
        with takes(LEAST):
            async with client.open(str(tmp_path / "file"), "rb") as file:
                read: Any = await file.read()
                assert read == data
        with takes(LEAST):
            async with client.open(str(tmp_path / "copy"), "wb") as file:
                await file.write(data)

    assert (tmp_path / "copy").read_bytes() == data


async def test_a_forward_is_held_to_the_limit_both_ways(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    data = os.urandom(AMOUNT)
    async with serving(data) as port:
        allow = {"forwards": [{"host": "127.0.0.1", "port": port}]}
        async with limited(opa_server, tmp_path, allow=allow, **BOTH) as site:
            with takes(LEAST):
                status, out = await stock(site, options=("-W", f"127.0.0.1:{port}"), stdin=b"x" * AMOUNT)

    assert (status, out) == (0, data + b"%d" % AMOUNT)


async def test_what_comes_in_at_a_listener_is_held_to_the_limit(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    data = os.urandom(AMOUNT)
    allow = {"listen": [{"host": "localhost", "port": 0}]}
    async with (
        serving(data) as port,
        limited(opa_server, tmp_path, allow=allow, **BOTH) as site,
        site.connect() as connection,
        connection.forward_remote_port("localhost", 0, "127.0.0.1", port) as listener,
    ):
        with takes(LEAST):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.get_port())
            writer.write(b"x" * AMOUNT)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), MOST) == data + b"%d" % AMOUNT
        writer.close()
        await writer.wait_closed()


# -- what shares a limit ----------------------------------------------------------------------------------------------


async def test_channels_of_a_session_share_its_limit(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    async with limited(opa_server, tmp_path, bytes_out_per_second=RATE) as site, site.connect() as connection:
        with takes(LEAST):
            results = await asyncio.gather(
                *(connection.run(f"head -c {AMOUNT // 4} /dev/zero; exit {n}", encoding=None) for n in range(4))
            )

    assert [result.exit_status for result in results] == list(range(4))
    assert [len(result.stdout or b"") for result in results] == [AMOUNT // 4] * 4


async def test_a_small_answer_does_not_wait_for_a_channel_that_never_ends(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with (
        limited(opa_server, tmp_path, bytes_out_per_second=RATE) as site,
        site.connect() as connection,
        connection.create_process("cat /dev/zero", encoding=None) as endless,
    ):
        await endless.stdout.readexactly(RATE)
        answer = await asyncio.wait_for(connection.run("echo here"), MOST)
        assert endless.exit_status is None
        endless.close()

    assert answer.stdout == "here\n"


async def test_ctrl_c_is_heard_and_what_was_written_before_it_is_little(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    rate = 64 * 1024
    async with (
        limited(opa_server, tmp_path, bytes_out_per_second=rate) as site,
        site.connect() as connection,
        connection.create_process(term_type="dumb") as shell,
    ):
        shell.stdin.write("yes\n")
        await shell.stdout.readexactly(2 * rate)
        shell.stdin.write("\x03")
        shell.stdin.write("echo do''ne\n")
        after = await asyncio.wait_for(shell.stdout.readuntil("done\r\n"), MOST)
        shell.stdin.write("exit 5\n")
        assert (await asyncio.wait_for(shell.wait(), MOST)).exit_status == 5

    assert len(after) < 2**20, "what a window and a terminal hold, and a slow machine's delay; without it two megabytes"


# -- small limits, and ends -------------------------------------------------------------------------------------------


async def test_a_limit_far_below_a_packet_passes_every_byte(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    lowest: Any = {"bytes_in_per_second": 1024, "bytes_out_per_second": 1024}
    data = os.urandom(5 * 1024)
    async with limited(opa_server, tmp_path, **lowest) as site:
        with takes(0.9):
            status, out = await stock(site, "cat; exit 6", stdin=data)

    assert (status, out) == (6, data)


async def test_an_exit_status_comes_after_the_output_before_it(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    """A client that stops reading at the status would lose the rest."""
    seen: list[str] = []

    class Session(asyncssh.SSHClientSession[bytes]):
        def data_received(self, data: bytes, datatype: Any) -> None:
            seen.append("data")

        def exit_status_received(self, status: int) -> None:
            seen.append(f"status {status}")

    async with limited(opa_server, tmp_path, bytes_out_per_second=RATE) as site, site.connect() as connection:
        channel, _ = await connection.create_session(Session, f"head -c {AMOUNT} /dev/zero; exit 7", encoding=None)
        await asyncio.wait_for(channel.wait_closed(), MOST)

    assert seen.count("data") > 1
    assert seen[-1] == "status 7"


async def test_what_is_too_fast_stays_with_its_sender(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    written = tmp_path / "written"
    program = f"n=0; while head -c 8192 /dev/zero; do n=$((n + 8192)); echo $n > {written}; done"
    async with (
        limited(opa_server, tmp_path, bytes_out_per_second=RATE) as site,
        site.connect() as connection,
        connection.create_process(program, encoding=None) as process,
    ):
        read = len(await process.stdout.readexactly(AMOUNT))
        ahead = int(written.read_text().split()[0]) - read
        process.close()

    assert ahead < RATE + 512 * 1024, "a window, a pipe, and what is under way; unlimited it would be megabytes"


async def test_a_session_that_is_ended_ends_at_once_whatever_waits(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    """Both ways there is more waiting than a quarter of an hour could pass on."""
    lowest: Any = {"bytes_in_per_second": 1024, "bytes_out_per_second": 1024}
    async with limited(opa_server, tmp_path, **lowest) as site, site.connect() as connection:
        process = await connection.create_process("cat /dev/zero & cat > /dev/null", encoding=None)
        process.stdin.write(b"x" * 2**20)
        await process.stdout.readexactly(4096)
        site.opa.delete(f"grants/{ALICE}/g1")
        ended = await asyncio.wait_for(process.wait(), 30)
        await site.nothing_left()

    assert ended.exit_status == 254
    assert b"doorward: " in (ended.stderr or b"")


async def test_a_channel_that_its_client_closes_is_gone_at_once(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    lowest: Any = {"bytes_in_per_second": 1024, "bytes_out_per_second": 1024}
    async with limited(opa_server, tmp_path, **lowest) as site, site.connect() as connection:
        process = await connection.create_process("cat /dev/zero & cat > /dev/null", encoding=None)
        process.stdin.write(b"x" * 2**20)
        await process.stdout.readexactly(4096)
        process.channel.abort()
        await asyncio.wait_for(process.channel.wait_closed(), 30)
        answer = await asyncio.wait_for(connection.run("echo here"), 30)

    assert answer.stdout == "here\n"


# -- what it says -----------------------------------------------------------------------------------------------------


async def test_operations_a_minute_are_not_counted_yet_so_they_are_a_refusal(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with limited(opa_server, tmp_path, operations_per_minute=60) as site:
        status, _ = await stock(site, "true")

    assert status == 254
    [config] = site.audit("config")
    assert [reason["code"] for reason in config["reasons"]] == ["obligation_unkept"]
