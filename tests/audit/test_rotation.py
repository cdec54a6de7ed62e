"""Files that are closed: when, what is in each, what verify finds in them, and what another program does to them."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.chain import Tally, head_file, verify
from gateway.audit.log import AuditLog
from gateway.audit.rotation import Keeping
from gateway.audit.segments import closed, records
from gateway.errors import AuditUnavailable
from gateway.settings import AuditSettings
from tests.audit.stopping import EVERY_TIME
from tests.waiting import until

PACKING = Keeping(rotate_bytes=1, pack=True)


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    """Records 1 to 7 in four files: each after the first begins with the closing of the one before."""
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path, EVERY_TIME) as audit:
        for number in range(4):
            await audit.record("step", {"number": number})
    return path


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def days_ago(days: float) -> dict[str, str]:
    """Fields that make a record as old."""
    return {"time": (datetime.now(UTC) - timedelta(days=days)).isoformat()}


async def test_a_new_file_begins_with_the_closing_of_the_old_one_and_continues_its_chain(log: Path) -> None:
    first, second, _ = (segment.path for segment in closed(log))
    [one] = read(first)
    opening, two = read(second)

    assert opening["event"] == "segment"
    assert opening["outcome"] == "closed"
    assert opening["file"] == first.name
    assert (opening["first_seq"], opening["last_seq"]) == (1, 1)
    assert opening["previous"] == one["hash"]
    assert two["previous"] == opening["hash"]
    assert list(verify(log)) == []


async def test_a_log_goes_on_after_a_restart_whatever_is_closed(log: Path) -> None:
    async with AuditLog.open(log, EVERY_TIME) as audit:
        await audit.record("step", {"number": 4})
    tally = Tally()

    assert list(verify(log, tally)) == []
    assert (tally.files, tally.records) == (5, 9)
    assert [record["number"] for record in records(log) if record["event"] == "step"] == [0, 1, 2, 3, 4]


async def test_a_file_is_closed_when_it_is_long_enough(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path, Keeping(rotate_bytes=3000)) as audit:
        for _ in range(40):
            await audit.record("step", {"padding": "x" * 200})
    sizes = [segment.path.stat().st_size for segment in closed(path)]

    assert len(sizes) > 3
    assert all(3000 <= size < 3600 for size in sizes)
    assert list(verify(path)) == []


async def test_a_file_is_closed_when_it_is_old_enough(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    keeping = Keeping(rotate_seconds=86400)
    async with AuditLog.open(path, keeping) as audit:
        await audit.record("step", {})
        await audit.record("step", {})
        assert closed(path) == []
    path.unlink()
    head_file(path).unlink()
    async with AuditLog.open(path) as audit:
        await audit.record("step", days_ago(1.1))
    async with AuditLog.open(path, keeping) as audit:
        await audit.record("step", {})
        await audit.record("step", {})

    assert [len(read(segment.path)) for segment in closed(path)] == [1]
    assert len(read(path)) == 3
    assert list(verify(path)) == []


async def test_many_at_once_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path, Keeping(rotate_bytes=4000, pack=True)) as audit:

        async def session(name: int) -> None:
            for number in range(20):
                await audit.record("step", {"session": name, "number": number})

        await asyncio.gather(*(session(name) for name in range(10)))
    found = [(record["session"], record["number"]) for record in records(path) if record["event"] == "step"]

    assert sorted(found) == [(name, number) for name in range(10) for number in range(20)]
    assert len(closed(path)) >= 5
    assert list(verify(path)) == []


async def test_each_file_holds_the_documents_that_its_decisions_name(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    documents = {"d1": {"who": "alice"}, "d2": {"who": "bob"}}
    keeping = Keeping(rotate_bytes=2000)
    async with AuditLog.open(path, keeping) as audit:
        for number in range(20):
            named = {"d1": documents["d1"]} if number % 2 else documents
            await audit.record("request", {"basis": {name: name for name in named}, "padding": "x" * 300}, named)

    files = [*(segment.path for segment in closed(path)), path]
    assert len(files) > 3
    for file in files:
        there: set[str] = set()
        for record in read(file):
            if record["event"] == "data":
                assert record["digest"] not in there, "once in each file"
                there.add(record["digest"])
            assert there >= set(record.get("basis", {}).values()), (file.name, record["seq"])


async def test_closed_files_are_packed_beside_the_writing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path, PACKING) as audit:
        for number in range(4):
            await audit.record("step", {"number": number})
        await until(lambda: [segment.is_packed for segment in closed(path)] == [True] * 3)

    assert list(verify(path)) == []
    assert [record["number"] for record in records(path) if record["event"] == "step"] == [0, 1, 2, 3]
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir() if file.stat().st_mode & 0o77} == {}


async def test_what_was_not_packed_yet_is_packed_at_the_next_start(log: Path) -> None:
    async with AuditLog.open(log, PACKING):
        await until(lambda: all(segment.is_packed for segment in closed(log)))

    assert list(verify(log)) == []


# -- what verify finds ----------------------------------------------------------------------------------------------


def swap(log: Path) -> None:
    one, two, _ = (segment.path for segment in closed(log))
    content = one.read_bytes(), two.read_bytes()
    one.write_bytes(content[1])
    two.write_bytes(content[0])


def edit(log: Path) -> None:
    second = closed(log)[1].path
    second.write_text(second.read_text().replace('"number":1', '"number":7'))


def cut(log: Path) -> None:
    second = closed(log)[1].path
    second.write_text(second.read_text().splitlines(keepends=True)[0])


def pack_and_cut(log: Path) -> None:
    second = closed(log)[1].path
    second.with_name(second.name + ".gz").write_bytes(gzip.compress(second.read_bytes())[:-40])
    second.unlink()


def rename(log: Path) -> None:
    second = closed(log)[1].path
    second.rename(second.with_name(second.name.replace("000002-", "000003-")))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda log: closed(log)[1].path.unlink(), r"records 2 to 3 are missing before {2}: the last of .* in {1}"),
        (lambda log: closed(log)[0].path.unlink(), r"records 1 to 1 are missing before {1}: the last of .* in {0}"),
        (lambda log: closed(log)[2].path.unlink(), r"records 4 to 5 are missing before audit\.jsonl: .* in {2}"),
        (lambda log: log.unlink(), r"audit\.jsonl is missing"),
        (swap, r"{0}, line 1: record 2 is not the one that the file is named for"),
        (edit, r"{1}, line 2: record 3 was changed: its hash does not fit its content"),
        (cut, r"records 3 to 3 are missing at the end of {1}"),
        (pack_and_cut, r"{1}\.gz, line \d: the file cannot be unpacked from here: it was cut short or changed"),
        (rename, r"line 1: record 2 is not the one that the file is named for"),
        (lambda log: closed(log)[1].path.write_bytes(b""), r"{1}, line 0: the file holds no record"),
    ],
)
async def test_verify_finds_what_was_done_to_a_closed_file(
    log: Path, change: Callable[[Path], None], fault: str
) -> None:

    names = [re.escape(segment.path.name) for segment in closed(log)]
    assert list(verify(log)) == []
    change(log)
    found = list(verify(log))

    assert any(re.search(fault.format(*names), one) for one in found), found


async def test_the_end_is_missed_also_when_the_last_files_are_gone(log: Path) -> None:
    log.write_bytes(closed(log)[2].path.read_bytes())
    closed(log)[2].path.unlink()

    assert "records 6 to 7 are missing at the end" in list(verify(log))


# -- what another program does ----------------------------------------------------------------------------------------


async def test_a_file_that_logrotate_moved_is_said_and_nothing_goes_on_before_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.jsonl"
    moved = path.with_name("audit.jsonl.1")
    async with AuditLog.open(path) as audit:
        await audit.record("before", {})
        path.rename(moved)
        with pytest.raises(AuditUnavailable):
            await audit.record("meanwhile", {})
        path.write_bytes(b"")
        with pytest.raises(AuditUnavailable):
            await audit.record("in a file that is not ours", {})
        assert audit.failed.is_set()
        [said, _] = [record for record in caplog.records if record.message == "audit_unwritable"]
        moved.rename(path)
        await audit.record("after", {})

    assert "was moved or replaced by another program" in vars(said)["error"]
    assert "logrotate" in vars(said)["remedy"]
    assert [record["event"] for record in records(path)] == ["before", "after"]
    assert list(verify(path)) == []


async def test_a_file_that_was_moved_and_is_missed_at_the_start_is_said(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path) as audit:
        await audit.record("before", {})
    path.rename(path.with_name("audit.jsonl.1"))

    with pytest.raises(AuditUnavailable, match="is missing, but had 1 records"):
        async with AuditLog.open(path):
            pass
    assert not path.exists()


@pytest.mark.parametrize("change", [lambda path: os.truncate(path, 0), lambda path: path.write_text("x")])
async def test_a_file_that_another_program_wrote_to_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path) as audit:
        await audit.record("before", {})
        change(path)
        with pytest.raises(AuditUnavailable):
            await audit.record("after", {})

    assert "another program wrote to it" in vars(caplog.records[-1])["error"]


async def test_closed_files_without_the_one_that_follows_are_not_continued(log: Path) -> None:
    log.unlink()
    head_file(log).unlink()

    with pytest.raises(AuditUnavailable, match=r"is missing, and audit\..*\.jsonl is not its last file"):
        async with AuditLog.open(log):
            pass


async def test_what_a_rotation_left_does_not_pass_for_the_log(log: Path) -> None:
    """A next file that does not continue the last closed one: the log's own file was removed after a crash."""
    following = log.with_name("audit.jsonl.next")
    following.write_text(closed(log)[1].path.read_text())
    log.unlink()

    with pytest.raises(AuditUnavailable, match="is missing"):
        async with AuditLog.open(log):
            pass
    assert following.exists()


async def test_a_file_of_the_name_that_a_closed_one_needs_is_not_overwritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path) as audit:
        await audit.record("step", {"time": "2026-11-22T07:00:00.5Z"})
    taken = path.with_name("audit.000000000001-20261122T070000Z.jsonl")
    taken.write_text("evidence of something")
    async with AuditLog.open(path, EVERY_TIME) as audit:
        await audit.record("step", {})

    assert taken.read_text() == "evidence of something"
    assert "audit_rotation_failed" in caplog.messages
    assert len(read(path)) == 2


async def test_two_gateways_cannot_write_one_log_that_rotates(log: Path) -> None:
    async with AuditLog.open(log, EVERY_TIME) as audit:
        await audit.record("step", {})
        with pytest.raises(AuditUnavailable, match="in use by another gateway"):
            async with AuditLog.open(log):
                pass


def test_the_settings_say_it_all() -> None:
    said = AuditSettings(rotate_bytes=2**21, rotate_seconds=61, compress=True, keep_segments=4, keep_days=5)

    assert Keeping.of(said) == Keeping(2**21, 61, True, keep_segments=4, keep_days=5)
    assert Keeping.of(AuditSettings()) == Keeping(2**27, 86400)
