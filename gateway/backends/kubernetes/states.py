"""What the cluster says of a pod, in a sentence for the engineer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.backends.kubernetes.spec import CONTAINER
from gateway.errors import WorkspaceUnavailable

KILLED = 137  # 128 and SIGKILL
UNPULLABLE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"}
)
UNSTARTABLE = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"})


def is_running(pod: Mapping[str, Any]) -> bool:
    """Whether the workspace runs.  Raises WorkspaceUnavailable when it never will."""
    status = pod.get("status") or {}
    for entry in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        of_waiting((entry.get("state") or {}).get("waiting") or {})
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            raise WorkspaceUnavailable(
                "no node of the cluster has room for the workspace",
                remedy="Try again later, or ask the platform team for smaller limits or more nodes.",
            )
    if (why := ended(pod)) is not None:
        raise WorkspaceUnavailable(why)
    return _state(pod).get("running") is not None


def of_waiting(waiting: Mapping[str, Any]) -> None:
    """Raise WorkspaceUnavailable for a container that waits in vain."""
    if waiting.get("reason") in UNPULLABLE:
        raise WorkspaceUnavailable(
            "the workspace's image is not to be had in the cluster",
            remedy="Platform team: check workspace.image, its pull secret, and that the nodes reach the registry.",
        )
    if waiting.get("reason") in UNSTARTABLE:
        raise WorkspaceUnavailable(
            "the cluster could not start the workspace's container",
            remedy="Tell the platform team the session id: the pod's events say why.",
        )


def is_claimed(pod: Mapping[str, Any] | None, patch: Mapping[str, Any]) -> bool:
    """Whether the cluster shows a pod that runs and holds all that the patch said."""
    if pod is None or not is_running(pod) or "deletionTimestamp" in pod["metadata"]:
        return False
    metadata = pod["metadata"]
    return pod["spec"].get("activeDeadlineSeconds") == patch["spec"]["activeDeadlineSeconds"] and all(
        metadata.get(kind, {}).items() >= words.items() for kind, words in patch["metadata"].items()
    )


def ended(pod: Mapping[str, Any]) -> str | None:
    """Why the workspace is over; None while it is not."""
    status = pod.get("status") or {}
    match status.get("reason"):
        case "DeadlineExceeded":
            return "the workspace reached its deadline in the cluster"
        case "Evicted":
            return "the workspace was evicted from its node"
        case "Preempting" | "Preempted":
            return "the workspace had to make room for a more important pod"
        case "NodeLost" | "NodeShutdown" | "Terminated":
            return "the workspace's node went away"
    stopped = _state(pod).get("terminated")
    if stopped is not None:
        return of_exit(stopped, is_deleted="deletionTimestamp" in (pod.get("metadata") or {}))
    if status.get("phase") in ("Failed", "Succeeded"):
        return "the workspace could not be started: its agent was not put in place"
    return None


def of_exit(stopped: Mapping[str, Any], *, is_deleted: bool) -> str:
    """Why a container that has ended has."""
    if stopped.get("reason") == "OOMKilled":
        return "the workspace ran out of memory and was ended"
    if is_deleted or stopped.get("exitCode") == KILLED:
        return "the workspace was killed from outside"
    return f"the workspace ended by itself with status {stopped.get('exitCode')}"


def _state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    for entry in (pod.get("status") or {}).get("containerStatuses") or ():
        if entry.get("name") == CONTAINER:
            state: Mapping[str, Any] = entry.get("state") or {}
            return state
    return {}
