"""A workspace beside a running service: an ephemeral container of one of its pods.

It is added, and cannot be taken away again by anybody: so it ends by itself, with its lifeline, at its deadline, or
when nobody comes for it.  Nothing else of the pod is touched.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from kubernetes_asyncio.client.exceptions import ApiException

from gateway.backends import Order
from gateway.backends.kubernetes.cluster import ASK_SECONDS, END_SECONDS, FAULTS, Cluster, translated
from gateway.backends.kubernetes.guest import PREFIX, TAKEN_AWAY, addition, chosen, ended, is_over, is_running
from gateway.backends.kubernetes.held import Held
from gateway.backends.kubernetes.stream import PodStream
from gateway.backends.kubernetes.walls import Walls
from gateway.concurrency import to_the_end
from gateway.errors import WorkspaceUnavailable
from gateway.settings import KubernetesSettings

log = logging.getLogger(__name__)


class Guest(Held):
    """One of our containers in a pod that is somebody else's.  `cluster` is of the service's namespace."""

    taken_away = TAKEN_AWAY

    def __init__(self, cluster: Cluster, settings: KubernetesSettings, walls: Walls, order: Order) -> None:
        super().__init__(cluster, f"{PREFIX}{uuid.uuid4().hex[:16]}")
        self._settings = settings
        self._walls = walls
        self._order = order
        self._name = ""
        self._uid = ""

    def describe(self) -> dict[str, Any]:
        """For the record, which alone ties the container to the person: on somebody's pod there is no room for that."""
        return {"id": self.id, "namespace": self._cluster.namespace, "pod": self._name, "pod_uid": self._uid}

    async def _start(self) -> None:
        beside = self._order.spec.pod.beside
        assert beside is not None
        self._walls.check(self._order.spec)
        with translated("refused a container beside the service"):
            async with asyncio.timeout(ASK_SECONDS):
                pod = chosen(await self._cluster.pods(beside.labels), self._order.holder.target, beside)
            self._name, self._uid = pod["metadata"]["name"], pod["metadata"]["uid"]
            self._order.tells(f"beside the pod {self._name} of {beside.namespace} ({self._uid})")
            await to_the_end(self._add())
            await self._running(lambda seen: is_running(self._own(seen), self._container), self._settings.start_seconds)
            await self._hold(f"@{self._container}")

    async def _add(self) -> None:
        self._pod, self.id = self._name, self._container
        body = {"metadata": {"uid": self._uid}, **addition(self._order, self._container)}
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._cluster.core.patch_namespaced_pod_ephemeralcontainers(
                    self._name, self._cluster.namespace, body, _request_timeout=END_SECONDS
                )
        except ApiException as error:
            self._pod = ""  # it was not added
            if error.status == 404 or "metadata.uid" in str(error.body):
                raise WorkspaceUnavailable(TAKEN_AWAY, remedy="Try again: another one is chosen.") from error
            raise

    async def _end(self) -> None:
        """Whether it has ended is seen, and otherwise logged: it ends by itself all the same."""
        pod, streams = self._let_go()
        for stream in streams:
            stream.end()
        try:
            if pod:
                async with asyncio.timeout(END_SECONDS):
                    await self._until_ended(pod, is_told=bool(streams))
        except WorkspaceUnavailable:
            return  # it does not run, and has a minute when it does
        except FAULTS as error:
            log.error(
                "kubernetes_guest_not_ended", extra={"pod": pod, "id": self._container, "error": str(error)[:500]}
            )
        finally:
            for stream in streams:
                stream.abort()

    async def _until_ended(self, pod: str, *, is_told: bool) -> None:
        """An agent that was not told that nobody is there any more is told once it runs."""
        late: PodStream | None = None
        try:
            async for seen in self._cluster.watched(pod):
                if not self._is_here(seen) or is_over(seen, self._container):
                    return
                if not is_told and late is None and is_running(seen, self._container):
                    late = await self._cluster.attach(pod, self._container)
                    late.end()
        finally:
            if late is not None:
                late.abort()

    def _is_here(self, pod: Mapping[str, Any]) -> bool:
        """A StatefulSet's pods are called alike, one after the other."""
        return bool(pod["metadata"]["uid"] == self._uid)

    def _own(self, pod: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self._is_here(pod):
            raise WorkspaceUnavailable(TAKEN_AWAY)
        return pod

    def _ended(self, pod: Mapping[str, Any]) -> str | None:
        return ended(pod, self._container) if self._is_here(pod) else TAKEN_AWAY

    async def bind(self, order: Order) -> None:
        raise WorkspaceUnavailable("beside a service nothing is started for nobody, so it cannot become anybody's")
