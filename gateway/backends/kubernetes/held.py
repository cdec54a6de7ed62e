"""A container that runs our agent, in whosever pod: held by an attach, spoken to by one exec, watched until it ends.

The attach is the lifeline: when it ends, so does the agent.  The stream is one exec of the agent's `connect`, since the
runtime would log what a container writes to its stdout.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from gateway.backends import ProtocolFactory
from gateway.backends.entered import Entered
from gateway.backends.kubernetes.cluster import FAULTS, RETRY_SECONDS, Cluster
from gateway.backends.kubernetes.spec import AGENT
from gateway.backends.kubernetes.stream import PodStream
from gateway.errors import WorkspaceUnavailable

log = logging.getLogger(__name__)
CLOSED = "the workspace was closed"


class Held(Entered):
    """One workspace, and the context that it lives in."""

    taken_away = "the workspace was killed from outside"
    """Why it is over when its pod is there no more."""

    def __init__(self, cluster: Cluster, container: str) -> None:
        self.id = ""
        self._cluster = cluster
        self._container = container
        self._pod = ""
        """The pod's name, from when there may be something to end there until that begins."""
        self._streams: list[PodStream] = []

    async def _running(self, is_running: Callable[[Mapping[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """The pod, once the container runs in it.  Raises WorkspaceUnavailable, as `is_running` does, and FAULTS."""
        try:
            async with asyncio.timeout(seconds):
                async for seen in self._cluster.watched(self._pod):
                    if is_running(seen):
                        return seen
        except TimeoutError as error:
            raise WorkspaceUnavailable(
                f"the cluster did not start the workspace within {seconds:g} s",
                remedy="Try again; if it stays so, tell the platform team the session id.",
            ) from error
        raise WorkspaceUnavailable(self.taken_away)

    async def _hold(self, socket: str) -> None:
        """The lifeline first: what is not held would run on without us.  Raises FAULTS."""
        lifeline = await self._cluster.attach(self._pod, self._container)
        self._streams.append(lifeline)
        lifeline.resume()
        stream = await self._cluster.exec(self._pod, self._container, [AGENT, "connect", socket])
        self._streams.append(stream)
        # A stream that was cut off does not end its process, which would hear of it from nobody.
        stream.on_lost, lifeline.on_lost = lifeline.end, stream.abort

    def _let_go(self) -> tuple[str, list[PodStream]]:
        """The pod that was held, the first time, and by what; "" where there was none."""
        streams, self._streams = self._streams, []
        pod, self._pod = self._pod, ""
        return pod, streams

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        if len(self._streams) < 2 or self._streams[1].is_lost:
            raise WorkspaceUnavailable("the workspace has ended")
        return self._streams[1].connect(factory)

    async def wait_gone(self) -> str:
        while self._pod:
            try:
                async for seen in self._cluster.watched(self._pod):
                    if (why := self._ended(seen)) is not None:
                        return why if self._pod else CLOSED
                break
            except FAULTS as error:
                # An API server that is away for a while says nothing of the workspace: its streams do.
                log.warning("kubernetes_watch_failed", extra={"pod": self._pod, "error": str(error)[:500]})
                await asyncio.sleep(RETRY_SECONDS)
        return self.taken_away if self._pod else CLOSED

    def _ended(self, pod: Mapping[str, Any]) -> str | None:
        """Why the workspace is over; None while it is not."""
        raise NotImplementedError
