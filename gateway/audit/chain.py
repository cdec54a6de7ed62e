"""The hash chain: what makes a changed, removed or reordered record visible.

Each record is one line of JSON.  `hash` is SHA-256 over the line without it, in canonical form, and `previous` is the
hash of the record before, so every record vouches for all before it.  `seq` counts from 1.  The file beside it
(`<name>.head`) names the last record, so that a tail cut off is seen as well, as long as that file was not rewritten
too: this chain is not signed, and whoever can write both files can forge both (docs/threat-model.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def canonical(value: Mapping[str, Any]) -> bytes:
    """One form per value: sorted keys, no spaces, UTF-8; lone surrogates escaped, since they are not UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", errors="backslashreplace")


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(body)).hexdigest()


def head_file(log: Path) -> Path:
    return log.with_name(log.name + HEAD_SUFFIX)


def verify(log: Path) -> Iterator[str]:
    """Every fault found in `log`, as one sentence that names the line; nothing when the chain is whole.

    Raises OSError when the file cannot be read.
    """
    head = Head(0, GENESIS)
    try:
        claimed = claimed_head(log)
    except ValueError:
        yield f"the file {head_file(log).name} cannot be read: a tail that was cut off cannot be seen"
        claimed = None
    with log.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            record = _parse(line)
            if isinstance(record, str):
                yield f"line {number}: {record}"
                continue
            yield from (f"line {number}: {fault}" for fault in _faults(record, head))
            head = Head(int(record["seq"]), str(record["hash"]))
            # The head is written after the records it names are safe: a crash leaves it behind, never ahead.
            if claimed is not None and claimed.seq == head.seq and claimed.hash != head.hash:
                yield f"line {number}: record {head.seq} is not the one that {head_file(log).name} names"
    if claimed is None:
        if head.seq:
            yield f"the file {head_file(log).name} is missing or empty: a tail that was cut off cannot be seen"
    elif claimed.seq > head.seq:
        yield f"records {head.seq + 1} to {claimed.seq} are missing at the end"


def _parse(line: bytes) -> dict[str, Any] | str:
    if not line.endswith(b"\n"):
        return "the last record is incomplete"
    try:
        record = json.loads(line)
    except ValueError:
        return "not JSON: the record was changed"
    if not isinstance(record, dict) or not isinstance(record.get("seq"), int) or "hash" not in record:
        return "not a record of this chain: it was changed"
    return record


def _faults(record: dict[str, Any], head: Head) -> Iterator[str]:
    body = {key: value for key, value in record.items() if key != "hash"}
    if _digest(body) != record["hash"]:
        yield f"record {record['seq']} was changed: its hash does not fit its content"
    if record["seq"] != head.seq + 1:
        yield f"record {record['seq']} follows record {head.seq}: records were removed, added or reordered"
    elif record.get("previous") != head.hash:
        yield f"record {record['seq']} does not continue record {head.seq}: one of the two was replaced"


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
    except (KeyError, TypeError) as error:
        raise ValueError(f"{head_file(log).name} is not a head") from error
