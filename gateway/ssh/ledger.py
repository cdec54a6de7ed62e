"""Which listeners one engineer's connection was granted and still has, and what came in there.

It is kept by what the gateway granted, never by what a workspace says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.ssh.raw import RawChannel
from gateway.ssh.relay import Lane
from gateway.ssh.requests import CALLBACKS, LISTENER_OF, Facts

MAX_LISTENERS = 20
"""Of one connection, programs' ways back to X server and key agent included."""
MAX_PER_LISTENER = 50
MAX_ARRIVALS = 100
"""Over all listeners of one connection; the permit's `max_channels` bounds what the engineer opens, not these."""

Key = tuple[str, ...]


@dataclass(eq=False)
class Listener:
    """One place inside where the workspace listens for the engineer."""

    facts: Facts
    """As it is in the record: the request's kind, and host and port, or path."""
    channel: RawChannel | None = None
    """The session channel that it goes with; None for one that goes when it is cancelled."""
    once: bool = False
    used: bool = False
    listening: bool = False
    """Whether the workspace said so, of one that is cancelled."""
    dropped: bool = False
    """Whether it may be no more, by a judgement."""
    lanes: list[Lane] = field(default_factory=list)
    recorded: asyncio.Event = field(default_factory=asyncio.Event)
    """What comes in before its listener is on record has to wait."""

    @property
    def key(self) -> Key:
        return key_of(self.facts)

    @property
    def stands(self) -> bool:
        gone = self.dropped or (self.channel is not None and self.channel.gone)
        return not gone and not (self.once and self.used)

    @property
    def connections(self) -> int:
        """Those that are coming in or open."""
        self.lanes = [lane for lane in self.lanes if lane.near is None or not lane.near.gone]
        return len(self.lanes)

    @property
    def channels(self) -> int:
        """Those of them that have a channel of the engineer's connection already."""
        return sum(not lane.gone for lane in self.lanes)

    def drop(self, lane: Lane) -> None:
        self.lanes = [other for other in self.lanes if other is not lane]


class Ledger:
    """The listeners of one connection: those that stand, and those that are gone but for their connections."""

    def __init__(self) -> None:
        self._at: dict[Key, Listener] = {}
        self._of_programs: dict[str, list[Listener]] = {kind: [] for kind in CALLBACKS.values()}
        self._gone: list[Listener] = []
        self.closed = False

    def __iter__(self) -> Iterator[Listener]:
        """Those that stand."""
        yield from list(self._at.values())
        for listeners in self._of_programs.values():
            yield from [listener for listener in listeners if listener.stands]

    @property
    def is_full(self) -> bool:
        return sum(1 for _ in self) >= MAX_LISTENERS

    @property
    def channels(self) -> int:
        """How many channels of the engineer's connection the workspace has opened."""
        return sum(listener.channels for listener in self._ever())

    def has_room(self, listener: Listener) -> bool:
        """Whether one more connection may come in there."""
        connections = sum(one.connections for one in self._ever())
        return listener.connections < MAX_PER_LISTENER and connections < MAX_ARRIVALS

    def claim(self, listener: Listener) -> bool:
        """Whether its place was free, and is its own now."""
        free = not self.closed and listener.key not in self._at
        if free:
            self._at[listener.key] = listener
        return free

    def release(self, listener: Listener) -> bool:
        """Whether it had claimed its place, which is free again."""
        had = self._at.get(listener.key) is listener
        if had:
            self._retire([self._at.pop(listener.key)])
        return had

    def at(self, where: Facts) -> Listener | None:
        return self._at.get(key_of(where))

    def enter(self, listener: Listener) -> None:
        """One that goes with its program."""
        kind = CALLBACKS[listener.facts["kind"]]
        before = self._of_programs[kind]
        self._retire([one for one in before if not one.stands])
        self._of_programs[kind] = [*(one for one in before if one.stands), listener]

    def holds(self, listener: Listener) -> bool:
        """Whether it was not cancelled, and its program is there."""
        if listener.channel is not None:
            return not (self.closed or listener.dropped or listener.channel.gone)
        return self._at.get(listener.key) is listener

    def for_arrival(self, kind: str, said: Facts) -> Listener | None:
        """The listener that a connection of the workspace's may have come to."""
        if self.closed:
            return None
        if kind in LISTENER_OF:
            return self.at({**said, "kind": LISTENER_OF[kind]})
        # Which of them it came to is not said on the wire, and is all the same: those that may be used once last.
        standing = [listener for listener in self._of_programs[kind] if listener.stands]
        return min(standing, key=lambda one: (one.once, one.connections), default=None)

    def drop(self, kinds: Collection[str]) -> list[Listener]:
        """Those that were asked for by these kinds of request are gone; which they were."""
        dropped = [listener for listener in self if listener.facts["kind"] in kinds]
        for listener in dropped:
            listener.dropped = True
            if listener.channel is None:
                self.release(listener)
        return dropped

    def close(self) -> None:
        """Nothing comes in any more."""
        self.closed = True
        self._retire(list(self._at.values()))
        self._at.clear()

    def _retire(self, listeners: list[Listener]) -> None:
        self._gone = [one for one in [*self._gone, *listeners] if one.connections]

    def _ever(self) -> Iterator[Listener]:
        yield from self._gone
        yield from self._at.values()
        for listeners in self._of_programs.values():
            yield from listeners


def key_of(where: Mapping[str, Any]) -> Key:
    if "path" in where:
        return where["kind"], where["path"]
    return where["kind"], where["host"], str(where["port"])
