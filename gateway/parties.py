"""Whom the story of a session is about, as it needs them: the engineer's connection and the workspace's agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn, Protocol

from gateway.audit.journal import Journal
from gateway.backends import Workspace
from gateway.errors import DoorwardError
from gateway.model import DeliveredFile, Desk, Logins, Permit
from gateway.obligations import AskReason
from gateway.policy import Configured, Subject
from gateway.verdicts import Restrictable


class Agent(Protocol):
    """The workspace's agent, as the story needs it."""

    async def setup(
        self, *, env: Mapping[str, str], home: str, shell: str, user: str, files: Sequence[DeliveredFile] = ()
    ) -> None: ...

    async def answers(self) -> None: ...

    async def open_egress(self, permit: Permit, journal: Journal, logins: Logins) -> None: ...

    async def wait_gone(self) -> None: ...


Connect = Callable[[Workspace], AbstractAsyncContextManager[Agent]]
"""How the agent of a workspace is reached."""


class AtDoor(Protocol):
    """Whoever waits at the door, for a permit on conditions."""

    def hold(self, answer: Configured) -> None:
        """From now on programs can be asked for, and wait for `Client.permit`."""
        ...

    async def reason(self, wanted: AskReason, first: Mapping[str, Any], fault: Callable[[str], str]) -> str:
        """A reason in which `fault` finds none.  Raises DoorwardError where there is none to be had in time."""
        ...

    def tell(self, text: str) -> None:
        """Lines for all who wait, now or later, on a terminal or not."""
        ...

    async def left(self) -> NoReturn:
        """Never returns; raises DoorwardError when they wait no longer."""
        ...


class Client(Protocol):
    """The engineer's connection, authenticated, as the story needs it."""

    @property
    def subject(self) -> Subject: ...

    @property
    def desk(self) -> AtDoor: ...

    @property
    def restricted(self) -> Restrictable: ...

    async def wait_request(self) -> Mapping[str, Any]:
        """Return the first channel they ask for, as facts."""
        ...

    async def wait_gone(self) -> None:
        """Return when the connection has closed."""
        ...

    @property
    def is_gone(self) -> bool:
        """Whether it has."""
        ...

    async def wait_abandoned(self) -> None:
        """Return when the connection has closed before `relay_to`; after it, never: then the story itself notices.

        So that a story is interrupted at most once, and never in the middle of its clean-up.
        """
        ...

    def environment(self) -> Mapping[str, str]:
        """What sshd would put into a program's environment about the connection."""
        ...

    async def choose(self, answer: Configured) -> Mapping[str, Any]:
        """The desk is open: return what they want, a chosen target in it.

        Raises the answer's refusal where nobody can be asked, and DoorwardError when nothing was chosen.
        """
        ...

    async def remember(self, permit: Permit) -> None:
        """Put what was typed at the door on record if the permit says so; forget it either way."""
        ...

    def permit(self, permit: Permit, desk: Desk) -> None:
        """From now on requests can be judged."""
        ...

    def relay_to(self, agent: Any, notice: str) -> None:
        """From now on programs can start; `notice` is one line for terminals."""
        ...

    def say(self, text: str) -> None:
        """One line for every open terminal; nothing where there is none."""
        ...

    def tell(self, text: str) -> None:
        """The same, and where there is no terminal, for the next one."""
        ...

    def end(self, error: DoorwardError) -> None:
        """Show `error` on everything that is open, answer everything still asked with it, and hang up soon."""
        ...

    def pause(self) -> None:
        """Read no more from the engineer."""
        ...

    def resume(self) -> None: ...

    def idle_seconds(self) -> float: ...

    def traffic(self) -> Sequence[Mapping[str, Any]]:
        """What passed, per channel, for the record."""
        ...
