"""The chain: what verify finds, and what the log does when its disk fails it."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.audit.chain import head_file, verify
from gateway.audit.log import AuditLog
from gateway.errors import AuditUnavailable


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    """A log of ten records."""
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path) as audit:
        for number in range(10):
            await audit.record("step", {"number": number, "who": "é\udc80"})
    return path


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


async def test_a_whole_log_has_no_fault_also_when_it_was_continued(log: Path) -> None:
    async with AuditLog.open(log) as audit:
        await asyncio.gather(*(audit.record("more", {"number": number}) for number in range(50)))

    assert list(verify(log)) == []
    assert [json.loads(line)["seq"] for line in lines_of(log)] == list(range(1, 61))


REMOVED = '{"seq":1,"event":"segment","outcome":"removed","hash":"","last_seq":"1","last_hash":[]}\n'
"""What no log of ours holds: a removal that says nothing."""


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda lines: [lines[0].replace('"number":0', '"number":7'), *lines[1:]], "record 1 was changed"),
        (lambda lines: lines[:4] + lines[5:], "record 6 follows record 4"),
        (lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]], "record 6 follows record 4"),
        (lambda lines: lines[1:], "records 1 to 1 are missing before audit.jsonl"),
        (lambda lines: lines[:-1], "records 10 to 10 are missing at the end"),
        (lambda lines: [*lines[:3], *lines[2:]], "record 3 follows record 3"),
        (lambda lines: [*lines[:3], "{}\n", *lines[3:]], "not a record of this chain"),
        (lambda lines: [*lines[:-1], lines[-1][:20]], "the last record is incomplete"),
        (lambda _lines: [], "records 1 to 10 are missing at the end"),
        (lambda lines: [lines[0].replace('"number":0', '"number":NaN'), *lines[1:]], "record 1 was changed"),
        (lambda lines: [lines[0].replace('"number":0', '"number":1e999'), *lines[1:]], "record 1 was changed"),
        (lambda lines: ["[" * 10_000 + "]" * 10_000 + "\n", *lines[1:]], "line 1: not JSON"),
        (lambda lines: [REMOVED, *lines[1:]], "record 1 was changed"),
    ],
)
async def test_verify_finds(log: Path, change: object, fault: str) -> None:
    assert callable(change)
    log.write_text("".join(change(lines_of(log))))

    found = list(verify(log))
    assert any(fault in one for one in found), found


async def test_verify_finds_a_time_that_is_none(log: Path) -> None:
    first = json.loads(lines_of(log)[0]) | {"time": "9999-12-31T23:59:59-14:00"}
    log.with_name("audit.000000000001-20261122T074342Z.jsonl").write_text(json.dumps(first) + "\n")
    assert any("not the one that the file is named for" in found for found in verify(log))


@pytest.mark.parametrize("text", ['{"seq": 1e999, "hash": ""}', "[" * 10_000 + "]" * 10_000])
async def test_a_head_that_is_none_is_told(log: Path, text: str) -> None:
    head_file(log).write_text(text)
    assert any("audit.jsonl.head cannot be read" in found for found in verify(log))
    with pytest.raises(AuditUnavailable):
        async with AuditLog.open(log):
            pass


async def test_a_record_sealed_anew_does_not_continue_the_chain(log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    async with AuditLog.open(other) as audit:
        await audit.record("forged", {})
    lines = lines_of(log)
    log.write_text("".join([lines_of(other)[0], *lines[1:]]))

    assert any("does not continue record 1" in fault for fault in verify(log))


async def test_a_torn_last_line_is_kept_aside_and_the_chain_goes_on(log: Path) -> None:
    with log.open("a") as out:
        out.write('{"seq": 11, "torn')
    async with AuditLog.open(log) as audit:
        await audit.record("after", {})

    assert list(verify(log)) == []
    assert log.with_name("audit.jsonl.torn").read_text() == '{"seq": 11, "torn'


async def test_a_log_whose_tail_is_not_ours_is_refused(log: Path) -> None:
    with log.open("a") as out:
        out.write("hello\n")

    with pytest.raises(AuditUnavailable, match="does not end in a record"):
        async with AuditLog.open(log):
            pass


async def test_two_gateways_cannot_write_one_log(log: Path) -> None:
    async with AuditLog.open(log):
        with pytest.raises(AuditUnavailable, match="in use by another gateway"):
            async with AuditLog.open(log):
                pass


async def test_files_are_private(log: Path) -> None:
    assert log.stat().st_mode & 0o777 == 0o600
    assert head_file(log).stat().st_mode & 0o777 == 0o600


async def test_a_disk_that_is_full_fails_the_record_and_the_chain_goes_on_when_there_is_room(log: Path) -> None:
    async with AuditLog.open(log) as audit:
        with file_size_limit(log.stat().st_size + 700):
            await audit.record("fits", {})
            with pytest.raises(AuditUnavailable):
                await audit.record("does not fit", {"padding": "x" * 2000})
            assert audit.failed.is_set()
        await audit.record("fits again", {})
        assert not audit.failed.is_set()

    assert list(verify(log)) == []
    assert "does not fit" not in log.read_text()


async def test_a_caller_that_is_cancelled_still_has_its_record(log: Path) -> None:
    async with AuditLog.open(log) as audit:
        task = asyncio.ensure_future(audit.record("cancelled caller", {}))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    assert "cancelled caller" in log.read_text()
    assert list(verify(log)) == []


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond `size` fail with EFBIG, as on a full disk."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
