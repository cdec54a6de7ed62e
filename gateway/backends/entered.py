"""What every workspace of ours is, as the context that it lives in: one that is left half-way is ended all the same."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from gateway.concurrency import to_the_end


class Entered:
    """Started on enter and ended on exit; a start that fails or is cancelled is ended before anybody hears of it."""

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await to_the_end(self._end())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await to_the_end(self._end())

    async def _start(self) -> None:
        raise NotImplementedError

    async def _end(self) -> None:
        """Bounds itself, and may be called twice, or with nothing started."""
        raise NotImplementedError
