"""The only place that starts tasks: whoever starts one waits for its end, also when cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, Self, TypeVar

S = TypeVar("S")
T = TypeVar("T")
log = logging.getLogger(__name__)


async def first_done(*coroutines: Coroutine[Any, Any, T]) -> T:
    """Run all, return the result of the first to end (or raise its error), and wait until the others are gone.

    Several ending at once: the one named first wins, so name the one whose word matters most first.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        await cancel_and_wait(tasks)


async def cancel_and_wait(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel what still runs and return when all have ended; their errors are theirs, except our own cancellation."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await wait_all(tasks)


async def wait_all(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Return when all have ended, even if cancelled meanwhile: clean-up that is cut short is no clean-up.

    The tasks bound their own clean-up, so this is bounded too.  A cancellation that arrives is raised at the end.
    """
    pending = {task for task in tasks if not task.done()}
    cancelled = False
    while pending:
        try:
            _, pending = await asyncio.wait(pending)
        except asyncio.CancelledError:
            cancelled = True
    for task in tasks:
        if not task.cancelled():
            task.exception()  # retrieved: the owner of the task reads its result, not the garbage collector
    if cancelled:
        raise asyncio.CancelledError


async def to_the_end(work: Awaitable[T]) -> T:
    """Run it to its end even when cancelled meanwhile, then let the cancellation go on.  It must bound itself."""
    task = asyncio.ensure_future(work)
    await wait_all([task])
    return task.result()


async def each(function: Callable[[S], Awaitable[T]], items: Iterable[S], *, at_once: int) -> list[T]:
    """`function` of each item, in their order, some at once; the first to fail ends the others and is raised."""
    turn = asyncio.Semaphore(at_once)

    async def bounded(item: S) -> T:
        async with turn:
            return await function(item)

    tasks = [asyncio.ensure_future(bounded(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(tasks)


class Rounds(Generic[S, T]):
    """One piece of work at a time, for many who ask for it: all who ask while one round runs share the next.

    A round that runs has begun too early for whoever asks now; so who joins gets one that began afterwards.
    """

    def __init__(self, work: Callable[[frozenset[S]], Awaitable[T]]) -> None:
        """`work` is done for all the keys of a round at once."""
        self._work = work
        self._turn = asyncio.Lock()
        self._next: _Round[S, T] | None = None

    async def join(self, key: S) -> T:
        """The result of a round for `key` (and others) that begins after this call.

        If the one who runs it is cancelled, or it fails, the next of its members runs it again.
        """
        if self._next is None:
            self._next = _Round()
        joined = self._next
        joined.keys.add(key)
        async with self._turn:
            if not joined.results:
                if self._next is joined:
                    self._next = None
                joined.results.append(await self._work(frozenset(joined.keys)))
        return joined.results[0]


class _Round(Generic[S, T]):
    def __init__(self) -> None:
        self.keys: set[S] = set()
        self.results: list[T] = []


class Crew:
    """Tasks that come and go while the body of its context runs; whatever still runs then is cancelled and waited for.

    They handle their own failures: one that is raised is logged as the mistake that it is.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_bug", exc_info=error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_and_wait(self._tasks)


@asynccontextmanager
async def background(coroutine: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run `coroutine` while the body runs; cancel it and wait for its end on exit.

    If it fails, the body is cancelled and the failure raised: a safeguard that died unnoticed would be none.
    """
    owner = asyncio.current_task()
    assert owner is not None
    failed = False

    def on_end(task: asyncio.Task[None]) -> None:
        nonlocal failed
        if not task.cancelled() and task.exception() is not None:
            failed = True
            owner.cancel()

    task = asyncio.ensure_future(coroutine)
    task.add_done_callback(on_end)
    try:
        yield task
    except asyncio.CancelledError:
        if failed and owner.uncancel() == 0:
            task.result()
        raise
    finally:
        task.remove_done_callback(on_end)
        await cancel_and_wait([task])
    if not task.cancelled():
        task.result()  # it failed in the very turn in which the body ended


@asynccontextmanager
async def together(*managers: AbstractAsyncContextManager[Any]) -> AsyncIterator[tuple[Any, ...]]:
    """Enter all at once, leave all at once; each is entered and left in one task of its own.

    If one cannot be entered, the others are left (or their entering is cancelled) and its error is raised.  On exit
    all are left before the first error among them is raised.
    """
    leave = asyncio.Event()
    loop = asyncio.get_running_loop()
    entered: list[asyncio.Future[Any]] = [loop.create_future() for _ in managers]

    async def hold(manager: AbstractAsyncContextManager[Any], ready: asyncio.Future[Any]) -> None:
        async with manager as value:
            ready.set_result(value)
            await leave.wait()

    tasks = [asyncio.ensure_future(hold(*pair)) for pair in zip(managers, entered, strict=True)]
    try:
        await _all_entered(entered, tasks)
        yield tuple(ready.result() for ready in entered)
    finally:
        leave.set()
        for ready, task in zip(entered, tasks, strict=True):
            if not ready.done():
                ready.cancel()
                task.cancel()
        await wait_all(tasks)
    for task in tasks:
        task.result()


async def _all_entered(entered: Sequence[asyncio.Future[Any]], tasks: Sequence[asyncio.Future[None]]) -> None:
    while not all(ready.done() for ready in entered):
        waiting: list[asyncio.Future[Any]] = [ready for ready in entered if not ready.done()]
        await asyncio.wait([*waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():  # before anyone said "leave": it could not be entered
                task.result()
