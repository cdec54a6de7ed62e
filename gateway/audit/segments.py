"""The files of one log, and how to read them as one: `records` is the way in for whoever searches or replays.

The log is written at its own path (`audit.jsonl`).  A file that is closed has the number of its first record and that
record's time in its name, `audit.000000000001-20261122T074342Z.jsonl`, and may be packed (`.gz`).  A gateway may be
writing, closing, packing and removing meanwhile: every record that was there at the start is read once, unless it was
removed on purpose.  Each file is complete in itself: a document that a record names by its digest stands before it in
the same file.  Nothing is proven here; that is `gateway.audit.chain.verify`.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

PACKED = ".gz"
NEXT_SUFFIX = ".next"
TIME = "%Y%m%dT%H%M%SZ"
UNREADABLE = (EOFError, zlib.error, gzip.BadGzipFile)
"""What a packed file that is cut short or changed raises on the way."""

Lines = IO[bytes] | gzip.GzipFile


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A closed file of a log."""

    first: int
    """`seq` of its first record."""
    started: str
    """When that was made, as in its name: in UTC, and in the order of time as text too."""
    path: Path

    @property
    def is_packed(self) -> bool:
        return self.path.suffix == PACKED


def records(log: Path, *, since: datetime | None = None) -> Iterator[dict[str, Any]]:
    """Every record of `log`, oldest first, over all its files.

    With `since` (aware) files that were closed before it are left out; earlier records can still come, of the first
    file that is read.  A last record that is just being written is left out too.  Raises OSError when a file cannot be
    read, FileNotFoundError when there is no such log, and ValueError that names file and line where one is damaged.
    """
    for path, lines in files(log, since=since):
        try:
            for number, line in enumerate(lines, start=1):
                if line.endswith(b"\n"):
                    yield _record(line, path, number)
                elif path != log:
                    raise ValueError(f"{path.name}, line {number}: the last record is incomplete")
        except UNREADABLE as error:
            raise ValueError(f"{path.name} cannot be unpacked: it was cut short or changed") from error


def _record(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}, line {number}: not JSON, the record was changed") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path.name}, line {number}: not a record")
    return record


def files(log: Path, *, since: datetime | None = None) -> Iterator[tuple[Path, Lines]]:
    """Each file of `log` under its name, opened to be read line by line, oldest first; each is closed here.

    Raises FileNotFoundError at the end when the file that is being written is missing.
    """
    after = 0
    while True:
        newer = [segment for segment in closed(log, since=since) if segment.first > after]
        if newer:
            after = newer[0].first
            with suppress(FileNotFoundError), _found(newer[0]) as (path, lines):  # else it was removed meanwhile
                yield path, lines
            continue
        with _written(log) as lines:
            # What was opened may just have been closed, and records stand between it and what was read before.
            if any(segment.first > after for segment in closed(log, since=since)):
                continue
            yield log, lines
            return


def closed(log: Path, *, since: datetime | None = None) -> list[Segment]:
    """The closed files of `log`, oldest first; those that were closed before `since` left out."""
    found: dict[int, Segment] = {}
    # Twice: one that is packed while a folder is listed can be missed, under its old name and its new one.  For the
    # same reason nobody asks here whether it is still there under the name that was found.
    for path in sorted({*log.parent.glob("*"), *log.parent.glob("*")}, reverse=True):
        match = names(log).fullmatch(path.name)
        if match:  # of a file and its packed copy, the file: the copy may not be whole
            found[int(match[1])] = Segment(int(match[1]), match[2], path)
    segments = sorted(found.values())
    if since is None:
        return segments
    start = since.astimezone(UTC).strftime(TIME)
    ended = [later.started < start for later in segments[1:]] + [False]
    return [segment for segment, is_over in zip(segments, ended, strict=True) if not is_over] if segments else []


def names(log: Path) -> re.Pattern[str]:
    """What closed files of `log` are called: the number of the first record, and its time."""
    return re.compile(rf"{re.escape(log.stem)}\.(\d{{12,}})-(\d{{8}}T\d{{6}}Z){re.escape(log.suffix)}({PACKED})?")


def name_of(log: Path, first: int, time: str) -> Path:
    """What `log` is called once it is closed, by its first record's `seq` and `time`."""
    started = datetime.fromisoformat(time).astimezone(UTC).strftime(TIME)
    return log.with_name(f"{log.stem}.{first:012d}-{started}{log.suffix}")


@contextmanager
def _found(segment: Segment) -> Iterator[tuple[Path, Lines]]:
    """A closed file, also where it was packed a moment ago.  Raises FileNotFoundError: it was removed."""
    path = segment.path
    try:
        lines = opened(path)
    except FileNotFoundError:
        path = path.with_name(path.name + PACKED)
        lines = opened(path)
    with lines:
        yield path, lines


def opened(path: Path) -> Lines:
    return gzip.open(path) if path.suffix == PACKED else path.open("rb")


def _written(log: Path) -> IO[bytes]:
    """The file that is being written.  Between two renames of a rotation it has the name of the next one."""
    for path in (log, log.with_name(log.name + NEXT_SUFFIX)):
        with suppress(FileNotFoundError):
            return path.open("rb")
    return log.open("rb")
