"""What is open on one channel.  The client's handles are ours: it cannot name one that it was not given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MAX_HANDLES = 1024


@dataclass(slots=True)
class Handle:
    """One open file or directory; bytes as the engineer sees them."""

    inner: bytes
    operation: str
    path: str
    bytes_read: int = 0
    bytes_written: int = 0
    waiting: int = 0
    """Requests on it that wait for their turn: those that come after have to wait too."""


class Handles:
    def __init__(self) -> None:
        self._open: dict[bytes, Handle] = {}
        self._opening = 0
        self._next = 0

    @property
    def full(self) -> bool:
        return len(self._open) + self._opening >= MAX_HANDLES

    def __iter__(self) -> Iterator[Handle]:
        return iter(list(self._open.values()))

    def opening(self) -> None:
        """One is asked for; `opened` or `not_opened` follows."""
        self._opening += 1

    def not_opened(self) -> None:
        self._opening -= 1

    def opened(self, handle: Handle) -> bytes:
        """Keep it; what the client may call it, never used twice."""
        self._opening -= 1
        self._next += 1
        name = self._next.to_bytes(8, "big")
        self._open[name] = handle
        return name

    def find(self, name: bytes) -> Handle | None:
        return self._open.get(name)

    def close(self, name: bytes) -> None:
        self._open.pop(name, None)

    def clear(self) -> None:
        self._open.clear()
