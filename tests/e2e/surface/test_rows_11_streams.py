"""Rows 11 to 16: bytes both ways, to the end, at any speed."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from tests.e2e.surface.ground import Ground, Shared
from tests.e2e.world import until

MEGABYTE = 2**20
BLOCK = 50 * MEGABYTE
TIMES = 10
GROWTH = 32 * MEGABYTE
"""What a stream may take of the gateway's memory: windows and buffers of both legs, never the stream."""


@pytest.mark.row(11)
def test_programs_that_read_to_the_end_give_the_whole_result(shared: Shared) -> None:
    assert shared.out("cat", stdin=b"x\0y") == b"x\0y"
    assert shared.out("sort", stdin=b"b\na\n") == b"a\nb\n"
    assert shared.out("md5sum", stdin=b"hello").split()[0] == hashlib.md5(b"hello").hexdigest().encode()
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("inside/file")
        entry.size = 5
        tar.addfile(entry, BytesIO(b"whole"))
    assert shared.out("tar -xC /tmp && cat /tmp/inside/file", stdin=packed.getvalue()) == b"whole"


@pytest.mark.row(11)
def test_the_end_of_output_arrives_while_the_program_still_reads(ground: Ground) -> None:
    """The other half of half-close: stdout ends first, stdin is still taken."""
    process = subprocess.Popen(
        ground.ssh_command("exec 1>&- 2>&-; read line; read line; [ \"$line\" = second ] && exit 9"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.read() == b""
    process.communicate(b"first\nsecond\n", timeout=30)  # closes both
    assert process.returncode == 9


@pytest.mark.row(12)
@pytest.mark.parametrize("given", [None, b"to be read"])
def test_output_long_after_the_end_of_input_arrives(ground: Ground, given: bytes | None) -> None:
    late = ground.ssh("cat >/dev/null; sleep 2; echo late; echo err >&2; exit 3", stdin=given)
    assert (late.stdout, late.stderr, late.returncode) == (b"late\n", b"err\n", 3)


@pytest.mark.row(13)
def test_stdin_at_dev_null_costs_nothing(shared: Shared) -> None:
    def fastest(stdin: int) -> float:
        took = []
        for _ in range(8):
            started = time.monotonic()
            process = subprocess.Popen(shared.command("true"), stdin=stdin, stdout=subprocess.DEVNULL)
            assert process.wait(30) == 0
            took.append(time.monotonic() - started)
        return min(took)

    reading, writing = os.pipe()  # never written to, never closed
    try:
        assert fastest(subprocess.DEVNULL) < fastest(reading) + 0.2
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.row(14)
def test_random_bytes_and_long_lines_come_back_identical(ground: Ground) -> None:
    data = bytes(range(256)) * 64 + b"\0" * 70_000 + b"\xff" * 70_000 + random.Random(7).randbytes(20 * MEGABYTE)
    echoed = ground.ssh("cat", stdin=data, seconds=60)
    assert hashlib.sha256(echoed.stdout).digest() == hashlib.sha256(data).digest()
    assert shared_line(ground) == b"x" * 3_000_000


def shared_line(ground: Ground) -> bytes:
    """One line without an end."""
    return ground.ssh("head -c 3000000 /dev/zero | tr '\\0' x").stdout


@pytest.mark.row(15)
@pytest.mark.slow
def test_500_megabytes_each_way_under_slow_readers_are_whole_and_not_kept(
    ground: Ground, record_property: Callable[[str, object], None], tmp_path: Path
) -> None:
    block = random.Random(15).randbytes(BLOCK)
    wanted = hashlib.sha256()
    for _ in range(TIMES):
        wanted.update(block)
    with ground.master() as connection, Watched(ground.process.pid) as memory:
        up = subprocess.Popen(connection.command("sleep 3; sha256sum"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert up.stdin is not None
        for _ in range(TIMES):
            up.stdin.write(block)  # held while nobody reads
        said, _ = up.communicate(timeout=100)
        assert said.split()[0].decode() == wanted.hexdigest()

        connection.out("cat > /tmp/block", stdin=block)
        down = subprocess.Popen(
            connection.command(f"for i in $(seq {TIMES}); do cat /tmp/block; done"), stdout=subprocess.PIPE
        )
        assert down.stdout is not None
        time.sleep(3)  # a reader that does nothing: what is asserted is that nothing is lost, and how much was kept
        got = hashlib.sha256()
        while chunk := down.stdout.read(MEGABYTE):
            got.update(chunk)
        assert down.wait(10) == 0
        down.stdout.close()
        assert got.hexdigest() == wanted.hexdigest()
    record_property("gateway_growth_mb", round(memory.growth / MEGABYTE, 1))
    print(f"the gateway grew by {memory.growth / MEGABYTE:.1f} MB over 500 MB each way")
    assert memory.growth < GROWTH


class Watched:
    """By how much the resident memory of a process grew at most, looked at twenty times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.growth = 0

    def __enter__(self) -> Watched:
        self._before = resident(self._pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.growth = max(self.growth, resident(self._pid) - self._before)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.row(15)
def test_many_small_writes_of_both_streams_keep_their_order(ground: Ground) -> None:
    ran = ground.ssh("i=0; while [ $i -lt 3000 ]; do echo $i; echo $i >&2; i=$((i+1)); done", seconds=60)
    wanted = "".join(f"{number}\n" for number in range(3000)).encode()
    assert (ran.stdout, ran.stderr) == (wanted, wanted)


@pytest.mark.row(16)
def test_a_client_that_closes_its_output_early_ends_the_program(shared: Shared) -> None:
    command = " ".join(f"'{word}'" for word in shared.command("yes; echo after $? >&2"))
    ended = subprocess.run(["bash", "-c", f"{command} | head -1"], capture_output=True, timeout=30, check=True)
    assert ended.stdout == b"y\n"
    until(lambda: shared.ssh("ps ax | grep -c '[y]es$'").stdout == b"0\n")
