"""A child is ready while its context is open and gone afterwards, whatever happens to either of us."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.embedded.children import LOG_BYTES, ChildUnavailable, Command, child, run_once, steady_port
from tests.waiting import until


def shell(script: str, folder: Path, **changes: object) -> Command:
    return Command("test", ["sh", "-c", script], folder / "child.log", **changes)  # type: ignore[arg-type]


def exists(file: Path) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return file.exists()

    return check


def written(file: Path) -> str:
    """What the file says; nothing while it says nothing."""
    return file.read_text().strip() if file.exists() else ""


async def test_it_is_ready_inside_and_gone_outside(tmp_path: Path) -> None:
    command = shell(f"touch {tmp_path}/up; exec sleep 60", tmp_path)
    async with child(command, exists(tmp_path / "up")) as running:
        assert Path(f"/proc/{running.pid}").exists()
    assert not Path(f"/proc/{running.pid}").exists()


async def test_one_that_ignores_term_is_killed(tmp_path: Path) -> None:
    command = shell(f"trap '' TERM; touch {tmp_path}/up; while :; do sleep 0.1; done", tmp_path, stop_seconds=0.1)
    async with child(command, exists(tmp_path / "up")) as running:
        pass
    assert await running.wait_ended() == -signal.SIGKILL


async def test_one_that_ends_while_starting_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ChildUnavailable, match="no such luck"):
        async with child(shell("echo no such luck; exit 3", tmp_path), exists(tmp_path / "up")):
            pass


async def test_one_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    async def never() -> bool:
        while not written(pid):  # in one step of the loop: however slowly it starts, its time is not up before
            time.sleep(0.001)
        return False

    with pytest.raises(ChildUnavailable, match=r"within 0\.1 s"):
        async with child(shell(f"echo $$ > {pid}; exec sleep 60", tmp_path), never, seconds=0.1):
            pass
    assert not Path(f"/proc/{written(pid)}").exists()


async def test_entering_cancelled_leaves_nothing(tmp_path: Path) -> None:
    context = child(shell(f"echo $$ > {tmp_path}/pid; exec sleep 60", tmp_path), exists(tmp_path / "up"))
    entering = asyncio.ensure_future(context.__aenter__())
    pid = await until(lambda: written(tmp_path / "pid"))
    entering.cancel()
    await asyncio.wait([entering])
    assert not Path(f"/proc/{pid}").exists()


async def test_its_end_is_noticed(tmp_path: Path) -> None:
    async with child(shell("sleep 0.05; exit 7", tmp_path), exists(tmp_path)) as running:
        assert await running.wait_ended() == 7


async def test_it_does_not_outlive_a_gateway_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio
from pathlib import Path
from tests.embedded.test_children import *
async def main():
    folder = Path({str(tmp_path)!r})
    async with child(shell("exec sleep 60", folder), exists(folder)) as running:
        print(running.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    gateway = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert gateway.stdout is not None
    pid = int(await gateway.stdout.readline())
    await until(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes())
    gateway.kill()
    await gateway.wait()
    await until(lambda: not Path(f"/proc/{pid}").exists())


async def test_its_log_is_ours_alone_and_a_large_one_is_moved_aside(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_bytes(b"x" * (LOG_BYTES + 1))
    await run_once(shell("echo hello", tmp_path), seconds=5)
    assert log.read_text() == "hello\n"
    assert (tmp_path / "child.log.1").stat().st_size == LOG_BYTES + 1
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


async def test_a_program_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ChildUnavailable, match="status 4: sorry"):
        await run_once(shell("echo sorry; exit 4", tmp_path), seconds=5)


async def test_a_port_is_kept(tmp_path: Path) -> None:
    port = steady_port(tmp_path / "port")
    assert steady_port(tmp_path / "port") == port
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)
    async with server:
        assert steady_port(tmp_path / "port") != port


async def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        async with child(shell("exec sleep 60", tmp_path), exists(tmp_path)):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
