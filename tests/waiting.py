"""Waiting without sleeping for a guess; the published contracts wait in the same way."""

import asyncio

from gateway.contracts.waiting import SECONDS, eventually, until, within

__all__ = ["SECONDS", "eventually", "until", "within"]


async def connections_closed() -> None:
    """Return when this loop has no connection any more: one that was cancelled while it was made takes a moment.

    A loop that is closed before leaves its socket to the garbage collector, which blames whoever runs then.
    """
    made = asyncio.get_running_loop()._transports  # type: ignore[attr-defined]  # by descriptor, held weakly
    await until(lambda: all(one.get_extra_info("socket").fileno() < 0 for one in list(made.values())))
