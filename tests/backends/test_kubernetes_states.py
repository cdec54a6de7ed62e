"""What the cluster says of a pod, in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.backends.kubernetes.states import ended, is_running
from gateway.errors import WorkspaceUnavailable


def pod(state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    containers = [] if state is None else [{"name": "workspace", "state": state}]
    return {"metadata": {"name": "doorward-1"}, "status": {"containerStatuses": containers, **status}}


def waiting(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason}}


@pytest.mark.parametrize(
    "seen", [pod(), {}, pod(waiting("PodInitializing")), pod(waiting("ContainerCreating"), phase="Pending")]
)
def test_what_is_on_its_way_is_waited_for(seen: dict[str, Any]) -> None:
    assert is_running(seen) is False
    assert ended(seen) is None


def test_what_runs_runs() -> None:
    assert is_running(pod({"running": {}}, phase="Running")) is True


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (pod(waiting("ErrImagePull")), "image is not to be had"),
        (pod(waiting("ImagePullBackOff")), "image is not to be had"),
        (pod(initContainerStatuses=[{"name": "agent", "state": waiting("ErrImagePull")}]), "image is not to be had"),
        (pod(waiting("CreateContainerConfigError")), "could not start"),
        (pod(conditions=[{"type": "PodScheduled", "reason": "Unschedulable"}]), "no node of the cluster has room"),
        (pod(phase="Failed"), "its agent was not put in place"),
        (pod({"terminated": {"exitCode": 1}}, phase="Failed"), "ended by itself with status 1"),
    ],
)
def test_what_never_will_is_said_at_once(seen: dict[str, Any], words: str) -> None:
    with pytest.raises(WorkspaceUnavailable, match=words) as refused:
        is_running(seen)
    assert refused.value.reasons[0].remedy


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "ran out of memory"),
        (pod({"terminated": {"exitCode": 137, "reason": "Error"}}), "killed from outside"),
        ({**pod({"terminated": {"exitCode": 0}}), "metadata": {"deletionTimestamp": "now"}}, "killed from outside"),
        (pod({"terminated": {"exitCode": 0, "reason": "Completed"}}), "ended by itself with status 0"),
        (pod({"terminated": {"exitCode": 137}}, reason="DeadlineExceeded"), "reached its deadline"),
        (pod(reason="Evicted", phase="Failed"), "was evicted from its node"),
        (pod(reason="NodeShutdown", phase="Failed"), "node went away"),
        (pod(reason="Preempting", phase="Failed"), "make room for a more important"),
    ],
)
def test_why_it_is_over(seen: dict[str, Any], words: str) -> None:
    assert words in (ended(seen) or "")
