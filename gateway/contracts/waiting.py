"""Waiting without sleeping for a guess: ask again until it holds, or fail when time is up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

SECONDS = 30.0
"""How long a test waits for what must come; a busy machine takes its time."""
GONE_SECONDS = 10.0
"""How long leaving may take, by the contract."""


async def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """The first true value of `condition`; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.005)
    return value


async def within(seconds: float, attempt: Callable[[], Awaitable[object]]) -> None:
    """`attempt` takes less than that: the quickest of up to three.

    A machine that is busy elsewhere holds up whoever measures, now and then; what is too slow is so every time.
    """
    took: list[float] = []
    while not took or took[-1] >= seconds:
        assert len(took) < 3, f"took {took} s, and may take {seconds} s"
        began = time.monotonic()
        await attempt()
        took.append(time.monotonic() - began)


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = SECONDS) -> bool:
    """Whether `check` holds before time is up."""
    deadline = time.monotonic() + seconds
    while not await check():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True
