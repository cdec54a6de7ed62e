"""The Kubernetes backend: one pod for each workspace.

The attach is the lifeline: when it ends, so does the agent.  The stream is one exec of the agent's `connect`, since the
runtime would log what a container writes to its stdout.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from gateway.backends import Bindable, Order, ProtocolFactory
from gateway.backends.entered import Entered
from gateway.backends.kubernetes_cluster import (
    ASK_SECONDS,
    FAULTS,
    RETRY_SECONDS,
    Cluster,
    connect,
    removed,
    translated,
)
from gateway.backends.kubernetes_spec import (
    AGENT,
    CONTAINER,
    GRACE_SECONDS,
    INSTANCE_LABEL,
    SESSION_LABEL,
    SOCKET,
    Site,
    claim,
    pod,
)
from gateway.backends.kubernetes_states import ended, is_claimed, is_running
from gateway.backends.kubernetes_stream import PodStream
from gateway.backends.kubernetes_walls import Walls
from gateway.concurrency import background, to_the_end
from gateway.errors import WorkspaceUnavailable
from gateway.model import SessionId, WorkspaceSpec
from gateway.settings import KubernetesSettings

log = logging.getLogger(__name__)
CREATE_SECONDS = 10.0
CLOSED = "the workspace was closed"


class KubernetesBackend:
    """Workspaces in one namespace.  `open` makes one."""

    name = "kubernetes"

    def __init__(self, cluster: Cluster, settings: KubernetesSettings, site: Site) -> None:
        self._cluster = cluster
        self._settings = settings
        self._site = site
        self._walls = Walls(cluster, settings, site)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: KubernetesSettings, instance: str) -> AsyncIterator[KubernetesBackend]:
        """One client for the life of the gateway.  The cluster may be down meanwhile: each session finds out.

        Raises SettingsError for a kubeconfig that cannot be used.
        """
        async with connect(settings) as cluster:
            backend = cls(cluster, settings, Site(instance, settings.agent_image))
            async with background(backend._walls.keep_tried()):
                yield backend

    def workspace(self, order: Order) -> AbstractAsyncContextManager[Bindable]:
        return _Pod(self._cluster, self._settings, self._site, self._walls, order)

    def made_of(self, spec: WorkspaceSpec) -> str:
        return self._site.agent_image

    async def reap(self, live: Collection[SessionId]) -> list[SessionId]:
        # No age matters: a session is in `live` before its pod is asked for, and `live` is read after the list.
        with translated("refused to list its workspaces"):
            found = await self._cluster.pods(f"{INSTANCE_LABEL}={self._site.instance},{SESSION_LABEL}")
        dead = [one["metadata"] for one in found if one["metadata"]["labels"][SESSION_LABEL] not in live]
        gone = await asyncio.gather(*(removed(self._cluster, one["name"]) for one in dead))
        return [SessionId(one["labels"][SESSION_LABEL]) for one, done in zip(dead, gone, strict=True) if done]

    async def check(self, spec: WorkspaceSpec | None = None) -> None:
        with translated("refused to tell its version"):
            async with asyncio.timeout(ASK_SECONDS):
                await self._cluster.version.get_code()
        await self._walls.check_rights()
        if self._settings.enforces_network_policy is None:
            await self._walls.check_enforced()
        if spec is not None:
            self._walls.check(spec)


class _Pod(Entered):
    """One workspace, and the context that it lives in."""

    def __init__(self, cluster: Cluster, settings: KubernetesSettings, site: Site, walls: Walls, order: Order) -> None:
        self.id = ""
        self._cluster = cluster
        self._settings = settings
        self._site = site
        self._walls = walls
        self._order = order
        self._name = ""
        self._streams: list[PodStream] = []
        self._ran = False
        self._started = datetime.now(UTC)
        """By the cluster's clock, once it runs."""

    async def _start(self) -> None:
        self._walls.check(self._order.spec)
        await self._walls.ready(self._order.spec)
        name = f"doorward-{uuid.uuid4().hex[:16]}"
        with translated("refused to start the workspace"):
            await to_the_end(self._create(pod(self._order, name, self._site)))
            await self._running()
            # The lifeline first: what is not held would run on without us.
            lifeline = await self._cluster.attach(self._name, CONTAINER)
            self._streams.append(lifeline)
            lifeline.resume()
            stream = await self._cluster.exec(self._name, CONTAINER, [AGENT, "connect", SOCKET])
            self._streams.append(stream)
            # A stream that was cut off does not end its process, which would hear of it from nobody.
            stream.on_lost, lifeline.on_lost = lifeline.abort, stream.abort

    async def _create(self, body: dict[str, Any]) -> None:
        self._name = body["metadata"]["name"]
        async with asyncio.timeout(CREATE_SECONDS):
            await self._cluster.core.create_namespaced_pod(
                self._cluster.namespace, body, _request_timeout=CREATE_SECONDS
            )
        self.id = self._name

    async def _running(self) -> None:
        try:
            async with asyncio.timeout(self._settings.start_seconds):
                async for seen in self._cluster.watched(self._name):
                    if is_running(seen):
                        self._ran = True
                        self._started = datetime.fromisoformat(seen["status"]["startTime"])
                        return
        except TimeoutError as error:
            raise WorkspaceUnavailable(
                f"the cluster did not start the workspace within {self._settings.start_seconds:g} s",
                remedy="Try again; if it stays so, tell the platform team the session id.",
            ) from error
        raise WorkspaceUnavailable("the workspace was killed from outside")

    async def _end(self) -> None:
        streams, self._streams = self._streams, []
        name, self._name = self._name, ""
        for stream in streams:
            stream.abort()
        if name:
            await removed(self._cluster, name, GRACE_SECONDS if self._ran else 0)

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        if len(self._streams) < 2 or self._streams[1].is_lost:
            raise WorkspaceUnavailable("the workspace has ended")
        return self._streams[1].connect(factory)

    async def bind(self, order: Order) -> None:
        await self._walls.ready(order.spec)
        patch = claim(order, self._started)
        with translated("refused to bind the workspace to its session"):
            async with asyncio.timeout(ASK_SECONDS):
                await self._cluster.core.patch_namespaced_pod(self._name, self._cluster.namespace, patch)
                found = await self._cluster.pod(self._name)
        if not is_claimed(found, patch):
            raise WorkspaceUnavailable("the cluster does not show the workspace as it was bound")

    async def wait_gone(self) -> str:
        while self._name:
            try:
                async for seen in self._cluster.watched(self._name):
                    if (why := ended(seen)) is not None:
                        return why if self._name else CLOSED
                break
            except FAULTS as error:
                # An API server that is away for a while says nothing of the workspace: its streams do.
                log.warning("kubernetes_watch_failed", extra={"pod": self._name, "error": str(error)[:500]})
                await asyncio.sleep(RETRY_SECONDS)
        return "the workspace was killed from outside" if self._name else CLOSED
