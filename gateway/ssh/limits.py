"""Bytes a second: what the obligation `rate_limit` holds a session, or one channel, to.

A channel that may not pass on what came in keeps it, gives its sender no more window, and waits for its turn: so what
is too fast stays with its sender, and at most a window of it here.  End of file, exit status and close keep their
place behind it.  Channels that share a limit take turns, a slice each: a keystroke waits for a slice of each other
channel, never for all that they have.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gateway.obligations import RateLimit, of_kind
from gateway.ssh.closing import Closing

if TYPE_CHECKING:
    from gateway.ssh.relay import Lane
    from gateway.ssh.server import Engineer

BURST_SECONDS = 0.25
MIN_BURST = 4096
"""What may pass at once after a pause: a screen, also where the limit is very low."""
SLICE_SECONDS = 0.02
MIN_SLICE, MAX_SLICE = 256, 32768
FIRST_WINDOW = 32768
"""Of a channel that we open: who may send how fast can come to light after it is open."""
OUT_SECONDS, MIN_OUT = 0.25, 2048
"""A window of the workspace's side: what a program had sent when Ctrl-C was pressed still comes."""
IN_SECONDS, MIN_IN = 1.0, 65536

Turn = Callable[[], None]


class Timers(Protocol):
    """What is needed of an event loop."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], Any], /) -> Any: ...


class Pace:
    """One limit, over all channels that share it; whoever waits gets its turn in order."""

    def __init__(self, bytes_per_second: int, loop: Timers | None = None) -> None:
        self._loop: Timers = loop or asyncio.get_running_loop()
        self.rate = bytes_per_second
        self.burst = max(int(self.rate * BURST_SECONDS), MIN_BURST)
        self._slice = min(max(int(self.rate * SLICE_SECONDS), MIN_SLICE), MAX_SLICE)
        self._room = float(self.burst)
        self._at = self._loop.time()
        self._waiting: deque[tuple[int, Turn]] = deque()
        self._timed = False
        self._in_turn = False

    def offer(self, wanted: int) -> int:
        """How many of so many bytes may pass now; nothing while others wait, unless it is one's turn."""
        if self._waiting and not self._in_turn:
            return 0
        return min(wanted, self._slice, self._filled())

    def spend(self, passed: int) -> None:
        self._room -= passed

    def wait(self, wanted: int, turn: Turn) -> None:
        """`turn` is called once, when it is one's turn to pass a slice, or all that is wanted."""
        self._waiting.append((min(wanted, self._slice), turn))
        self._await_next()

    def _filled(self) -> int:
        now = self._loop.time()
        self._room = min(self.burst, self._room + (now - self._at) * self.rate)
        self._at = now
        return int(self._room)

    def _await_next(self) -> None:
        if not self._timed and self._waiting:
            missing = self._waiting[0][0] - self._filled()
            self._timed = True
            self._loop.call_later(max(0.0, missing / self.rate), self._serve)

    def _serve(self) -> None:
        """A turn for each that waited; who then waits again is served after the others of the loop."""
        self._timed = False
        try:
            for _ in range(len(self._waiting)):
                if self._waiting[0][0] > self._filled():
                    break
                _, turn = self._waiting.popleft()
                self._in_turn = True
                turn()
                self._in_turn = False
        finally:
            self._in_turn = False
            self._await_next()


class Tap:
    """What one direction of one channel has to keep to: a limit of its own, its session's, or both."""

    def __init__(self, paces: Sequence[Pace]) -> None:
        self._paces = paces

    @property
    def rate(self) -> int:
        return min(pace.rate for pace in self._paces)

    def take(self, wanted: int, turn: Turn) -> int:
        """How many of so many bytes pass now.  If not all, `turn` is called when it is worth asking again."""
        passed, narrowest = wanted, self._paces[0]
        for pace in self._paces:
            if (offered := pace.offer(passed)) < passed:
                passed, narrowest = offered, pace
        for pace in self._paces if passed else ():
            pace.spend(passed)
        if passed < wanted:
            narrowest.wait(wanted - passed, turn)
        return passed


class Limited(Closing):
    """A channel whose incoming data can be held to a limit; private names of asyncssh 2.24.1, as in raw.py."""

    _tap: Tap | None = None
    _in_order = False
    """Whether requests wait for the data before them too: they say how a program ended."""
    _request_waits = False
    _waits = False
    """Whether what came in waits for its turn."""
    _stopped = False
    """Whether it is not to be read for another reason."""

    def limit(self, tap: Tap, window: int, *, in_order: bool) -> None:
        """From now on what comes in passes `tap`, and its sender may be `window` bytes ahead."""
        self._tap, self._in_order = tap, in_order
        self._init_recv_window = min(self._init_recv_window, window)

    async def _open(self, chantype: bytes, *args: bytes) -> Any:
        self._recv_window = min(self._recv_window, FIRST_WINDOW)
        return await super()._open(chantype, *args)

    def pause_reading(self) -> None:
        self._stopped = True
        super().pause_reading()

    def resume_reading(self) -> None:
        self._stopped = False
        if not self._waits:
            super().resume_reading()

    def _deliver_data(self, data: bytes, datatype: int | None) -> None:
        if self._tap is None:
            super()._deliver_data(data, datatype)
            return
        passed = self._tap.take(len(data), self._go_on)
        if passed < len(data):
            self._recv_buf.insert(0, (data[passed:], datatype))
            self._waits = self._recv_paused = True
        if passed:
            super()._deliver_data(data[:passed], datatype)

    def _go_on(self) -> None:
        self._waits = False
        if not self._stopped:
            super().resume_reading()

    def _flush_recv_buf(self, exc: Exception | None = None) -> None:
        if self._close_event.is_set():
            return  # the connection was lost: nobody hears it any more, and asyncssh would assert that somebody does
        while self._recv_buf and not self._recv_paused:
            self._deliver_data(*self._recv_buf.pop(0))
        if self._request_waits and not self._recv_buf:
            self._request_waits = False
            self._service_next_request()
        super()._flush_recv_buf(exc)

    def _is_early(self) -> bool:
        """Whether a request has to wait for the data that came before it."""
        self._request_waits = self._in_order and bool(self._recv_buf)
        return self._request_waits


@dataclass(frozen=True, slots=True)
class Limits:
    """Both directions of one `rate_limit`; None: as fast as it goes."""

    inward: Pace | None
    outward: Pace | None

    @classmethod
    def of(cls, obligations: Sequence[Any]) -> Limits:
        limit = next(iter(of_kind(RateLimit, obligations)), None)
        if limit is None:
            return cls(None, None)
        rates = (limit.bytes_in_per_second, limit.bytes_out_per_second)
        inward, outward = (None if rate is None else Pace(rate) for rate in rates)
        return cls(inward, outward)


async def keep_to_limits(engineer: Engineer, lane: Lane, obliged: Sequence[Any] = ()) -> None:
    """Hold both channels of `lane` to what the session's permit and this request's allow oblige to.

    Before they are joined.  Raises DoorwardError when the session has ended.
    """
    permit = await engineer.permit_granted()
    connection = engineer.connection
    if connection.limits is None:
        connection.limits = Limits.of(permit.obligations)
    limits = (Limits.of(obliged), connection.limits)
    if lane.near is not None and (paces := [each.inward for each in limits if each.inward is not None]):
        tap = Tap(paces)
        lane.near.limit(tap, max(MIN_IN, int(tap.rate * IN_SECONDS)), in_order=False)
    if lane.far is not None and (paces := [each.outward for each in limits if each.outward is not None]):
        tap = Tap(paces)
        lane.far.limit(tap, max(MIN_OUT, int(tap.rate * OUT_SECONDS)), in_order=True)
