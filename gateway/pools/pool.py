"""One backend with its warm workspaces: a claim takes one that is ready, or waits for its turn to start one.

    permit -> kind -> ready? -> claimed -> bound, and that read back -> the session's
                        no        -> a turn, fair by person -> started cold

It is a Backend itself, so the story of a session knows nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import chain
from typing import Any

from opentelemetry.metrics import Meter

from gateway.audit.journal import described
from gateway.backends import Order, Poolable, ProtocolFactory, Workspace
from gateway.concurrency import Crew
from gateway.errors import WorkspaceUnavailable
from gateway.metrics import Metric
from gateway.model import SessionId, WorkspaceSpec
from gateway.parties import Connect
from gateway.pools.kinds import Kind, Kinds
from gateway.pools.shelf import YOUNG_SECONDS, Shelf
from gateway.pools.warm import Claimed, Warm
from gateway.settings_pools import PoolSettings
from gateway.turns import NOBODY, Turns

log = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
"""How often a pool is looked at when nothing happens."""
SETTLE_SECONDS = 0.5
"""So long after a claim nothing is started: the login that is under way has the machine for itself."""


class Pool:
    """`backend`, with warm workspaces.  `kept` must run for any to be there."""

    def __init__(self, backend: Poolable, connect: Connect, settings: PoolSettings, kinds: Kinds, meter: Meter) -> None:
        self.name = backend.name
        self._backend = backend
        self._connect = connect
        self._settings = settings
        self._kinds = kinds
        self._turns = Turns(settings.starts_at_once)
        self._shelves: dict[str, Shelf] = {}
        self._held: dict[SessionId, SessionId | None] = {}
        """The pool's own ids of all that it started and that has not ended, and the session of what is bound."""
        self._changed = asyncio.Event()
        self._ready = meter.create_gauge(Metric.POOL_READY, description="warm workspaces that are ready")
        self._starts = meter.create_counter(Metric.STARTS, description="workspaces for sessions, warm and cold")

    # -- what a backend does ----------------------------------------------------------------------------------------

    def workspace(self, order: Order) -> AbstractAsyncContextManager[Workspace]:
        return self._workspace(order)

    async def reap(self, live: Collection[SessionId]) -> list[SessionId]:
        reaped = await self._backend.reap(_Living(live, self._held))
        return [self._held.get(one) or one for one in reaped]

    async def check(self, spec: WorkspaceSpec | None = None) -> None:
        await self._backend.check(spec)

    # -- a claim ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _workspace(self, order: Order) -> AsyncIterator[Workspace]:
        async with AsyncExitStack() as stack:
            kind = Kind.of(order)
            is_kept = self._settings.size > 0 and self._kinds.asked(kind)
            found, why = await self._claimed(kind, order, stack)
            if found is None:
                found = await self._cold(kind, order, why if is_kept else "not pooled", stack)
            self._changed.set()
            yield found

    async def _claimed(self, kind: Kind, order: Order, stack: AsyncExitStack) -> tuple[Workspace | None, str]:
        """A warm one that is `order`'s, left with `stack`; or none, and why."""
        shelf = self._shelves.get(kind.key)
        if shelf is None:
            return None, "first of its kind"
        warm = shelf.take(self._backend.made_of(kind.spec))
        if warm is None:
            return None, "none ready"
        async with AsyncExitStack() as claim:
            claim.push_async_callback(warm.end)  # whatever happens now, it is nobody else's
            try:
                await warm.bind(order)
            except WorkspaceUnavailable as error:
                log.warning("pool_bind_failed", extra={"backend": self.name, "id": warm.id, "error": str(error)})
                claim.pop_all()
                warm.let_go()
                return None, "not bound"
            self._held[warm.id] = order.holder.session
            await stack.enter_async_context(claim.pop_all())
        self._starts.add(1, {"backend": self.name, "start": "warm"})
        return Claimed(warm), ""

    async def _cold(self, kind: Kind, order: Order, why: str, stack: AsyncExitStack) -> Workspace:
        """One that is started now, or one that became ready while its turn was waited for."""
        began = time.monotonic()
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(self._settings.wait_seconds):
                    await turn.enter_async_context(self._turns.turn(order.holder.person, self._telling(order)))
            except TimeoutError as error:
                raise self._too_busy() from error
            if why != "not bound" and (ready := (await self._claimed(kind, order, stack))[0]) is not None:
                return ready
            waited = time.monotonic() - began
            order.waits_for("your workspace, which is being started, and credentials")
            started = await stack.enter_async_context(self._backend.workspace(order))
        self._starts.add(1, {"backend": self.name, "start": "cold", "why": why})
        return Cold(started, why, waited)

    def _telling(self, order: Order) -> Callable[[int], None]:
        at_once = self._settings.starts_at_once
        words = "a workspace, and none is ready: {} wait for one to be started, {} at a time"
        return lambda waiting: order.waits_for(words.format(waiting, at_once))

    def _too_busy(self) -> WorkspaceUnavailable:
        return WorkspaceUnavailable(
            f"no workspace could be started within {self._settings.wait_seconds:g} s: others wait for theirs too",
            remedy="Nothing is wrong with your grant. Try again in a minute; if it stays so, tell the platform team.",
        )

    # -- keeping it full --------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Start, replace and end, for ever.  Cancelled, it ends all that is nobody's."""
        await asyncio.to_thread(self._kinds.load)
        async with Crew() as crew:
            while True:
                self._sort()
                for shelf in self._shelves.values():
                    for _ in range(shelf.missing()):
                        self._start(shelf, crew)
                await self._remember()
                try:
                    async with asyncio.timeout(self._pause()):
                        await self._changed.wait()
                except TimeoutError:
                    continue
                self._changed.clear()
                await asyncio.sleep(SETTLE_SECONDS)

    def _sort(self) -> None:
        """How many of each kind are wanted, the kind asked for last first; what is too much is let go."""
        left, wanted = self._settings.total, dict(self._kinds.wanted())
        for key, kind in wanted.items():
            shelf = self._shelves.setdefault(key, Shelf(kind))
            shelf.wanted = min(self._settings.size, left)
            left -= shelf.wanted
        for key, shelf in list(self._shelves.items()):
            if key not in wanted:
                shelf.wanted = 0
            shelf.shrink(self._backend.made_of(shelf.kind.spec))
            if not (shelf.wanted or shelf.coming):
                del self._shelves[key]
        self._count()

    def _start(self, shelf: Shelf, crew: Crew) -> None:
        warm = Warm(shelf.kind, self._settings.max_age_seconds)
        shelf.coming[warm] = crew.start(self._live(warm, shelf))

    async def _live(self, warm: Warm, shelf: Shelf) -> None:
        """One warm workspace from its start to its end."""

        def started() -> None:
            shelf.came(warm)
            self._count()
            if shelf.failures:
                self._changed.set()  # the next one may be tried

        def over() -> None:
            shelf.left(warm)
            self._count()

        self._held[warm.id] = None
        try:
            why = await warm.live(self._backend, self._connect, self._turns.turn(NOBODY), started, over)
        except WorkspaceUnavailable as error:
            shelf.failed()
            words = {"backend": self.name, "target": shelf.kind.target, "error": str(error), "in_a_row": shelf.failures}
            log.warning("pool_start_failed", extra=words)
        else:
            self._ended(warm, shelf, why)
        finally:
            del self._held[warm.id]
            shelf.left(warm)
            self._changed.set()

    def _ended(self, warm: Warm, shelf: Shelf, why: str) -> None:
        if not warm.is_let_go and warm.age < min(YOUNG_SECONDS, self._settings.max_age_seconds):
            shelf.failed()
        else:
            shelf.succeeded()
        if why and not warm.is_let_go:
            log.info("pool_workspace_ended", extra={"backend": self.name, "target": shelf.kind.target, "why": why})

    def _pause(self) -> float:
        now = time.monotonic()
        return min([LOOK_SECONDS, *(shelf.next_at - now for shelf in self._shelves.values() if shelf.next_at > now)])

    async def _remember(self) -> None:
        try:
            await asyncio.to_thread(self._kinds.save)
        except OSError as error:
            log.warning("pool_kinds_not_saved", extra={"backend": self.name, "error": str(error)})

    def _count(self) -> None:
        self._ready.set(sum(len(shelf.ready) for shelf in self._shelves.values()), {"backend": self.name})

    def describe(self) -> dict[str, Any]:
        """For the operator."""
        return {
            "waiting": self._turns.waiting,
            "kinds": [
                {
                    "target": shelf.kind.target,
                    "image": shelf.kind.spec.image,
                    "wanted": shelf.wanted,
                    "ready": len(shelf.ready),
                    "starting": len(shelf.coming),
                    "failures": shelf.failures,
                }
                for shelf in self._shelves.values()
            ],
        }


class Cold:
    """A workspace that was started for its session, with what the record says of that."""

    def __init__(self, workspace: Workspace, why: str, waited: float) -> None:
        self.id = workspace.id
        self._workspace = workspace
        self._facts = {"start": "cold", "why": why, "waited_seconds": round(waited, 3)}

    def describe(self) -> dict[str, Any]:
        """For the record."""
        return {**described(self._workspace), **self._facts}

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        return await self._workspace.create_connection(factory)

    async def wait_gone(self) -> str:
        return await self._workspace.wait_gone()


class _Living(Collection[SessionId]):
    """Sessions that live, and what the pool started that is nobody's or a living session's, whenever that is asked.

    A runtime that cannot change what it was told at the start knows a bound workspace by the pool's own id.
    """

    def __init__(self, live: Collection[SessionId], held: Mapping[SessionId, SessionId | None]) -> None:
        self._live = live
        self._held = held

    def __contains__(self, one: object) -> bool:
        if one not in self._held:
            return one in self._live
        whose = self._held[one]  # type: ignore[index]  # it is in there
        return whose is None or whose in self._live

    def __iter__(self) -> Iterator[SessionId]:
        return (one for one in chain(self._live, list(self._held)) if one in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
