"""What can stand between the two ends of a lane."""

from __future__ import annotations

from typing import Protocol


class Filter(Protocol):
    """What stands between two ends where bytes are not merely passed on (ssh/sftp/)."""

    def received(self, data: bytes, datatype: int | None) -> None: ...

    def ended(self) -> None:
        """No more will be received."""
        ...

    def drained(self) -> None:
        """There is room again to write to this end, or it is held no more."""
        ...

    def lost(self) -> None: ...
