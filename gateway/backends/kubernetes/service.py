"""What has to hold where a service runs that workspaces are beside: the gateway's rights there, and what bounds them.

RBAC lets somebody into any container of a pod or into none.  What holds the gateway to its own are admission policies
(backends/kubernetes/beside.yaml), which it may not read: so they are tried, with requests that do nothing.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import aiohttp
from kubernetes_asyncio.client.exceptions import ApiException

from gateway.backends import TRIAL, Order
from gateway.backends.kubernetes.cluster import ASK_SECONDS, Cluster, message_of, translated
from gateway.backends.kubernetes.guest import PREFIX, addition, chosen
from gateway.backends.kubernetes.stream import PodStream
from gateway.backends.kubernetes.walls import Rights, check_rights
from gateway.errors import WorkspaceUnavailable
from gateway.model import Beside, WorkspaceSpec

RIGHTS: Rights = (
    ("", "pods", ("get", "list", "watch")),
    ("", "pods/ephemeralcontainers", ("patch",)),
    ("", "pods/exec", ("get", "create")),
    ("", "pods/attach", ("get", "create")),
)
NOBODY = f"{PREFIX}{'0' * 16}"
SHIPPED = "backends/kubernetes/beside.yaml"


async def check_service(cluster: Cluster, spec: WorkspaceSpec, beside: Beside) -> None:
    """Raise WorkspaceUnavailable, naming what is missing where the service runs.  `cluster` is of that namespace.

    Nobody is entered and nothing is added.
    """
    await check_rights(cluster, RIGHTS, f"kubectl apply -f {SHIPPED}, with this namespace in the Role")
    with translated("refused to let it be tried what the gateway may do"):
        await _check_entering(cluster)
        pod = chosen(await cluster.pods(beside.labels), "the service", beside)
        await _check_adding(cluster, pod["metadata"]["name"], spec)


async def _check_entering(cluster: Cluster) -> None:
    """By the name of a pod that there is not: whoever is let through finds nobody."""
    pod = f"doorward-check-{uuid.uuid4().hex[:12]}"
    for what, enter in (("exec", partial(cluster.exec, command=["true"])), ("attach", cluster.attach)):
        if (why := await _refused(enter, pod, NOBODY)) is not None:
            raise WorkspaceUnavailable(
                f"the cluster lets the gateway into no container of its own in {cluster.namespace}, by {what}: {why}",
                remedy=f"Platform team: compare the admission policy doorward-beside-enters with {SHIPPED}.",
            )
        if await _refused(enter, pod, "service") is None:
            raise _unheld(cluster, f"enter the service's own containers, by {what}", "doorward-beside-enters")


async def _refused(enter: Callable[[str, str], Awaitable[PodStream]], pod: str, container: str) -> str | None:
    """What an admission policy said; None where the API server went on to look for the pod."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            stream = await enter(pod, container)
    except aiohttp.ClientResponseError as error:
        if error.status == 404:
            return None
        if error.status in (403, 422):
            return message_of(error)
        raise
    stream.abort()
    return None


async def _check_adding(cluster: Cluster, pod: str, spec: WorkspaceSpec) -> None:
    """By dry runs on a pod that is there, which the API server judges as it would the real thing."""
    container = addition(Order(spec, TRIAL, datetime.now(UTC) + timedelta(hours=1)), NOBODY)
    if (why := await _turned_down(cluster, pod, container)) is not None:
        raise WorkspaceUnavailable(
            f"the cluster would refuse the container beside the service: {why}",
            remedy=f"Platform team: put it on the lists in the policy doorward-beside-adds ({SHIPPED}) where it may "
            "be; or security team: change the target.",
        )
    for what, change in _FORBIDDEN.items():
        if await _turned_down(cluster, pod, _changed(container, change)) is None:
            raise _unheld(cluster, f"add {what}", "doorward-beside-adds")


_FORBIDDEN: Mapping[str, Mapping[str, Any]] = {
    "a container of any image": {"image": f"doorward.invalid/any@sha256:{'0' * 64}"},
    "a container with the namespace's secrets": {
        "envFrom": [{"secretRef": {"name": "doorward-check", "optional": True}}]
    },
    "a container with capabilities": {"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}},
    "a container under a name that is not its own": {"name": "service-0"},
}


def _changed(patch: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(patch))
    [container] = changed["spec"]["ephemeralContainers"]
    for key, value in change.items():
        container[key] = {**container[key], **value} if isinstance(value, dict) else value
    return changed


async def _turned_down(cluster: Cluster, pod: str, patch: Mapping[str, Any]) -> str | None:
    """What the API server said to it; None where it would have been taken."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            await cluster.core.patch_namespaced_pod_ephemeralcontainers(
                pod, cluster.namespace, patch, dry_run="All", _request_timeout=ASK_SECONDS
            )
    except ApiException as error:
        if error.status in (403, 422):
            return message_of(error)
        raise
    return None


def _unheld(cluster: Cluster, what: str, policy: str) -> WorkspaceUnavailable:
    return WorkspaceUnavailable(
        f"no admission policy is in force in {cluster.namespace}: whoever has the gateway's token could {what}",
        remedy=f"Platform team: kubectl apply -f {SHIPPED}, with the gateway's account in the policy {policy}.",
    )
