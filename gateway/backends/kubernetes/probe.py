"""Whether the cluster enforces NetworkPolicy, found out by trying: not every network plugin does, and none says so."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.backends.kubernetes.cluster import Cluster, removed, translated
from gateway.backends.kubernetes.spec import CONTAINER, PROBE_SECONDS, Site, probe
from gateway.backends.kubernetes.states import is_running
from gateway.concurrency import to_the_end, together
from gateway.errors import WorkspaceUnavailable

PORT = 8022
UNTRIED = "the network could not be tried"
AGENT_IN_IMAGE = "/doorward-agent"


async def is_enforced(cluster: Cluster, site: Site) -> bool:
    """Whether a pod under the rule against all traffic is kept from reaching another.  Takes seconds.

    Raises WorkspaceUnavailable where it cannot be tried.
    """
    with translated("refused to let its network be tried"):
        async with (
            asyncio.timeout(PROBE_SECONDS),
            together(_probe(cluster, site), _probe(cluster, site)) as ((answering, address), (asking, _)),
        ):
            # What cannot be reached by itself would pass for a rule that is enforced.
            if await _reached(cluster, answering, f"127.0.0.1:{PORT}"):
                return not await _reached(cluster, asking, f"{address}:{PORT}")
    raise WorkspaceUnavailable(UNTRIED)


@asynccontextmanager
async def _probe(cluster: Cluster, site: Site) -> AsyncIterator[tuple[str, str]]:
    """A pod that answers, its name and its address."""
    name = f"doorward-probe-{uuid.uuid4().hex[:12]}"
    try:
        await cluster.core.create_namespaced_pod(cluster.namespace, probe(name, ["answer", f":{PORT}"], site))
        async for seen in cluster.watched(name):
            if is_running(seen) and (address := seen["status"].get("podIP")):
                break
        else:
            raise WorkspaceUnavailable(
                "whether the cluster enforces NetworkPolicy could not be tried: a pod was taken away"
            )
        yield name, f"[{address}]" if ":" in address else address
    finally:
        await to_the_end(removed(cluster, name))


async def _reached(cluster: Cluster, pod: str, address: str) -> bool:
    """What a pod's agent says when it is asked to connect there."""
    said = _Said()
    stream = await cluster.exec(pod, CONTAINER, [AGENT_IN_IMAGE, "reach", address])
    try:
        stream.connect(lambda: said)
        await said.ended.wait()
    finally:
        stream.abort()
    match said.words.strip():
        case b"reached":
            return True
        case b"unreached":
            return False
    raise WorkspaceUnavailable(f"{UNTRIED}: no answer from a pod")


class _Said(asyncio.Protocol):
    def __init__(self) -> None:
        self.words = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.words += data[:100]
        if b"\n" in self.words or len(self.words) > 100:
            self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
