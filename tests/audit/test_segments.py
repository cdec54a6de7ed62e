"""Reading a log: all its files as one, whatever a gateway does to them meanwhile."""

from __future__ import annotations

import gzip
import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import segments
from gateway.audit.segments import closed, files, name_of, records


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Records 1 to 9, three in each of three files, an hour apart."""
    path = tmp_path / "audit.jsonl"
    for first, hour in ((1, 7), (4, 8)):
        write(name_of(path, first, f"2026-11-22T0{hour}:00:00.5Z"), first)
    write(path, 7)
    return path


def write(path: Path, first: int) -> None:
    path.write_text("".join(json.dumps({"seq": first + n, "event": "step"}) + "\n" for n in range(3)))


def pack(path: Path) -> None:
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def numbers(log: Path, since: datetime | None = None) -> list[int]:
    return [record["seq"] for record in records(log, since=since)]


def test_a_log_that_was_never_closed_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write(path, 1)

    assert numbers(path) == [1, 2, 3]


def test_files_are_read_as_one_oldest_first(log: Path) -> None:
    log.with_name("audit.jsonl.head").write_text("{}")
    log.with_name("audit.notes.jsonl").write_text("not of the log")
    log.with_name("audits.000000000001-20261122T070000Z.jsonl").write_text("of another one")

    assert [segment.path.name for segment in closed(log)] == [
        "audit.000000000001-20261122T070000Z.jsonl",
        "audit.000000000004-20261122T080000Z.jsonl",
    ]
    assert numbers(log) == list(range(1, 10))


def test_a_packed_file_is_read_like_any_other(log: Path) -> None:
    pack(closed(log)[0].path)

    assert closed(log)[0].is_packed
    assert numbers(log) == list(range(1, 10))


def test_where_a_file_and_its_packed_copy_are_the_file_is_read_alone(log: Path) -> None:
    first = closed(log)[0].path
    first.with_name(first.name + ".gz").write_bytes(b"half of it")

    assert numbers(log) == list(range(1, 10))


@pytest.mark.parametrize(
    ("hour", "expected"), [(6, range(1, 10)), (8, range(1, 10)), (9, range(4, 10)), (23, range(4, 10))]
)
def test_files_that_were_closed_before_are_left_out(log: Path, hour: int, expected: range) -> None:
    """The second may have been closed at any time after its start: the last file's name does not say its own."""
    assert numbers(log, datetime(2026, 11, 22, hour, tzinfo=UTC)) == list(expected)


def test_a_record_that_is_just_being_written_is_left_out(log: Path) -> None:
    with log.open("a") as out:
        out.write('{"seq": 10')

    assert numbers(log) == list(range(1, 10))


def test_a_file_that_is_closed_while_it_is_read_is_not_read_twice(log: Path) -> None:
    found = []
    for record in records(log):
        found.append(record["seq"])
        if record["seq"] == 8:
            log.rename(name_of(log, 7, "2026-11-22T09:00:00Z"))
            write(log, 10)

    assert found == list(range(1, 10))


def test_a_file_that_is_closed_before_it_is_reached_is_read_from_its_new_name(log: Path) -> None:
    found = []
    for record in records(log):
        found.append(record["seq"])
        if record["seq"] == 2:
            log.rename(name_of(log, 7, "2026-11-22T09:00:00Z"))
            write(log, 10)

    assert found == list(range(1, 13))


def test_what_is_packed_or_removed_before_it_is_reached_is_no_error(log: Path) -> None:
    write(name_of(log, 7, "2026-11-22T09:00:00Z"), 7)
    write(log, 10)
    found = []
    for path, lines in files(log):
        found += [json.loads(line)["seq"] for line in lines]
        if path == closed(log)[0].path:
            closed(log)[1].path.unlink()
            pack(closed(log)[1].path)

    assert found == [1, 2, 3, *range(7, 13)]


def test_what_is_packed_between_the_listing_and_the_reading_is_read(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(log: Path, **arguments: Any) -> list[segments.Segment]:
        found = closed(log, **arguments)
        for segment in found:
            if not segment.is_packed:
                pack(segment.path)
        return found

    monkeypatch.setattr(segments, "closed", stale)

    assert numbers(log) == list(range(1, 10))


def test_what_is_packed_while_the_folder_is_listed_is_not_missed(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing can pass where the new name will be, and then find the old one gone."""
    names = list(log.parent.glob("*"))
    half = [path for path in names if path != closed(log)[0].path]
    listings = itertools.cycle((half, names))
    monkeypatch.setattr(Path, "glob", lambda *_: next(listings))

    assert [segment.first for segment in closed(log)] == [1, 4]


def test_between_the_two_names_of_a_rotation_the_next_file_is_read(log: Path) -> None:
    log.rename(log.with_name("audit.jsonl.next"))

    assert numbers(log) == list(range(1, 10))


def test_what_cannot_be_read_is_named(log: Path, tmp_path: Path) -> None:
    first, second = (segment.path for segment in closed(log))
    second.write_text('{"seq": 4}\n{"seq"\n')
    with pytest.raises(ValueError, match=r"audit\.000000000004-20261122T080000Z\.jsonl, line 2: not JSON"):
        numbers(log)

    second.write_text('{"seq": 4}\n{"seq": 5')
    with pytest.raises(ValueError, match="line 2: the last record is incomplete"):
        numbers(log)

    pack(first)
    packed = closed(log)[0].path
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(ValueError, match="cannot be unpacked: it was cut short or changed"):
        numbers(log)

    with pytest.raises(FileNotFoundError, match=r"missing\.jsonl"):
        numbers(tmp_path / "missing.jsonl")
