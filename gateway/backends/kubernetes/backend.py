"""The Kubernetes backend: one pod for each workspace, or a container beside a service in one of its pods."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from gateway.backends import Bindable, Order
from gateway.backends.kubernetes.beside import Guest
from gateway.backends.kubernetes.cluster import ASK_SECONDS, Cluster, connect, removed, translated
from gateway.backends.kubernetes.held import Held
from gateway.backends.kubernetes.service import check_service
from gateway.backends.kubernetes.spec import (
    CONTAINER,
    GRACE_SECONDS,
    INSTANCE_LABEL,
    SESSION_LABEL,
    SOCKET,
    Site,
    claim,
    pod,
)
from gateway.backends.kubernetes.states import ended, is_claimed, is_running
from gateway.backends.kubernetes.walls import RIGHTS, Walls, check_rights
from gateway.concurrency import background, to_the_end
from gateway.errors import WorkspaceUnavailable
from gateway.model import SessionId, WorkspaceSpec
from gateway.settings import KubernetesSettings

CREATE_SECONDS = 10.0


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
        if order.spec.pod.beside is not None:
            return Guest(self._cluster.within(order.spec.pod.beside.namespace), self._settings, self._walls, order)
        return _Pod(self._cluster, self._settings, self._site, self._walls, order)

    def made_of(self, spec: WorkspaceSpec) -> str:
        return self._site.agent_image

    async def reap(self, live: Collection[SessionId]) -> list[SessionId]:
        # No age matters: a session is in `live` before its pod is asked for, and `live` is read after the list.
        # And what is beside a service cannot be removed by anybody: it ends by itself.
        with translated("refused to list its workspaces"):
            found = await self._cluster.pods(f"{INSTANCE_LABEL}={self._site.instance},{SESSION_LABEL}")
        dead = [one["metadata"] for one in found if one["metadata"]["labels"][SESSION_LABEL] not in live]
        gone = await asyncio.gather(*(removed(self._cluster, one["name"]) for one in dead))
        return [SessionId(one["labels"][SESSION_LABEL]) for one, done in zip(dead, gone, strict=True) if done]

    async def check(self, spec: WorkspaceSpec | None = None) -> None:
        with translated("refused to tell its version"):
            async with asyncio.timeout(ASK_SECONDS):
                await self._cluster.version.get_code()
        await check_rights(self._cluster, RIGHTS, "kubectl apply -f backends/kubernetes/role.yaml")
        if self._settings.enforces_network_policy is None:
            await self._walls.check_enforced()
        if spec is not None:
            self._walls.check(spec)
            if (beside := spec.pod.beside) is not None:
                await check_service(self._cluster.within(beside.namespace), spec, beside)


class _Pod(Held):
    """A pod of our own."""

    def __init__(self, cluster: Cluster, settings: KubernetesSettings, site: Site, walls: Walls, order: Order) -> None:
        super().__init__(cluster, CONTAINER)
        self._settings = settings
        self._site = site
        self._walls = walls
        self._order = order
        self._ran = False
        self._started = datetime.now(UTC)
        """By the cluster's clock, once it runs."""

    async def _start(self) -> None:
        self._walls.check(self._order.spec)
        await self._walls.ready(self._order.spec)
        name = f"doorward-{uuid.uuid4().hex[:16]}"
        with translated("refused to start the workspace"):
            await to_the_end(self._create(pod(self._order, name, self._site)))
            seen = await self._running(is_running, self._settings.start_seconds)
            self._ran = True
            self._started = datetime.fromisoformat(seen["status"]["startTime"])
            await self._hold(SOCKET)

    async def _create(self, body: dict[str, Any]) -> None:
        self._pod = body["metadata"]["name"]
        async with asyncio.timeout(CREATE_SECONDS):
            await self._cluster.core.create_namespaced_pod(
                self._cluster.namespace, body, _request_timeout=CREATE_SECONDS
            )
        self.id = self._pod

    async def _end(self) -> None:
        name, streams = self._let_go()
        for stream in streams:
            stream.abort()
        if name:
            await removed(self._cluster, name, GRACE_SECONDS if self._ran else 0)

    async def bind(self, order: Order) -> None:
        await self._walls.ready(order.spec)
        patch = claim(order, self._started)
        with translated("refused to bind the workspace to its session"):
            async with asyncio.timeout(ASK_SECONDS):
                await self._cluster.core.patch_namespaced_pod(self._pod, self._cluster.namespace, patch)
                found = await self._cluster.pod(self._pod)
        if not is_claimed(found, patch):
            raise WorkspaceUnavailable("the cluster does not show the workspace as it was bound")

    def _ended(self, pod: Mapping[str, Any]) -> str | None:
        return ended(pod)
