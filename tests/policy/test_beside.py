"""A workspace beside a running service: what a permit may say of it, and that policy and model say the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.errors import Denied
from gateway.model import Identity, Permit
from gateway.policy import Subject
from gateway.workspaces import NO_LIMITS, WorkspaceSpec
from tests.policy.test_contract import CONNECTION
from tests.policy.world import ALICE, ORDERS, Asking, data, grant
from tests.stack.opa import Opa

SERVICE: dict[str, Any] = {"namespace": "shop", "selector": {"app.kubernetes.io/name": "payments-api", "tier": ""}}
TARGET = "payments-api"
EGRESS = {"egress": ({"host": "db", "port": 5432},)}
LIMITS = {"memory_bytes": 2**28, "cpus": 1, "pids": 64, "tmpfs_bytes": 2**20}


def spec(service: Any = SERVICE, **more: Any) -> WorkspaceSpec:
    pod = {"beside": service, **more.pop("pod", {})}
    return WorkspaceSpec.model_validate({"backend": "kubernetes", "image": "debug", "pod": pod, **more})


@pytest.mark.parametrize(
    "service", [SERVICE, {**SERVICE, "share_processes": True, "container": "api"}, {**SERVICE, "container": ""}]
)
def test_a_workspace_beside_a_service_is_an_image_and_no_limit(service: dict[str, Any]) -> None:
    made = spec(service, network={})

    assert made.limits is NO_LIMITS
    assert made.pod.beside is not None
    assert made.pod.beside.model_dump() == {"container": "", "share_processes": False, **service}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"service": {**SERVICE, "share_processes": True}}, "share_processes needs `container`: say whose"),
        ({"service": {**SERVICE, "container": "api"}}, "set that, or leave `container` out"),
        ({"service": {**SERVICE, "privileged": True}}, "privileged"),
        ({"service": {**SERVICE, "namespace": "../kube-system"}}, "namespace"),
        ({"service": {**SERVICE, "selector": {}}}, "selector"),
        ({"service": {**SERVICE, "selector": {"a=b,c": "d"}}}, "selector.*a=b,c"),
        ({"service": {**SERVICE, "selector": {"a": "b,c=d"}}}, "selector.a"),
        ({"service": {**SERVICE, "selector": {"a": "b\n"}}}, "selector.a"),
        ({"service": {"namespace": "shop"}}, "selector"),
        ({"pod": {"isolation": "required", "runtime_class": "gvisor"}}, "leave isolation, runtime_class out"),
        ({"limits": LIMITS}, "limits cannot be kept beside a service.*leave them out"),
        ({"network": EGRESS}, "network.egress cannot be kept beside a service.*leave it out"),
        ({"backend": "docker"}, "pod.beside is for the backend kubernetes"),
    ],
)
def test_what_cannot_be_kept_beside_a_service_is_refused_by_name(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){says}"):
        spec(**given)


def test_a_pod_of_its_own_still_needs_its_limits() -> None:
    with pytest.raises(ValidationError, match="needs limits"):
        WorkspaceSpec(backend="kubernetes", image="debug", pod={})  # type: ignore[arg-type]


@pytest.fixture
def service(world: Opa) -> Iterator[Opa]:
    """A world in which alice has a grant for a service."""
    world.put("grants", {ALICE: {"INC-1": grant(target=TARGET)}})
    yield world
    world.delete(f"targets/{TARGET}")


def target(**changes: Any) -> dict[str, Any]:
    left_out = ("limits", "network", "credentials", "recording")
    entry = {key: value for key, value in data()["targets"][ORDERS].items() if key not in left_out}
    return {**entry, "backend": "kubernetes", "pod": {"beside": SERVICE}, **changes}


async def permit(asked: Asking) -> Permit:
    subject = Subject(CONNECTION, ALICE, Identity(person=ALICE))
    return (await asked.policy.configure(asked.journal(), subject, {"kind": "session"})).granted()


async def test_a_target_beside_a_service_makes_a_permit(asked: Asking, service: Opa) -> None:
    service.put(f"targets/{TARGET}", target())

    given = await permit(asked)

    assert given.workspace.pod.beside is not None
    assert given.workspace.pod.beside.model_dump(include={"namespace", "selector"}) == SERVICE
    assert given.workspace.limits is NO_LIMITS
    with pytest.raises(ValidationError, match="credentials cannot be given beside a service"):
        Permit.model_validate(
            {**given.model_dump(exclude={"workspace"}), "workspace": given.workspace, "credentials": (CREDENTIAL,)}
        )


CREDENTIAL = {
    "name": "a",
    "issuer": "vault",
    "role": "r",
    "ttl_seconds": 60,
    "deliver": {"kind": "postgres", "host": "db", "port": 5432, "dbname": "x"},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"pod": {"beside": {**SERVICE, "share_processes": True}}},
        {"pod": {"beside": {**SERVICE, "container": "api"}}},
        {"pod": {"beside": {**SERVICE, "selector": {"a": "b,c=d"}}}},
        {"pod": {"beside": {**SERVICE, "selector": {"a": "b\n"}}}},
        {"pod": {"beside": SERVICE, "isolation": "required"}},
        {"pod": {"beside": None}},
        {"pod": {"beside": "payments-api"}},
        {"pod": {"beside": [SERVICE]}},
        {"pod": "beside"},
        {"break_glass": "x"},
        {"limits": LIMITS},
        {"network": EGRESS},
        {"credentials": [CREDENTIAL]},
        {"backend": "docker"},
    ],
)
async def test_what_the_model_refuses_is_no_permit_of_policys(
    asked: Asking, service: Opa, changes: dict[str, Any]
) -> None:
    service.put(f"targets/{TARGET}", target(**changes))

    with pytest.raises(Denied) as refused:
        await permit(asked)
    assert refused.value.reasons[0].code == "target_misconfigured"
