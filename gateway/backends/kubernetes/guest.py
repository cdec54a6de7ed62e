"""What a permit beside a running service means in Kubernetes' words: which pod, which container, and how that ends.

The container meets the *restricted* level of the Pod Security Standards, as a pod of ours does.  It has no volume, no
port and no limit: the API has none for an ephemeral container, whose memory and processors are its pod's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.backends import Order
from gateway.backends.kubernetes.spec import AGENT, DEADLINE_SECONDS, RESTRICTED, literal
from gateway.backends.kubernetes.states import of_exit, of_waiting
from gateway.errors import WorkspaceUnavailable
from gateway.model import Beside

PREFIX = "doorward-"
SESSION = "DOORWARD_SESSION"
"""Whose container it is, for whoever looks at the pod: there are no labels or annotations on a container."""
TAKEN_AWAY = "the pod that the workspace was beside has gone"
OVERDUE = 124
"""What the agent, and nothing else, ends with when its time is over: `overdue` in backends/agent/beside.go."""
_TIME_OVER = "the workspace's time was over: its agent ended it at its deadline"
_OF_THE_NODE = ("hostNetwork", "hostPID", "hostIPC")
_GONE = {
    "DeadlineExceeded": "the pod that the workspace was beside reached its own deadline",
    "Evicted": "the pod that the workspace was beside was evicted from its node",
    "Preempting": "the pod that the workspace was beside had to make room for a more important one",
    "Preempted": "the pod that the workspace was beside had to make room for a more important one",
    "NodeLost": "the node of the pod that the workspace was beside went away",
    "NodeShutdown": "the node of the pod that the workspace was beside went away",
    "Terminated": "the node of the pod that the workspace was beside went away",
}


def chosen(pods: Sequence[dict[str, Any]], target: str, beside: Beside) -> dict[str, Any]:
    """The ready one with the fewest of our containers that run, then that ever were; of those the newest.

    Raises WorkspaceUnavailable.
    """
    ready = [pod for pod in pods if _is_ready(pod)]
    if not ready:
        wanted = ", ".join(f"{key}={value}" for key, value in beside.selector.items())
        raise WorkspaceUnavailable(
            f"there is no ready pod of {target} in the namespace {beside.namespace} ({wanted})",
            remedy="Look whether the service runs at all; if it does, tell the security team: the target's "
            "pod.beside.selector or namespace is not the service's.",
        )
    pod = min(ready, key=_by_guests)
    _check_walls(pod, beside)
    return pod


def addition(order: Order, name: str) -> dict[str, Any]:
    """The patch that adds the container."""
    spec, beside = order.spec, order.spec.pod.beside
    assert beside is not None
    left = round((order.expires_at - datetime.now(UTC)).total_seconds()) + DEADLINE_SECONDS
    environment = {**order.environment(), SESSION: str(order.holder.session)}
    container: dict[str, Any] = {
        "name": name,
        "image": spec.image,
        # Nobody else would end it: there is no deadline for a container.
        "command": [AGENT, "beside", f"@{name}", str(max(1, left))],
        "env": [{"name": key, "value": literal(value)} for key, value in environment.items()],
        "workingDir": "/",
        "stdin": True,
        "stdinOnce": True,  # the attached client's end is the agent's EOF
        "securityContext": {
            **RESTRICTED,
            "runAsUser": spec.user.uid,
            "runAsGroup": spec.user.gid,
            "readOnlyRootFilesystem": spec.read_only,
            "privileged": False,
        },
    }
    if beside.share_processes:
        container["targetContainerName"] = beside.container
    return {"spec": {"ephemeralContainers": [container]}}


def is_running(pod: Mapping[str, Any], name: str) -> bool:
    """Whether the container runs.  Raises WorkspaceUnavailable when it never will."""
    state = _state(pod, name)
    for stopped in (state.get("waiting"), state.get("terminated")):
        if AGENT in (stopped or {}).get("message", ""):
            raise WorkspaceUnavailable(
                f"the workspace's image has no {AGENT} that runs there",
                remedy="Platform team: build the image with backends/kubernetes/debug.Dockerfile.",
            )
    of_waiting(state.get("waiting") or {})
    if (why := ended(pod, name)) is not None:
        raise WorkspaceUnavailable(why)
    return "running" in state


def ended(pod: Mapping[str, Any], name: str) -> str | None:
    """Why the workspace is over; None while it is not."""
    status = pod.get("status") or {}
    if (why := _GONE.get(status.get("reason", ""))) is not None:
        return why
    if "deletionTimestamp" in pod["metadata"]:
        return "the pod that the workspace was beside is being deleted"
    stopped = _state(pod, name).get("terminated")
    if stopped is not None:
        # First: the runtime's reason can be of a program that was out of memory long before.
        return _TIME_OVER if stopped.get("exitCode") == OVERDUE else of_exit(stopped, is_deleted=False)
    if status.get("phase") in ("Failed", "Succeeded"):
        return "the pod that the workspace was beside has ended"
    return None


def is_over(pod: Mapping[str, Any], name: str) -> bool:
    """Whether nothing of it runs any more: a pod that is being deleted still does."""
    return "terminated" in _state(pod, name) or (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def _is_ready(pod: Mapping[str, Any]) -> bool:
    status = pod.get("status") or {}
    ready = {one["type"] for one in status.get("conditions") or () if one["status"] == "True"}
    return status.get("phase") == "Running" and "Ready" in ready and "deletionTimestamp" not in pod["metadata"]


def _by_guests(pod: Mapping[str, Any]) -> tuple[int, int, float, str]:
    running = sum("running" in (one.get("state") or {}) for one in _guests(pod, "status", "ephemeralContainerStatuses"))
    ever = sum(1 for _ in _guests(pod, "spec", "ephemeralContainers"))
    created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()
    return running, ever, -created, pod["metadata"]["name"]


def _guests(pod: Mapping[str, Any], part: str, of: str) -> Iterator[Mapping[str, Any]]:
    listed: Iterable[Mapping[str, Any]] = (pod.get(part) or {}).get(of) or ()
    return (one for one in listed if one["name"].startswith(PREFIX))


def _check_walls(pod: Mapping[str, Any], beside: Beside) -> None:
    """Raise WorkspaceUnavailable where more would be shared than the permit says."""
    spec = pod["spec"]
    if any(spec.get(one) for one in _OF_THE_NODE):
        raise WorkspaceUnavailable(
            f"the pod {pod['metadata']['name']} is in its node's own namespaces, and nobody is let in beside it",
            remedy="Tell the platform team: a service with hostNetwork, hostPID or hostIPC cannot be a target.",
        )
    if spec.get("shareProcessNamespace") and not beside.share_processes:
        raise WorkspaceUnavailable(
            f"the containers of the pod {pod['metadata']['name']} share their processes, and the permit does not",
            remedy="Security team: in the target's pod.beside, set share_processes and container; or platform team: "
            "take shareProcessNamespace from the pod.",
        )
    if beside.container and beside.container not in {one["name"] for one in spec["containers"]}:
        raise WorkspaceUnavailable(
            f"the pod {pod['metadata']['name']} has no container {beside.container!r}",
            remedy="Tell the security team: the target's pod.beside.container is not the service's.",
        )


def _state(pod: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    for entry in (pod.get("status") or {}).get("ephemeralContainerStatuses") or ():
        if entry.get("name") == name:
            state: Mapping[str, Any] = entry.get("state") or {}
            return state
    return {}
