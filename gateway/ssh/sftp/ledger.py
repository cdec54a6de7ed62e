"""What happened to files on one channel, for the record: in batches, at most a moment late, and bounded.

An entry for each operation and for each file that was closed, with its bytes.  What only looks (stat, readdir, ...) is
listed up to a bound, then counted.  Entries that could not be put on record in time are in the session's last record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

BATCH_SECONDS = 0.25
BATCH_ENTRIES = 200
BATCH_CHARACTERS = 64 * 1024
MAX_BACKLOG = 1000
"""Entries that may wait for the disk; then no more is taken from the client."""
MAX_LOOKS = 10_000


class Ledger:
    """Entries on their way to the record, and sums of all that there were."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []
        self._characters = 0
        self._writing = 0
        self._looks = 0
        self._unlisted: Counter[str] = Counter()
        self._operations: Counter[str] = Counter()
        self._refused = 0
        self._bytes_read = 0
        self._bytes_written = 0

    def note(self, operation: str, outcome: str, *, looks: bool = False, **facts: Any) -> None:
        """`outcome` is `ok`, what the file system said, or `refused`."""
        self._operations[operation] += 1
        self._refused += outcome == "refused"
        self._bytes_read += facts.get("bytes_read", 0)
        self._bytes_written += facts.get("bytes_written", 0)
        self._looks += looks
        if looks and self._looks > MAX_LOOKS:
            self._unlisted[operation] += 1
            return
        self._entries.append({"operation": operation, "outcome": outcome, **facts})
        self._characters += sum(len(fact) for fact in facts.values() if isinstance(fact, str))

    @property
    def is_due(self) -> bool:
        """Whether a batch is full."""
        return len(self._entries) >= BATCH_ENTRIES or self._characters >= BATCH_CHARACTERS

    @property
    def backlog(self) -> int:
        return len(self._entries) + self._writing

    def take(self) -> list[dict[str, Any]]:
        """The entries to put on record now; `written` follows."""
        taken, self._entries, self._characters = self._entries, [], 0
        self._writing += len(taken)
        return taken

    def written(self, taken: list[dict[str, Any]], *, failed: bool = False) -> None:
        self._writing -= len(taken)
        if failed:
            self._entries = taken + self._entries

    def record(self) -> Mapping[str, Any]:
        """For the session's last record: the sums, and what is not on record yet."""
        late = {"late": self._entries} if self._entries else {}
        unlisted = {"unlisted": dict(self._unlisted)} if self._unlisted else {}
        return {
            "operations": dict(self._operations),
            "refused": self._refused,
            "bytes_read": self._bytes_read,
            "bytes_written": self._bytes_written,
            **unlisted,
            **late,
        }
