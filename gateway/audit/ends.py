"""The two ends of a file of the log: its first record, and its last."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.audit.chain import GENESIS, Head
from gateway.audit.segments import UNREADABLE, opened

CHUNK_BYTES = 2**20
MOST_LINE_BYTES = 2**26
DAMAGED = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What reading a line raises that somebody wrote who is not us."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A file's first record."""

    seq: int
    time: str
    previous: str
    """The hash of the last record before it."""


def begun(path: Path) -> Begun | None:
    """The first record of a file, packed or not; None while it is empty.

    Raises OSError; ValueError where it does not begin with a record.
    """
    try:
        with opened(path) as lines:
            line = lines.readline(MOST_LINE_BYTES)
        if not line:
            return None
        record = json.loads(line)
        datetime.fromisoformat(record["time"])
        return Begun(int(record["seq"]), record["time"], str(record["previous"]))
    except (*DAMAGED, *UNREADABLE) as error:
        raise ValueError("does not begin with a record") from error


def parsed_head(line: bytes) -> Head:
    """The head that this record, a file's last, is; of no record, the one before all.  Raises ValueError."""
    if not line:
        return Head(0, GENESIS)
    try:
        last = json.loads(line)
        return Head(int(last["seq"]), str(last["hash"]))
    except DAMAGED as error:
        raise ValueError("does not end in a record") from error


def last_line(file: int, size: int) -> tuple[bytes, bytes]:
    """The last whole line, and what stands behind it."""
    tail, start = b"", size
    while start > 0:
        length = min(CHUNK_BYTES, start)
        start -= length
        tail = os.pread(file, length, start) + tail
        if tail.count(b"\n") >= 2:
            break
    whole, newline, torn = tail.rpartition(b"\n")
    return (whole.rpartition(b"\n")[2], torn) if newline else (b"", tail)
