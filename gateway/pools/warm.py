"""One workspace that is ready for nobody yet: started, its agent connected, looked after, handed out once or ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from enum import StrEnum
from functools import partial
from typing import Any

from gateway.backends import Bindable, Order, Poolable, ProtocolFactory
from gateway.concurrency import each, first_done, wait_all
from gateway.errors import WorkspaceUnavailable
from gateway.model import SessionId
from gateway.parties import Agent, Connect
from gateway.pools.kinds import Kind

log = logging.getLogger(__name__)
LOOK_SECONDS = 15.0
"""How often the agent is asked for a sign of life."""
ANSWER_SECONDS = 2.0
"""It has so long for that, and the runtime so long to bind a workspace."""


class State(StrEnum):
    """What has become of it."""

    COMING = "coming"
    READY = "ready"
    CLAIMED = "claimed"
    ENDED = "ended"


class Warm:
    """Valid from `live`'s start to its end."""

    def __init__(self, kind: Kind, max_age_seconds: float) -> None:
        self.kind = kind
        self.id = SessionId(f"pool-{secrets.token_hex(8)}")
        """Whose it is in the runtime's words, until it is somebody's."""
        self.state = State.COMING
        self.made_of = ""
        self.workspace: Bindable
        self.agent: Agent
        self._max_age = max_age_seconds
        self._born = 0.0
        self._claimed = asyncio.Event()
        self._let_go = asyncio.Event()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_let_go(self) -> bool:
        """Whether it was ended by whoever had it, session or pool."""
        return self._let_go.is_set()

    @property
    def age(self) -> float:
        """Seconds since it was ready."""
        return time.monotonic() - self._born

    async def live(
        self,
        backend: Poolable,
        connect: Connect,
        turn: AbstractAsyncContextManager[None],
        started: Callable[[], None],
        over: Callable[[], None],
    ) -> str:
        """From its start, which is made within `turn`, to its end; why that was.

        `started` is called once it can be claimed, before the turn is over, and `over` when it no longer can and was
        not: both in the very turn of the loop.  Raises WorkspaceUnavailable when it cannot be
        started.
        """
        try:
            async with AsyncExitStack() as stack:
                async with turn:
                    self.workspace = await stack.enter_async_context(backend.workspace(self.kind.blank(self.id)))
                    self.agent = await stack.enter_async_context(connect(self.workspace))
                    self.made_of = backend.made_of(self.kind.spec)
                    self.state, self._born = State.READY, time.monotonic()
                    started()
                why = await first_done(
                    _said(self._claimed, ""),
                    _said(self._let_go, "no longer wanted"),
                    self.workspace.wait_gone(),
                    self._unanswered(),
                    self._too_old(),
                )
                if self.state is State.CLAIMED:
                    await self._let_go.wait()
                else:
                    self.state = State.ENDED
                    over()
                return why
        finally:
            self.state = State.ENDED
            if not self._over.done():
                self._over.set_result(None)

    def claim(self) -> None:
        """It is whoever calls this: nobody can have had it before, nobody will have it after."""
        assert self.state is State.READY
        self.state = State.CLAIMED
        self._claimed.set()

    async def bind(self, order: Order) -> None:
        """Make it `order`'s, which claimed it.  Raises WorkspaceUnavailable; then it is to be thrown away."""
        both: tuple[Callable[[], Awaitable[None]], ...] = (self.agent.answers, partial(self.workspace.bind, order))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await each(lambda ask: ask(), both, at_once=len(both))
        except TimeoutError as error:
            raise WorkspaceUnavailable("the warm workspace could not be bound in time") from error
        if self.state is not State.CLAIMED:
            raise WorkspaceUnavailable("the warm workspace ended while it was bound")

    def let_go(self) -> None:
        """Nobody needs it any more; it ends by itself."""
        self._let_go.set()

    async def end(self) -> None:
        """Let it go, and return when it has ended; its own backend bounds that."""
        self.let_go()
        await wait_all([self._over])

    async def _unanswered(self) -> str:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self.agent.answers()
            except (WorkspaceUnavailable, TimeoutError):
                return "its agent did not answer"

    async def _too_old(self) -> str:
        await asyncio.sleep(self._max_age)
        return "it was old"


class Claimed:
    """A warm workspace that is somebody's now, as a Workspace."""

    def __init__(self, warm: Warm) -> None:
        self.id = warm.workspace.id
        self.agent = warm.agent
        self._warm = warm

    def describe(self) -> dict[str, Any]:
        """For the record."""
        return {"id": self.id, "start": "warm", "ready_seconds": round(self._warm.age, 1)}

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        return await self._warm.workspace.create_connection(factory)

    async def wait_gone(self) -> str:
        return await self._warm.workspace.wait_gone()


async def _said(event: asyncio.Event, why: str) -> str:
    await event.wait()
    return why
