"""Which pod of a service is chosen, what may not be shared, and the sentence for each end, without a cluster."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from gateway.assets import agent_binary
from gateway.backends.kubernetes.guest import OVERDUE, chosen, ended, is_over, is_running
from gateway.errors import WorkspaceUnavailable
from gateway.model import Beside
from tests.waiting import SECONDS

BESIDE = Beside(namespace="shop", selector={"app": "payments-api", "tier": "back"})
SHARING = Beside(namespace="shop", selector={"app": "payments-api"}, container="api", share_processes=True)
GUEST = "doorward-0123456789abcdef"


def pod(name: str, *, running: int = 0, over: int = 0, born: str = "2026-01-01T00:00:00Z", **spec: Any) -> Any:
    """A ready one, with containers of ours that run, and that are over."""
    states: list[dict[str, Any]] = [{"running": {}}] * running + [{"terminated": {"exitCode": 0}}] * over
    names = [f"doorward-{number}" for number in range(len(states))]
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": born},
        "spec": {
            "containers": [{"name": "api"}],
            "ephemeralContainers": [{"name": each} for each in ("debugger-x7", *names)],
            **spec,
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "ephemeralContainerStatuses": [
                {"name": "debugger-x7", "state": {"running": {}}},
                *({"name": each, "state": state} for each, state in zip(names, states, strict=True)),
            ],
        },
    }


def name_of(*pods: Any) -> str:
    there, back = chosen(pods, "payments", BESIDE), chosen(pods[::-1], "payments", BESIDE)
    assert there is back, "it depends on the order in which the cluster lists them"
    return str(there["metadata"]["name"])


def test_the_pod_with_the_fewest_of_our_containers_is_chosen() -> None:
    assert name_of(pod("a", running=1), pod("b")) == "b"
    assert name_of(pod("a", running=1), pod("b", over=5)) == "b"
    assert name_of(pod("a", over=2), pod("b", over=1)) == "b"


def test_among_equals_it_is_the_newest_and_then_the_first_by_name() -> None:
    assert name_of(pod("a"), pod("b", born="2026-01-02T00:00:00Z")) == "b"
    assert name_of(pod("b"), pod("a")) == "a"


def unready() -> Any:
    found = pod("a")
    found["status"]["conditions"][0]["status"] = "False"
    return found


def pending() -> Any:
    found = pod("a")
    found["status"]["phase"] = "Pending"
    return found


def deleted() -> Any:
    found = pod("a")
    found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return found


@pytest.mark.parametrize("pods", [[], [unready()], [pending()], [deleted()]])
def test_without_a_ready_pod_the_refusal_says_what_was_looked_for(pods: list[Any]) -> None:
    with pytest.raises(WorkspaceUnavailable) as refused:
        chosen(pods, "payments", BESIDE)
    said = "there is no ready pod of payments in the namespace shop (app=payments-api, tier=back)"
    assert str(refused.value) == said
    assert "pod.beside.selector" in refused.value.reasons[0].remedy


@pytest.mark.parametrize("of_the_node", ["hostNetwork", "hostPID", "hostIPC"])
def test_nobody_is_let_in_beside_a_pod_that_is_in_its_node(of_the_node: str) -> None:
    for beside in (BESIDE, SHARING):
        with pytest.raises(WorkspaceUnavailable, match="node's own namespaces"):
            chosen(
                [pod("a", running=0, over=0, born="2026-01-01T00:00:00Z", **{of_the_node: True})], "payments", beside
            )


def test_processes_that_the_pod_shares_by_itself_are_not_shown_unless_the_permit_says_so() -> None:
    sharing = pod("a", shareProcessNamespace=True)
    with pytest.raises(WorkspaceUnavailable, match="share their processes, and the permit does not"):
        chosen([sharing], "payments", BESIDE)
    assert chosen([sharing], "payments", SHARING) is sharing


def test_a_container_that_is_not_there_is_named() -> None:
    with pytest.raises(WorkspaceUnavailable, match="the pod a has no container 'api'"):
        chosen([pod("a", containers=[{"name": "web"}])], "payments", SHARING)


def seen(state: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **status: Any) -> Any:
    statuses = [{"name": "doorward-another", "state": {"terminated": {"exitCode": 1}}}]
    if state is not None:
        statuses.append({"name": GUEST, "state": state})
    status = {"phase": "Running", "ephemeralContainerStatuses": statuses, **status}
    return {"metadata": {"name": "a", "uid": "u", **(metadata or {})}, "status": status}


RUNS: dict[str, Any] = {"running": {}}


@pytest.mark.parametrize(
    ("pod_seen", "why"),
    [
        (seen(RUNS, {"deletionTimestamp": "x"}), "is being deleted"),
        (seen(RUNS, reason="Evicted", phase="Failed"), "was evicted from its node"),
        (seen(RUNS, reason="Preempting", phase="Failed"), "make room for a more important"),
        (seen(RUNS, reason="NodeShutdown", phase="Failed"), "node of the pod"),
        (seen(RUNS, reason="DeadlineExceeded", phase="Failed"), "its own deadline"),
        (seen(RUNS, phase="Succeeded"), "has ended"),
        (seen({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "ran out of memory"),
        (seen({"terminated": {"exitCode": 137, "reason": "Error"}}), "killed from outside"),
        (seen({"terminated": {"exitCode": 0}}), "ended by itself with status 0"),
        (seen({"terminated": {"exitCode": OVERDUE, "reason": "Error"}}), "time was over: its agent ended it"),
        (seen({"terminated": {"exitCode": OVERDUE, "reason": "OOMKilled"}}), "time was over: its agent ended it"),
        (seen(), None),
        (seen({"waiting": {"reason": "ContainerCreating"}}), None),
        (seen(RUNS), None),
    ],
)
def test_every_end_is_one_sentence(pod_seen: Any, why: str | None) -> None:
    said = ended(pod_seen, GUEST)
    assert (said is None) if why is None else (why in str(said))
    if why is not None:
        with pytest.raises(WorkspaceUnavailable, match=why):
            is_running(pod_seen, GUEST)


def test_the_agent_s_deadline_is_known_by_its_exit_status() -> None:
    with subprocess.Popen([agent_binary(), "beside", f"@{GUEST}-{os.getpid()}", "1"], stdin=subprocess.PIPE) as agent:
        assert agent.wait(SECONDS) == OVERDUE


LACKING = 'exec: "/.doorward/doorward-agent": stat /.doorward/doorward-agent: no such file or directory: unknown'


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"waiting": {"reason": "ErrImagePull"}}, "image is not to be had"),
        ({"waiting": {"reason": "CreateContainerConfigError", "message": "x"}}, "could not start"),
        ({"waiting": {"reason": "RunContainerError", "message": LACKING}}, "has no /.doorward/doorward-agent"),
        ({"terminated": {"reason": "StartError", "exitCode": 128, "message": LACKING}}, "has no /.doorward/"),
    ],
)
def test_what_will_never_run_is_one_sentence(state: dict[str, Any], why: str) -> None:
    with pytest.raises(WorkspaceUnavailable, match=why) as refused:
        is_running(seen(state), GUEST)
    assert refused.value.reasons[0].remedy


def test_nothing_of_it_runs_when_the_container_has_ended_or_its_pod() -> None:
    assert is_over(seen({"terminated": {"exitCode": 0}}), GUEST)
    assert is_over(seen(RUNS, phase="Failed"), GUEST)
    for still in (seen(), seen(RUNS), seen(RUNS, {"deletionTimestamp": "x"})):
        assert not is_over(still, GUEST)


def test_it_runs_when_the_cluster_says_so_of_this_container() -> None:
    assert is_running(seen(RUNS), GUEST)
    assert not is_running(seen(), GUEST)
    assert not is_running(seen({"waiting": {"reason": "ContainerCreating"}}), GUEST)
