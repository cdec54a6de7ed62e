"""A document that a provider publishes, kept for a while: not asked for at each login, nor believed for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from gateway.authn.web import Malformed, Unreachable, Web


class Kept:
    """The document at one address.  It is never used when older than asked for, also when the provider is down."""

    def __init__(self, web: Web, clock: Callable[[], float] = time.monotonic) -> None:
        self._web = web
        self._clock = clock
        self._document: Mapping[str, Any] = {}
        self._fetched = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    async def read(self, url: str, seconds: float) -> Mapping[str, Any]:
        """The document, not older than `seconds`.

        Many at once make one request.  Bounded: who waits for the requests of others gives up after two of them.
        """
        try:
            async with asyncio.timeout(2 * self._web.timeout), self._one_at_a_time:
                if self._clock() - self._fetched > seconds:
                    await self._fetch(url)
                return self._document
        except TimeoutError as error:
            raise Unreachable("the identity provider did not answer in time") from error

    async def _fetch(self, url: str) -> None:
        began = self._clock()
        answer = await self._web.call("GET", url)
        if answer.status != 200:
            raise Malformed("the identity provider does not publish what it must")
        self._document, self._fetched = answer.members(), began
