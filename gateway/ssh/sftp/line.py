"""What a conversation needs of the two channels it stands between (`channel.py` has the real ones)."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol

from gateway.errors import DoorwardError


class Line(Protocol):
    """The client's channel and the agent's, policy and record."""

    @property
    def is_clear(self) -> bool:
        """Whether more may be taken from the client: neither side is full, and nobody holds it."""
        ...

    def to_agent(self, data: bytes) -> None: ...

    def to_client(self, data: bytes) -> None: ...

    def end_to_agent(self) -> None: ...

    def busy(self, busy: bool) -> None:
        """Whether the client is to be read no more, for now."""
        ...

    def explain(self, error: DoorwardError) -> str:
        """Tell the person at the client, where there is room; one line of it for the protocol's own answer."""
        ...

    def shorten(self, error: DoorwardError) -> str:
        """The one line alone."""
        ...

    def refuse(self, error: DoorwardError) -> None:
        """End it with its reason."""
        ...

    def start(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run `work`; False where the connection is lost, and nothing is run any more."""
        ...

    async def record(self, operations: Sequence[Mapping[str, Any]]) -> None:
        """Raises AuditUnavailable."""
        ...

    async def authorize(self, facts: Mapping[str, Any]) -> object:
        """Raises Denied, PolicyUnavailable or AuditUnavailable."""
        ...
