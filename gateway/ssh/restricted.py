"""What an engineer's connection may not have for now: the open channels and listeners of those kinds end, none begins.

Whatever is under way when this changes is caught: channels and listeners are looked for here when it changes, and this
is looked at once more in the very turn in which one is entered among them.  Shells and commands go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gateway.errors import Denied
from gateway.model import NOTHING_DROPPED, Droppable, Dropped
from gateway.ssh.relay import Lane
from gateway.ssh.requests import CALLBACKS, LISTENER_OF
from gateway.telemetry import Step

if TYPE_CHECKING:
    from gateway.ssh.program import Program
    from gateway.ssh.server import Engineer

ASKED_AS = {**LISTENER_OF, **{channel: asked for asked, channel in CALLBACKS.items()}}
"""The request that a channel goes back to, where that is not one of its own name."""


class Restricted:
    """What one connection may not have, and the end of what it has of that."""

    def __init__(self, engineer: Engineer) -> None:
        self._engineer = engineer
        self._now = NOTHING_DROPPED
        self._files: list[Program] = []

    def change(self, to: Dropped) -> Mapping[str, int]:
        """See `verdicts.Restrictable`."""
        self._now = to
        return Counter(self._ended()) if to.kinds else {}

    def drops(self, request: Mapping[str, Any]) -> bool:
        """Whether this request may not be, whatever else is said of it."""
        return _kind(request) in self._now.kinds

    def check(self, request: Mapping[str, Any]) -> None:
        """Raises Denied, with the judgement's own reasons, for what may not be."""
        if self.drops(request):
            raise self._refusal()

    async def required(self, request: Mapping[str, Any]) -> None:
        """The same, on record.  Raises AuditUnavailable too."""
        if self.drops(request):
            asked = {"decision_id": self._now.decision_id, "input": {"request": dict(request)}}
            async with self._engineer.journal.step(Step.REQUEST, outcome="deny", **asked):
                raise self._refusal()

    def serves_files(self, program: Program) -> None:
        """Said before policy is asked: a program that serves files, or whatever is forced in its place."""
        self._files = [*(one for one in self._files if not one.near.gone), program]

    def _refusal(self) -> Denied:
        return Denied(self._now.reasons, decision_id=self._now.decision_id)

    def _ended(self) -> Iterator[str]:
        """End what is there; its kinds."""
        for lane in self._engineer.lanes:
            kind = ASKED_AS.get(lane.traffic.kind, lane.traffic.kind)
            if kind in self._now.kinds and cut(lane):
                yield kind
        for listener in self._engineer.listeners.drop(self._now.kinds):
            yield str(listener["kind"])
        if Droppable.SFTP in self._now.kinds:
            for program in self._files:
                _end_files(program, self._refusal())
                yield Droppable.SFTP.value
            self._files.clear()


def _kind(request: Mapping[str, Any]) -> str:
    if request["kind"] == "subsystem" and request.get("name") == Droppable.SFTP:
        return Droppable.SFTP.value
    return str(request["kind"])


def _end_files(program: Program, error: Denied) -> None:
    """Whoever waits for an answer gets one that says why, and so does the channel's stderr."""
    program.end_files(error)
    program.refuse(error)
    if program.lane.far is not None:
        program.lane.far.abort()


def cut(lane: Lane) -> bool:
    """End a forward in this turn: EOF where nothing waits before it, CLOSE; what waits is thrown away.

    What the client still sends is nobody's.  False where it had ended before.
    """
    was_open = lane.near is not None and lane.near.is_open
    for channel in (lane.near, lane.far):
        if channel is not None and channel.is_writable:
            channel.write_eof()
        if channel is not None:
            channel.abort()
    return was_open
