"""Which sessions are open at this gateway: what a question for a permit says of them, and the last word on a limit.

Policy judges by what was so when it was asked.  Two that are asked about at once are both told that there is room, so
whoever begins takes a place here, in one step with nothing in between: of two the second finds none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from gateway.errors import DoorwardError
from gateway.model import Holder, SessionCounts, SessionId
from gateway.policy.contract import OpenSession, rfc3339


class Here(Protocol):
    """What is asked of the client of a session that is counted."""

    @property
    def is_gone(self) -> bool:
        """Whether it has left.  Its session is then no longer open, though what it held may still be taken away."""
        ...


class NoRoom(DoorwardError):
    """Another session was quicker than this one's permit."""

    code = "too_many_sessions"
    remedy = "Connect again, to be told which sessions are open."


@dataclass(frozen=True, slots=True)
class _Place:
    holder: Holder
    client: Here
    taken: datetime = field(default_factory=lambda: datetime.now(UTC))

    def facts(self) -> OpenSession:
        holder = self.holder
        return OpenSession(id=holder.session, grant=holder.grant, target=holder.target, started_at=rfc3339(self.taken))


class Census:
    """The open sessions of this gateway."""

    def __init__(self) -> None:
        self._places: dict[SessionId, _Place] = {}

    def counted(self, person: str, besides: str) -> dict[str, Any]:
        """What a question for a permit says: the person's own sessions, and how many there are at each target.

        Session `besides`, which asks, is in neither.
        """
        places = [place for place in self._here() if place.holder.session != besides]
        return {
            "open": [place.facts().model_dump() for place in places if place.holder.person == person],
            "open_at": dict(Counter(place.holder.target for place in places)),
        }

    def take(self, holder: Holder, most: SessionCounts, client: Here) -> AbstractContextManager[None]:
        """A place, taken now, and kept until its context ends or the client is gone.  Raises NoRoom."""
        here = [place.holder for place in self._here()]
        own = [other for other in here if other.person == holder.person]
        for limit, others in (
            (most.grant, [other for other in own if other.grant == holder.grant]),
            (most.person, own),
            (most.target, [other for other in here if other.target == holder.target]),
        ):
            if limit is not None and len(others) >= limit:
                raise NoRoom(f"another session for {holder.target} was opened a moment before this one")
        self._places[holder.session] = _Place(holder, client)
        return self._kept(holder.session)

    @contextmanager
    def _kept(self, session: SessionId) -> Iterator[None]:
        try:
            yield
        finally:
            del self._places[session]

    def _here(self) -> list[_Place]:
        return [place for place in self._places.values() if not place.client.is_gone]
