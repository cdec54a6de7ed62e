"""What the gateway may do where a service runs: by the Role that we ship, held by the policies that we ship."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.backends.kubernetes.backend import KubernetesBackend
from gateway.backends.kubernetes.service import RIGHTS
from gateway.contracts.backend import LIMITS, another, inside, sh
from gateway.errors import WorkspaceUnavailable
from gateway.model import Beside, PodOptions, WorkspaceSpec
from gateway.settings import KubernetesSettings
from tests.backends.held import ADDS, ALONE, ENTERS, GROUP, OURS, PATCH, POD, SHARING, Gateway, held
from tests.backends.test_kubernetes import INSTANCE, cluster_settings
from tests.e2e.world import until
from tests.stack.cluster import NAMESPACE, Cluster
from tests.stack.cluster.files import POD_PIDS
from tests.stack.cluster.service import LABELS, SHIPPED, SHOP, Service, shop

pytestmark = pytest.mark.usefixtures("closed")


@pytest.fixture(scope="module")
def service(cluster: Cluster) -> Iterator[Service]:
    with shop(cluster) as there, there.running():
        yield there
        assert there.guests() == []


@pytest.fixture(scope="module")
def gateway(cluster: Cluster, service: Service) -> Iterator[Gateway]:
    made = Gateway(cluster)
    with made.client:
        yield made


@pytest.fixture
async def backend(cluster: Cluster) -> AsyncIterator[KubernetesBackend]:
    settings: KubernetesSettings = cluster_settings(cluster)
    async with KubernetesBackend.open(settings, INSTANCE) as opened:
        yield opened


@pytest.fixture(scope="module")
def policies(cluster: Cluster, gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with held(cluster, gateway, tmp_path_factory.mktemp("policies"), f"{SHOP}/api") as file:
        yield file


async def fault(backend: KubernetesBackend, spec: WorkspaceSpec) -> str:
    """What `doorward check` says of a target."""
    with pytest.raises(WorkspaceUnavailable) as found:
        await backend.check(spec)
    assert found.value.reasons[0].remedy
    return str(found.value)


# -- the Role alone, before the policies ------------------------------------------------------------------------------


def test_the_role_gives_what_is_checked_and_nothing_else() -> None:
    [role] = [one for one in yaml.safe_load_all(SHIPPED.read_text()) if one["kind"] == "Role"]
    given = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert given == {(group, resource, verb) for group, resource, verbs in RIGHTS for verb in verbs}


def test_the_role_gives_no_more_than_it_says(gateway: Gateway) -> None:
    pod = f"{gateway.pods}/{POD}"
    tried = {
        "delete": gateway.client.delete(pod),
        "delete all": gateway.client.delete(gateway.pods),
        "create": gateway.client.post(gateway.pods, json={"metadata": {"name": "x"}, "spec": {}}),
        "label": gateway.client.patch(pod, json={"metadata": {"labels": {"a": "b"}}}, headers=PATCH),
        "evict": gateway.client.post(f"{pod}/eviction", json={"metadata": {"name": POD}}),
        "put": gateway.client.put(f"{pod}/ephemeralcontainers", json={"metadata": {"name": POD}}),
        "log": gateway.client.get(f"{pod}/log"),
        "forward": gateway.client.get(f"{pod}/portforward", params={"ports": "8080"}),
        "proxy": gateway.client.get(f"{pod}/proxy"),
        "secrets": gateway.client.get(f"/api/v1/namespaces/{SHOP}/secrets"),
        "elsewhere": gateway.client.get("/api/v1/namespaces/kube-system/pods"),
        "policies": gateway.client.get(f"{GROUP}/validatingadmissionpolicies"),
    }
    assert {what: answer.status_code for what, answer in tried.items()} == dict.fromkeys(tried, 403)
    assert gateway.client.get(pod).status_code == 200


async def test_without_the_policies_the_service_itself_is_open_and_check_says_so(
    backend: KubernetesBackend, gateway: Gateway
) -> None:
    """The row of the threat model: this is what the token is worth without them."""
    assert gateway.is_held() == (False, False)
    assert gateway.add({"envFrom": [{"secretRef": {"name": "any"}}]}).is_success
    assert await fault(backend, gateway.spec) == (
        f"no admission policy is in force in {SHOP}: whoever has the gateway's token could enter the service's own "
        "containers, by exec"
    )


async def test_a_role_that_is_missing_is_named_word_by_word(backend: KubernetesBackend, gateway: Gateway) -> None:
    elsewhere = PodOptions(beside=Beside(namespace="default", selector=LABELS))
    assert await fault(backend, gateway.spec.model_copy(update={"pod": elsewhere})) == (
        "the gateway may not get pods, list pods, watch pods, patch pods/ephemeralcontainers, get pods/exec, "
        "create pods/exec, get pods/attach, create pods/attach in the namespace default"
    )


async def test_beside_the_workspaces_themselves_nobody_is_let(backend: KubernetesBackend, gateway: Gateway) -> None:
    """There a selector could find another person's."""
    there = PodOptions(beside=Beside(namespace=NAMESPACE, selector={"doorward/person": "bob"}))
    order = gateway.order(pod=there)
    assert "beside the workspaces themselves" in await fault(backend, order.spec)
    with pytest.raises(WorkspaceUnavailable, match="beside the workspaces themselves"):
        await backend.workspace(order).__aenter__()


async def test_processes_are_shared_where_the_list_says_so_alone(
    cluster: Cluster, backend: KubernetesBackend, gateway: Gateway, tmp_path: Path
) -> None:
    with held(cluster, gateway, tmp_path, "warehouse/api"):
        await backend.check(gateway.spec)
        sharing = gateway.spec.model_copy(update={"pod": PodOptions(beside=SHARING)})
        said = await fault(backend, sharing)
        assert "would refuse the container beside the service" in said
        assert "not in the list `shared`" in said


# -- with the policies ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize("how", ["exec", "attach"])
@pytest.mark.parametrize(
    "container",
    [
        {"container": "api"},
        {},
        {"container": ""},
        {"container": "doorward-"},
        {"container": "workspace"},
        {"container": f"{OURS}0"},
        {"container": f"x{OURS}"},
        {"container": f"{OURS}\n"},
    ],
)
def test_a_container_of_the_service_is_not_entered(gateway: Gateway, how: str, container: dict[str, str]) -> None:
    answer = gateway.enter(how, **container)
    assert answer.status_code == 403, answer.text
    assert "enters its own containers" in answer.text


@pytest.mark.usefixtures("policies")
def test_its_own_are_entered_and_others_are_not_held(cluster: Cluster, gateway: Gateway) -> None:
    assert gateway.enter("exec", pod="nobody", container=OURS).status_code == 404
    with cluster.client() as admin:
        answer = admin.get(f"{gateway.pods}/{POD}/exec", params={"command": "true", "container": "api"})
    assert answer.status_code == 400, "let through, and asked to upgrade"


SECRETS: dict[str, Any] = {"secretKeyRef": {"name": "any", "key": "any"}}
IN_CONTEXT: dict[str, tuple[dict[str, Any], str]] = {
    "privileged": ({"privileged": True, "allowPrivilegeEscalation": True}, "not privileged"),
    "gains privilege": ({"allowPrivilegeEscalation": True}, "gains no privilege"),
    "may gain privilege": ({"allowPrivilegeEscalation": None}, "gains no privilege"),
    "root": ({"runAsUser": 0, "runAsNonRoot": False}, "not root's"),
    "the image's user": ({"runAsUser": None}, "not root's"),
    "root by default": ({"runAsNonRoot": None}, "not root's"),
    "root's group": ({"runAsGroup": 0}, "not root's"),
    "the pod's group": ({"runAsGroup": None}, "not root's"),
    "a capability": ({"capabilities": {"add": ["NET_BIND_SERVICE"]}}, "no capability"),
    "capabilities by default": ({"capabilities": None}, "no capability"),
    "some capabilities": ({"capabilities": {"drop": ["KILL"]}}, "no capability"),
    "no seccomp": ({"seccompProfile": {"type": "Unconfined"}}, "seccomp"),
    "the pod's seccomp": ({"seccompProfile": None}, "seccomp"),
    "a seccomp of its own": ({"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}}, "seccomp"),
    "no AppArmor": ({"appArmorProfile": {"type": "Unconfined"}}, "seccomp"),
    "SELinux": ({"seLinuxOptions": {"level": "s0"}}, "seccomp"),
}
FORBIDDEN: dict[str, tuple[dict[str, Any], str]] = {
    **{note: ({"securityContext": change}, words) for note, (change, words) in IN_CONTEXT.items()},
    "no context at all": ({"securityContext": None}, "not privileged"),
    "another name": ({"name": "debugger"}, "16 hex digits"),
    "a name alike": ({"name": f"{OURS}0"}, "16 hex digits"),
    "another image": ({"image": f"localhost/doorward-full@sha256:{'0' * 64}"}, "not in the list `images`"),
    "no digest": ({"image": "localhost/doorward-beside-full:1"}, "not by digest"),
    "a digest in the tag": ({"image": f"localhost/doorward-beside-full@sha256:{'0' * 64}:x"}, "not by digest"),
    "all secrets": ({"envFrom": [{"secretRef": {"name": "any"}}]}, "from elsewhere"),
    "a secret": ({"env": [{"name": "A", "valueFrom": SECRETS}]}, "from elsewhere"),
    "a volume": ({"volumeMounts": [{"name": "www", "mountPath": "/www"}]}, "with a volume"),
}


@pytest.fixture(scope="class")
def unguarded(cluster: Cluster, gateway: Gateway) -> Iterator[None]:
    """The namespace's Pod Security level forbids nothing, so that what forbids is the policy."""
    with cluster.client() as admin:
        _level(admin, "privileged", is_open=True)
        yield
        _level(admin, "restricted", is_open=False)


def _level(admin: httpx.Client, level: str, *, is_open: bool) -> None:
    namespace = f"/api/v1/namespaces/{SHOP}"
    body = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}
    admin.patch(namespace, json=body, headers=PATCH).raise_for_status()
    container = {"name": "tried", "image": "any", "securityContext": {"privileged": True}}
    tried = {"spec": {"ephemeralContainers": [container]}}
    where = f"{namespace}/pods/{POD}/ephemeralcontainers?dryRun=All"
    until(lambda: admin.patch(where, json=tried, headers=PATCH).is_success == is_open, 60)


@pytest.mark.usefixtures("policies", "unguarded")
class TestAdding:
    """What is added, where nothing but the policy holds the gateway."""

    @pytest.mark.parametrize("note", FORBIDDEN)
    def test_what_the_gateway_need_not_add_it_may_not(self, gateway: Gateway, note: str) -> None:
        change, words = FORBIDDEN[note]
        answer = gateway.add(change)
        assert answer.status_code in (403, 422), answer.text
        assert words in answer.text

    @pytest.mark.parametrize("shares", ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"])
    def test_no_more_is_shared_than_the_policy_says(self, service: Service, gateway: Gateway, shares: str) -> None:
        """By pods that no node takes, which are added to all the same."""
        spec = {**service.spec(), shares: True, "nodeSelector": {"zone": "nowhere"}}
        body = {"metadata": {"name": "sharing"}, "spec": spec}
        service.client.post(gateway.pods, json=body).raise_for_status()
        try:
            alone, sharing = (gateway.add(change, "sharing") for change in ({}, {"targetContainerName": "api"}))
            assert alone.status_code == 403
            assert sharing.is_success == (shares == "shareProcessNamespace")
            words = "shares all its processes" if sharing.is_success else "in its node's own namespaces"
            assert words in alone.text
        finally:
            service.delete("sharing")
            until(lambda: service.client.get(f"{gateway.pods}/sharing").status_code == 404, 60)

    def test_what_it_needs_it_may(self, gateway: Gateway) -> None:
        assert gateway.add({}).is_success
        assert gateway.add({"targetContainerName": "api"}).is_success


@pytest.mark.usefixtures("policies")
def test_what_is_there_already_is_not_changed(gateway: Gateway, service: Service) -> None:
    """By a container that runs: it is added to, and can be neither altered nor taken away, nor the pod beside it."""
    name = service.add(POD, gateway.order())
    try:
        [before] = service.pod(POD)["spec"]["ephemeralContainers"]
        assert gateway.add({"name": name, "image": "any"}).status_code == 422
        assert gateway.add({"name": name, "securityContext": {"runAsUser": 10001}}).status_code == 422
        where = f"{gateway.pods}/{POD}/ephemeralcontainers"
        gone = {"spec": {"ephemeralContainers": [{"name": name, "$patch": "delete"}]}}
        assert gateway.client.patch(where, json=gone, headers=PATCH).status_code == 422
        other = {"metadata": {"labels": {"a": "b"}}, "spec": {"activeDeadlineSeconds": 1, "containers": []}}
        gateway.client.patch(where, json=other, headers=PATCH)
        after = service.pod(POD)
        assert after["spec"]["ephemeralContainers"] == [before]
        assert after["metadata"]["labels"] == LABELS
        assert "activeDeadlineSeconds" not in after["spec"]
    finally:
        service.kill("s1")
        until(lambda: service.guests("s1") == [], 60)


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize("beside", [ALONE, SHARING], ids=["alone", "sharing"])
async def test_a_session_is_let_through_and_check_is_content_and_changes_nothing(
    backend: KubernetesBackend, gateway: Gateway, service: Service, beside: Beside
) -> None:
    order = gateway.order(pod=PodOptions(beside=beside))
    before = service.pod(POD)["spec"]
    await backend.check(order.spec)
    assert service.pod(POD)["spec"] == before
    async with inside(backend, another(order)) as connection:
        assert await sh(connection, "echo beside") == ("beside", 0)


@pytest.mark.usefixtures("policies")
async def test_workspaces_of_their_own_are_not_held(
    cluster: Cluster, backend: KubernetesBackend, gateway: Gateway
) -> None:
    limits = LIMITS.model_copy(update={"pids": POD_PIDS})
    order = gateway.order(image=cluster.images.workspace("full"), limits=limits, pod=PodOptions())
    async with inside(backend, order) as connection:
        assert await sh(connection, "echo alone") == ("alone", 0)


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": f"localhost/elsewhere@sha256:{'0' * 64}"}, "not in the list `images`"),
        ({"pod": PodOptions(beside=Beside(namespace=SHOP, selector={"app": "none"}))}, "no ready pod of the service"),
    ],
)
async def test_what_a_session_would_be_refused_for_is_said_beforehand(
    backend: KubernetesBackend, gateway: Gateway, change: dict[str, Any], words: str
) -> None:
    assert words in await fault(backend, gateway.spec.model_copy(update=change))


@pytest.mark.parametrize(
    ("name", "words"),
    [(ENTERS, "could enter the service's own containers"), (ADDS, "could add a container of any image")],
)
async def test_one_policy_that_is_not_in_force_is_found_out(
    cluster: Cluster, backend: KubernetesBackend, gateway: Gateway, policies: Path, name: str, words: str
) -> None:
    with cluster.client() as admin:
        admin.delete(f"{GROUP}/validatingadmissionpolicybindings/{name}").raise_for_status()
    try:
        await asyncio.to_thread(until, lambda: gateway.is_held() == (name != ENTERS, name != ADDS), 60)
        assert words in await fault(backend, gateway.spec)
    finally:
        cluster.apply(policies)
        await asyncio.to_thread(until, lambda: gateway.is_held() == (True, True), 60)
