"""How long closed files are kept, and that what is left can be proven."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit.chain import verify
from gateway.audit.log import AuditLog
from gateway.audit.rotation import Keeping
from gateway.audit.segments import closed, records


async def written(path: Path, keeping: Keeping, ages: list[float]) -> list[str]:
    """Write a record of each age, in days, a file each; the names of the closed files at the end."""
    async with AuditLog.open(path, keeping) as audit:
        for age in ages:
            time = datetime.now(UTC) - timedelta(days=age)
            await audit.record("step", {"time": time.isoformat(), "age": age})
    return [segment.path.name for segment in closed(path)]


@pytest.mark.parametrize("pack", [False, True])
async def test_so_many_files_are_kept_and_what_was_removed_is_on_record(tmp_path: Path, pack: bool) -> None:
    path = tmp_path / "audit.jsonl"
    left = await written(path, Keeping(rotate_bytes=1, pack=pack, keep_segments=2), [0] * 6)
    removed = [record for record in records(path) if record.get("outcome") == "removed"]
    first = next(records(path))

    assert len(left) == 2
    assert list(verify(path)) == []
    assert removed[-1]["event"] == "segment"
    assert removed[-1]["last_seq"] == first["seq"] - 1
    assert removed[-1]["last_hash"] == first["previous"]


async def test_files_are_kept_for_so_many_days_after_their_last_record(tmp_path: Path) -> None:
    """The second is closed by a record of today: its own are three days old, and nobody knows when it was quiet."""
    path = tmp_path / "audit.jsonl"
    await written(path, Keeping(rotate_bytes=1), [9, 3])
    assert [record["age"] for record in records(path) if record["event"] == "step"] == [9, 3]
    await written(path, Keeping(rotate_bytes=1, keep_days=2), [0])

    assert [record["age"] for record in records(path) if record["event"] == "step"] == [9, 3, 0]
    assert list(verify(path)) == []


async def test_a_file_that_is_over_for_long_enough_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    past = (datetime.now(UTC) - timedelta(days=9)).isoformat()
    monkeypatch.setattr("gateway.audit.writer.now", lambda: past)
    await written(path, Keeping(rotate_bytes=1), [9, 9, 9])
    monkeypatch.undo()
    left = await written(path, Keeping(rotate_bytes=1, keep_days=2), [0])

    assert len(left) == 1
    assert list(verify(path)) == []
    assert [record["age"] for record in records(path) if record["event"] == "step"] == [9, 0]


async def test_what_was_removed_and_is_on_no_record_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    await written(path, Keeping(rotate_bytes=1, keep_segments=2), [0] * 6)
    before = next(records(path))["seq"]
    gone = closed(path)[0].path
    gone.unlink()

    [fault] = verify(path)
    assert fault.startswith(f"records 1 to {next(records(path))['seq'] - 1} are missing before")
    assert gone.name in fault
    assert before > 1


async def test_what_was_removed_while_it_was_looked_at_is_not_missed(tmp_path: Path) -> None:
    """The oldest files went, and by the end of the log what told of the first of them had gone too."""
    path = tmp_path / "audit.jsonl"
    await written(path, Keeping(rotate_bytes=1), [0] * 4)
    second = closed(path)[1].path
    seen = second.read_bytes()
    await written(path, Keeping(rotate_bytes=1, keep_segments=2), [0] * 4)
    before = [record for record in records(path) if record.get("last_seq") == 1]
    second.write_bytes(seen)

    assert before == []
    assert list(verify(path)) == []


async def test_a_removal_that_names_another_hash_proves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    await written(path, Keeping(rotate_bytes=1, keep_segments=2), [0] * 6)
    hashes = {record["last_hash"] for record in records(path) if record.get("outcome") == "removed"}
    first = closed(path)[0].path
    lines = first.read_text().splitlines(keepends=True)
    opening = json.loads(lines[0])
    assert opening["previous"] in hashes
    first.write_text(lines[0].replace(opening["previous"], "0" * 64) + "".join(lines[1:]))

    assert any("are missing before" in fault for fault in verify(path))
    assert any("was changed" in fault for fault in verify(path))


async def test_a_damaged_file_is_kept_and_all_after_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "audit.jsonl"
    await written(path, Keeping(rotate_bytes=1), [0] * 4)
    damaged = closed(path)[1].path
    damaged.write_text("hello\n")
    async with AuditLog.open(path, Keeping(rotate_bytes=1, keep_segments=1)) as audit:
        await audit.record("step", {})

    assert len(closed(path)) == 4
    assert "audit_segment_unreadable" in caplog.messages
