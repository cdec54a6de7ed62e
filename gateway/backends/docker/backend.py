"""The Docker backend: one hardened container for each workspace, its attach stream the agent's stdin and stdout."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiodocker
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError

from gateway.backends import Bindable, Order, ProtocolFactory
from gateway.backends.docker.agent import AgentVolume
from gateway.backends.docker.attach import Attachment, attach
from gateway.backends.docker.engine import ASK_SECONDS, FAULTS, connect, image, removed, translated, url
from gateway.backends.docker.line import Line, Lines
from gateway.backends.docker.site import Engine
from gateway.backends.docker.spec import INSTANCE_LABEL, SESSION_LABEL, bound_name, container, is_bound
from gateway.backends.entered import Entered
from gateway.concurrency import to_the_end
from gateway.errors import WorkspaceUnavailable
from gateway.model import SessionId, WorkspaceSpec
from gateway.settings import DockerSettings

log = logging.getLogger(__name__)
START_SECONDS = 10.0
REASON_SECONDS = 0.5
KILLED = 128 + signal.SIGKILL
CLOSED = "the workspace was closed"


class DockerBackend:
    """Workspaces on one Docker engine.  `open` makes one."""

    name = "docker"

    def __init__(
        self, docker: aiodocker.Docker, agent: Path, instance: str, engine: Engine, state: Path | None
    ) -> None:
        self._docker = docker
        self._agent = AgentVolume(docker, agent)
        self._instance = instance
        self._engine = engine
        self._lines = Lines(state)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: DockerSettings,
        instance: str,
        agent: Path,
        seccomp: Path | None = None,
        state: Path | None = None,
    ) -> AsyncIterator[DockerBackend]:
        """One client for the life of the gateway.  The engine may be down meanwhile: each session finds out.

        `agent` and `seccomp` are the defaults for what the settings leave open; without a profile the engine's own
        applies.  Streams pass sockets below `state` where the engine's containers reach them.  Raises SettingsError
        for a profile or a URL that cannot be used.
        """
        async with connect(settings.url) as docker:
            engine = Engine(docker, instance, settings.seccomp_profile or seccomp, settings.runtime)
            yield cls(docker, settings.agent or agent, instance, engine, state)

    def workspace(self, order: Order) -> AbstractAsyncContextManager[Bindable]:
        return _Container(self._docker, self._agent, order, self._engine, self._lines)

    def made_of(self, spec: WorkspaceSpec) -> str:
        return self._agent.version

    async def reap(self, live: Collection[SessionId]) -> list[SessionId]:
        # No age matters: a session is in `live` before its container is asked for, and `live` is read after the list.
        filters = json.dumps({"label": [f"{INSTANCE_LABEL}={self._instance}", SESSION_LABEL]})
        with translated("refused to list its workspaces"):
            async with asyncio.timeout(START_SECONDS):
                found = await self._docker.containers.list(all="true", filters=filters)
        dead = [one for one in found if one["Labels"][SESSION_LABEL] not in live]
        gone = await asyncio.gather(*(removed(one) for one in dead))
        return [SessionId(one["Labels"][SESSION_LABEL]) for one, done in zip(dead, gone, strict=True) if done]

    async def check(self, spec: WorkspaceSpec | None = None) -> None:
        await self._engine.check()
        if spec is not None:
            await image(self._docker, spec.image)
            await self._engine.try_once(self._agent, spec)


class _Container(Entered):
    """One workspace, and the context that it lives in."""

    def __init__(
        self, docker: aiodocker.Docker, agent: AgentVolume, order: Order, engine: Engine, lines: Lines
    ) -> None:
        self.id = ""
        self._docker = docker
        self._agent = agent
        self._order = order
        self._engine = engine
        self._container: DockerContainer | None = None
        self._attachment: Attachment | None = None
        self._lines = lines
        self._line: Line | None = None
        self._transport: asyncio.Transport | None = None  # of the line

    async def _start(self) -> None:
        found = await image(self._docker, self._order.spec.image)
        volume = await self._agent.ready(found.id)
        configured = partial(container, self._order, found, volume, await self._engine.site())
        with translated("refused to start the workspace"):
            created = await to_the_end(self._create(configured))
            async with asyncio.timeout(START_SECONDS):
                # Attached before it runs, so that not one byte and not its end can be missed.
                self._attachment = await attach(self._docker, created.id)
                await created.start()

    async def _create(self, configured: Callable[[dict[str, Any] | None], dict[str, Any]]) -> DockerContainer:
        async with asyncio.timeout(START_SECONDS):
            if (line := self._lines.new()) is not None:
                self._line = line
                try:
                    return self._made(await self._docker.containers.create(configured(line.mount())))
                except DockerError as error:  # another machine's engine, or another's files around us
                    refusal = error.message
            created = self._made(await self._docker.containers.create(configured(None)))
            if line is not None:
                line.close()
                self._line = None
                self._lines.are_useless(refusal)
            return created

    def _made(self, created: DockerContainer) -> DockerContainer:
        self._container = created
        self.id = created.id
        return created

    async def _end(self) -> None:
        attachment, self._attachment = self._attachment, None
        created, self._container = self._container, None
        if self._line is not None:
            self._line.close()
        if self._transport is not None:
            self._transport.abort()
        if attachment is not None:
            attachment.abort()
        if created is not None:
            await removed(created)

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        attachment, line = self._attachment, self._line
        if attachment is None:
            raise WorkspaceUnavailable("the workspace has ended")
        taken = await self._lines.taken(line, attachment) if line is not None else None
        if attachment.is_lost:
            if taken is not None:
                taken.close()
            raise WorkspaceUnavailable("the workspace has ended")
        if taken is None:
            return attachment.connect(factory)
        self._transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(factory, taken)
        attachment.when_lost(self._transport.abort)
        return self._transport, protocol

    async def bind(self, order: Order) -> None:
        if self._container is None:
            raise WorkspaceUnavailable(CLOSED)
        with translated("refused to bind the workspace to its session"):
            async with asyncio.timeout(ASK_SECONDS):
                await self._container.rename(bound_name(order.holder))
                shown = await self._container.show()
        if not is_bound(shown, order):
            raise WorkspaceUnavailable("the container engine does not show the workspace as it was bound")

    async def wait_gone(self) -> str:
        if self._container is None:
            return CLOSED
        status: int | None = None
        try:
            ended = await self._container.wait()
            status = None if ended.get("Error") else ended["StatusCode"]  # Podman: it has been removed already
        except FAULTS as error:
            if not isinstance(error, DockerError) or error.status != 404:
                log.warning("docker_wait_failed", extra={"container": self.id[:12], "error": str(error)})
                return CLOSED if self._container is None else "the container engine stopped answering"
        return CLOSED if self._container is None else await self._why(status)

    async def _why(self, status: int | None) -> str:
        """The engine has removed the container by itself, but its last events are still to be had."""
        happened: set[str] = set()
        filters = json.dumps({"container": [self.id], "event": ["oom", "kill", "die", "died"]})  # the last: Podman
        try:
            async with (
                asyncio.timeout(REASON_SECONDS),
                self._docker.session.get(
                    url(self._docker, "events"), params={"since": "0", "filters": filters}
                ) as response,
            ):
                async for line in response.content:
                    event = json.loads(line)
                    happened.add(event["Action"])
                    if "die" in happened:
                        status = int(event["Actor"]["Attributes"]["exitCode"])
                        break
        except (*FAULTS, ValueError, KeyError):
            log.debug("docker_events_failed", exc_info=True, extra={"container": self.id[:12]})
        if "oom" in happened:
            return "the workspace ran out of memory and was ended"
        if "kill" in happened:
            return "the workspace was killed from outside"
        if status is None:
            return "the workspace was removed"
        if status == KILLED:  # Podman has no event for it
            return "the workspace was ended by the system, most likely because it ran out of memory"
        return f"the workspace ended by itself with status {status}"
