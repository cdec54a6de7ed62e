"""The hash chain: what makes a changed, removed or reordered record visible.

Each record is one line of JSON.  `hash` is SHA-256 over the line without it, in canonical form, and `previous` is the
hash of the record before, so every record vouches for all before it, over all files of the log.  `seq` counts from 1.
Where closed files were removed on purpose, a record says so and where they ended.  The file beside the log
(`<name>.head`) names the last record, so that a tail cut off is seen as well, as long as that file was not rewritten
too: this chain is not signed, and whoever can write both files can forge both (docs/threat-model.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.audit.segments import PACKED, UNREADABLE, files, name_of
from gateway.telemetry import Step

GENESIS = "0" * 64
HEAD_SUFFIX = ".head"


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of a chain."""

    seq: int
    hash: str


def seal(record: Mapping[str, Any], head: Head) -> tuple[bytes, Head]:
    """The line for `record` as the next after `head`, and the new head."""
    body = {"seq": head.seq + 1, **record, "previous": head.hash}
    digest = _digest(body)
    return canonical({**body, "hash": digest}) + b"\n", Head(head.seq + 1, digest)


def canonical(value: Any) -> bytes:
    """One form per value: sorted keys, no spaces, UTF-8; lone surrogates escaped, since they are not UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", errors="backslashreplace")


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(body)).hexdigest()


def head_file(log: Path) -> Path:
    return log.with_name(log.name + HEAD_SUFFIX)


def claimed_head(log: Path) -> Head | None:
    """What the head file says; None where there is none yet.  Raises ValueError when it says nothing."""
    try:
        text = head_file(log).read_text()
    except FileNotFoundError:
        return None
    if not text.strip():
        return None
    try:
        claimed = json.loads(text)
        return Head(int(claimed["seq"]), str(claimed["hash"]))
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{head_file(log).name} is not a head") from error


@dataclass(slots=True)
class Tally:
    """What was looked at."""

    files: int = 0
    records: int = 0


def verify(log: Path, tally: Tally | None = None) -> Iterator[str]:
    """Every fault found in `log`, as one sentence that names file and line; nothing when the chain is whole.

    Raises OSError when a file cannot be read.  A gateway may be writing meanwhile.
    """
    walk = _Walk(tally or Tally())
    try:
        claimed = claimed_head(log)
    except ValueError:
        yield f"the file {head_file(log).name} cannot be read: a tail that was cut off cannot be seen"
        claimed = None
    try:
        for path, lines in files(log):
            for number, fault in walk.file(log, path, lines, claimed):
                yield f"{path.name}, line {number}: {fault}"
    except FileNotFoundError:
        if not walk.tally.files:
            raise
        yield f"{log.name} is missing"
    yield from walk.removed_unrecorded()
    if claimed is None:
        if walk.head.seq:
            yield f"the file {head_file(log).name} is missing or empty: a tail that was cut off cannot be seen"
    elif claimed.seq > walk.head.seq:
        yield f"records {walk.head.seq + 1} to {claimed.seq} are missing at the end"


class _Walk:
    """From the first record to the last, file by file."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.head = Head(0, GENESIS)
        self._before = ""
        """The file before."""
        self._gaps: list[tuple[Head, str]] = []
        """Where a file does not continue the one before: what would have to be removed on record, and the fault."""
        self._removed: set[Head] = set()
        """Where removed files ended, as records say."""

    def file(self, log: Path, path: Path, lines: Iterable[bytes], claimed: Head | None) -> Iterator[tuple[int, str]]:
        self.tally.files += 1
        number = 0
        begins = True
        try:
            for number, line in enumerate(lines, start=1):
                self.tally.records += 1
                record = parse(line)
                if isinstance(record, str):
                    yield number, record
                    continue
                if begins and path != log and _name(log, record) != path.name.removesuffix(PACKED):
                    yield number, f"record {record['seq']} is not the one that the file is named for"
                faults = _faults(record, self.head)
                if begins and record["seq"] > self.head.seq + 1:
                    self._gaps.append((Head(record["seq"] - 1, str(record.get("previous"))), self._gap(path, record)))
                    faults = _faults(record, self._gaps[-1][0])
                yield from ((number, fault) for fault in faults)
                begins = False
                self.head = Head(record["seq"], str(record["hash"]))
                if record.get("event") == Step.SEGMENT and record.get("outcome") == "removed":
                    self._removed |= _removal(record)
                # The head is written after the records it names are safe: a crash leaves it behind, never ahead.
                if claimed is not None and claimed.seq == self.head.seq and claimed.hash != self.head.hash:
                    yield number, f"record {self.head.seq} is not the one that {head_file(log).name} names"
        except UNREADABLE:
            yield number + 1, "the file cannot be unpacked from here: it was cut short or changed"
        if begins and path != log:
            yield number, "the file holds no record"
        self._before = path.name.removesuffix(PACKED)

    def _gap(self, path: Path, record: Mapping[str, Any]) -> str:
        missing = f"records {self.head.seq + 1} to {record['seq'] - 1} are missing"
        forerunner = record.get("file") if record.get("event") == Step.SEGMENT else None
        if forerunner == self._before:
            return f"{missing} at the end of {forerunner}"
        return f"{missing} before {path.name}" + (f": the last of them were in {forerunner}" if forerunner else "")

    def removed_unrecorded(self) -> Iterator[str]:
        """The gaps that nobody put on record.

        What was removed while this looked is proven by a later removal too: the oldest files go first.
        """
        last = max((removed.seq for removed in self._removed), default=0)
        yield from (fault for end, fault in self._gaps if end not in self._removed and end.seq >= last)


def _name(log: Path, record: Mapping[str, Any]) -> str:
    try:
        return name_of(log, record["seq"], record["time"]).name
    except (KeyError, TypeError, ValueError, OverflowError):
        return ""


def _removal(record: Mapping[str, Any]) -> set[Head]:
    """Where a file ended that was removed, as a record says; nothing where it says nothing that can be read."""
    seq, digest = record.get("last_seq"), record.get("last_hash")
    return {Head(seq, digest)} if isinstance(seq, int) and isinstance(digest, str) else set()


def parse(line: bytes) -> dict[str, Any] | str:
    """The record of one line, or what is wrong with it."""
    if not line.endswith(b"\n"):
        return "the last record is incomplete"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return "not JSON: the record was changed"
    if not isinstance(record, dict) or not isinstance(record.get("seq"), int) or "hash" not in record:
        return "not a record of this chain: it was changed"
    return record


def _fits(record: dict[str, Any]) -> bool:
    """Whether its hash is that of its content; never of what has no canonical form, such as NaN."""
    try:
        return bool(_digest({key: value for key, value in record.items() if key != "hash"}) == record["hash"])
    except (ValueError, RecursionError):
        return False


def _faults(record: dict[str, Any], head: Head) -> Iterator[str]:
    if not _fits(record):
        yield f"record {record['seq']} was changed: its hash does not fit its content"
    if record["seq"] != head.seq + 1:
        yield f"record {record['seq']} follows record {head.seq}: records were removed, added or reordered"
    elif record.get("previous") != head.hash:
        yield f"record {record['seq']} does not continue record {head.seq}: one of the two was replaced"
