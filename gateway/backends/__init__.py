"""The backend contract: start something under the permit's limits, hand over a byte stream, tell when it is gone.

A workspace's first process is the agent (`backends/agent/`), which speaks SSH on its stdin and stdout and ends, with
everything it started, when its stdin ends.  So a backend knows nothing of terminals, signals, exit statuses or
forwards, and nothing of credentials: those travel inside the agent's connection.

The network of a workspace is loopback and nothing else, on every backend.  The destinations a permit names are reached
through the agent's connection (`ssh/agent.py` listens inside, the gateway dials): a backend has only to make
`hosts(spec)` the workspace's /etc/hosts entries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from gateway.model import Holder, SessionId, WorkspaceSpec

CREDENTIALS_DIR = "/run/doorward"
"""The credentials tmpfs: owned by the workspace's user, mode 0700, in every workspace."""

ProtocolFactory = Callable[[], asyncio.Protocol]


TRIAL = Holder(SessionId("check"), "doorward", "check", "check", "")
"""Whom a workspace is for that is started, or asked about, to find out whether one could be."""


def unheard(_what: str) -> None:
    """For whoever waits without a terminal."""


@dataclass(frozen=True, slots=True)
class Order:
    """One workspace to start.

    `expires_at` is a hard end the runtime may enforce by itself where it can (Kubernetes' active deadline).
    """

    spec: WorkspaceSpec
    holder: Holder
    expires_at: datetime
    waits_for: Callable[[str], None] = field(default=unheard, compare=False, repr=False)
    """To be told, in words that go on with "waiting for", what the start waits for; again whenever that changes."""
    tells: Callable[[str], None] = field(default=unheard, compare=False, repr=False)
    """To be told, in a line for terminals, what people should know of where the workspace is."""

    def environment(self) -> Mapping[str, str]:
        """What the agent's own environment must hold; visible to whoever inspects the runtime."""
        traced = {"TRACEPARENT": self.holder.traceparent} if self.holder.traceparent else {}
        return {**self.spec.env, **traced}


class Workspace(Protocol):
    """A started workspace.  Made by `Backend.workspace`, valid until that context is left."""

    id: str
    """The runtime's own id of it (container id, pod name, pid), for records."""

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Hand over the agent's stdin and stdout as one asyncio transport bound to `factory()`.

        Called once.  The transport is flow-controlled both ways, binary-safe, and `write_eof`, `close` or `abort` on
        it gives the agent EOF.  `connection_lost` is called on the protocol when the agent ends.
        Raises WorkspaceUnavailable.
        """
        ...

    async def wait_gone(self) -> str:
        """Return when the workspace has ended by itself or by others, with one safe sentence on why.

        Cancelling it changes nothing.  After the context is left it returns at once.
        """
        ...


class Bindable(Workspace, Protocol):
    """A workspace that was started for nobody, and becomes somebody's."""

    async def bind(self, order: Order) -> None:
        """Make it the workspace of `order`, whose spec it was started under but for `env`, `shell` and `force_command`.

        Called once.  On return the runtime itself names whose it is, in its own terms, and holds it to the order's end
        where it can, as it would one that was started for `order`; both have been read back.  Raises
        WorkspaceUnavailable; then, or cancelled, what was bound is unknown, and the workspace is not to be used.
        """
        ...


@dataclass(frozen=True, slots=True)
class Login:
    """How the SSH server at the other end of a workspace's stream is known, and logged in to."""

    name: str
    """What people call it: `address:port`."""
    known_by: str
    """The fingerprints of what it must prove, for people."""
    options: Mapping[str, Any]
    """For asyncssh's client: the keys that it must prove one of, whom to log in as and by what, keepalive."""
    seconds: float
    """Until it must be connected and logged in to."""
    env: Mapping[str, str]
    """What each program there is to find in its environment, where its server takes it."""


@runtime_checkable
class HostWorkspace(Workspace, Protocol):
    """A workspace that is a real host: at the end of its stream is an SSH server of somebody else's, and no agent.

    `create_connection` hands over a stream to it, and a protocol that has `why_lost`, once it is lost, has the last
    word in `wait_gone`.
    """

    login: Login


class Backend(Protocol):
    """A runtime that can start workspaces."""

    name: str

    def workspace(self, order: Order) -> AbstractAsyncContextManager[Workspace]:
        """Start on enter; be gone on exit.

        Enter raises WorkspaceUnavailable, and has then left nothing behind; cancelled on the way, it leaves nothing
        behind either.  Exit returns only when the workspace has ended and been removed, or after a bounded time
        (10 s) with an error logged, since closing may fail to be graceful but must not fail to close: what is left is
        the reaper's.  Leaving twice is fine.
        """
        ...

    async def reap(self, live: Collection[SessionId]) -> list[SessionId]:
        """Remove workspaces of this gateway instance whose session is not in `live`; return whose they were.

        The second line, not the first: a workspace ends with its stream.
        """
        ...

    async def check(self, spec: WorkspaceSpec | None = None) -> None:
        """Raise WorkspaceUnavailable, with a remedy, when the runtime (or the image of `spec`) cannot be used."""
        ...


@runtime_checkable
class Poolable(Backend, Protocol):
    """A backend that can start workspaces before anybody needs them (`pools/`).

    An order for nobody has a session id of the pool's, the target, and neither person nor grant.
    """

    def workspace(self, order: Order) -> AbstractAsyncContextManager[Bindable]: ...

    def made_of(self, spec: WorkspaceSpec) -> str:
        """A mark of what a workspace of `spec` consists of beyond what the spec says (the agent, a replaceable root).

        Two workspaces under different marks are not the same.  Cheap, and does not fail: called at each claim.
        """
        ...


def hosts(spec: WorkspaceSpec) -> dict[str, str]:
    """Name to loopback address, one address per egress host, for the workspace's /etc/hosts.

    Each host has an address of its own, so that two databases on port 5432 do not meet.  127.1.0.0/16 is loopback
    on Linux without configuration.
    """
    names = sorted({egress.host for egress in spec.network.egress})
    return {name: f"127.1.{index // 250}.{index % 250 + 1}" for index, name in enumerate(names)}
