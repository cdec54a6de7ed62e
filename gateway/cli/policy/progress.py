"""A bar on a terminal, for what takes its time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WIDTH = 30
EVERY_SECONDS = 0.1

Bar = Callable[[int], None]


@contextmanager
def bar(total: int) -> Iterator[Bar]:
    """Show how many of `total` are done, on standard error; gone at the end."""
    shown = 0.0

    def show(done: int) -> None:
        nonlocal shown
        if done < total and time.monotonic() - shown < EVERY_SECONDS:
            return
        shown = time.monotonic()
        part = min(1.0, done / total) if total else 1.0
        filled = "#" * round(part * WIDTH)
        sys.stderr.write(f"\r[{filled:<{WIDTH}}] {part:4.0%}  {done} of {total}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()
