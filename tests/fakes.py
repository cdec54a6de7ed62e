"""Stand-ins that keep the same contracts as the real parts (`gateway/contracts/`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.authn import Evidence, Prompt, Verified
from gateway.backends import Bindable, Order, ProtocolFactory
from gateway.concurrency import to_the_end
from gateway.errors import VerifierUnavailable, WorkspaceUnavailable
from gateway.model import SessionId, WorkspaceSpec

GRACE_SECONDS = 3.0


class ProcessBackend:
    """The agent as a plain child process: everything a backend does but the walls."""

    name = "process"
    isolated = False

    def __init__(self, agent: Path) -> None:
        self._agent = agent
        self._running: dict[SessionId, ProcessWorkspace] = {}

    def workspace(self, order: Order) -> AbstractAsyncContextManager[Bindable]:
        return self._workspace(order)

    @asynccontextmanager
    async def _workspace(self, order: Order) -> AsyncIterator[Bindable]:
        started = ProcessWorkspace()
        started.session = order.holder.session
        started.running = self._running
        self._running[started.session] = started
        try:
            await to_the_end(started.start(self._agent, order))
            yield started
        finally:
            try:
                await to_the_end(started.end())
            finally:
                self._running.pop(started.session, None)

    def made_of(self, spec: WorkspaceSpec) -> str:
        return str(self._agent)

    async def reap(self, live: Collection[SessionId]) -> list[SessionId]:
        dead = [session for session in self._running if session not in live]
        for session in dead:
            await self._running.pop(session).end()
        return dead

    async def check(self, spec: WorkspaceSpec | None = None) -> None:
        if not os.access(self._agent, os.X_OK):
            raise WorkspaceUnavailable("there is no agent", remedy="Build the agent.")

    async def alive(self, session: SessionId) -> bool:
        """For tests: whether the agent's process is there."""
        started = self._running.get(session)
        if started is None or not started.id:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(started.id), 0)
            return True
        return False

    async def kill(self, session: SessionId) -> None:
        """For tests: end the agent from outside."""
        os.kill(int(self._running[session].id), signal.SIGKILL)


class ProcessWorkspace:
    """One agent; its stdin and stdout are one end of a socket pair, whose other end becomes the transport."""

    session: SessionId
    running: dict[SessionId, ProcessWorkspace]

    def __init__(self) -> None:
        self.id = ""
        self._ours, self._theirs = socket.socketpair()
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None

    async def start(self, agent: Path, order: Order) -> None:
        environment = {"PATH": os.environ["PATH"], **order.environment()}
        with self._theirs:
            pipe = self._theirs.fileno()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    agent, stdin=pipe, stdout=pipe, env=environment, start_new_session=True
                )
            except OSError as error:
                raise WorkspaceUnavailable("the agent could not be started") from error
        self.id = str(self._process.pid)

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        self._ours.setblocking(False)
        self._transport, protocol = await asyncio.get_running_loop().create_connection(factory, sock=self._ours)
        return self._transport, protocol

    async def bind(self, order: Order) -> None:
        self.running[order.holder.session] = self.running.pop(self.session)
        self.session = order.holder.session

    async def wait_gone(self) -> str:
        status = await self._process.wait() if self._process is not None else 0
        if status < 0:
            return "the workspace was killed from outside"
        return f"the workspace ended by itself with status {status}"

    async def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        else:
            self._ours.close()
        if self._process is None:
            return
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


class Known:
    """A verifier that knows who has which secret; it asks for it where a dialogue is to be had."""

    def __init__(self, secrets: Mapping[str, str], claims: Mapping[str, Any] | None = None) -> None:
        self._secrets = secrets
        self._claims = claims or {}
        self.asked: list[Any] = []
        self.cancelled = 0
        self.unavailable = False

    async def verify(self, verification: Any, evidence: Evidence) -> Verified:
        self.asked.append(verification)
        if self.unavailable:
            raise VerifierUnavailable("the verifier does not answer")
        name = str(getattr(verification, "username", "") or getattr(verification, "account", evidence.login))
        typed = evidence.password
        if typed is None and evidence.ask is not None:
            try:
                [typed] = await evidence.ask("", [Prompt("Code: ", echo=False)])
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        right = typed is not None and typed.get_secret_value() == self._secrets.get(name)
        return Verified(right, self._claims if right else {})


class Listed:
    """A verifier of keys: those whose fingerprints it has."""

    def __init__(self, *fingerprints: str) -> None:
        self._fingerprints = fingerprints
        self.asked: list[Any] = []

    async def verify(self, verification: Any, evidence: Evidence) -> Verified:
        self.asked.append(verification)
        assert evidence.key is not None
        return Verified(evidence.key.fingerprint in self._fingerprints)
