"""Whoever has the gateway's token where a service runs, and the admission policies that hold them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from gateway.backends import Order
from gateway.backends.kubernetes.guest import addition
from gateway.model import Beside, Holder, PodOptions, SessionId, WorkspaceSpec
from tests.e2e.world import until
from tests.stack.cluster import NAMESPACE, Cluster
from tests.stack.cluster.service import APP, LABELS, SHIPPED, SHOP

GROUP = "/apis/admissionregistration.k8s.io/v1"
ENTERS, ADDS = "doorward-beside-enters", "doorward-beside-adds"
ALONE = Beside(namespace=SHOP, selector=LABELS)
SHARING = Beside(namespace=SHOP, selector=LABELS, container="api", share_processes=True)
POD = f"{APP}-0"
OURS = "doorward-" + "a" * 16
PATCH = {"content-type": "application/strategic-merge-patch+json"}


class Gateway:
    """Whoever has the gateway's token."""

    def __init__(self, cluster: Cluster) -> None:
        self.client = cluster.client()
        self.client.headers["authorization"] = f"Bearer {cluster.token_of('doorward-gateway', NAMESPACE)}"
        self.pods = f"/api/v1/namespaces/{SHOP}/pods"
        image = cluster.images.beside("full")
        self.spec = WorkspaceSpec(backend="kubernetes", image=image, pod=PodOptions(beside=ALONE), env={"TERM": "dumb"})

    def order(self, **spec: Any) -> Order:
        holder = Holder(SessionId("s1"), "alice", "INC-1", "payments", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")
        return Order(self.spec.model_copy(update=spec), holder, datetime.now(UTC) + timedelta(hours=1))

    def enter(self, how: str, pod: str = POD, **container: str) -> httpx.Response:
        """Without the upgrade: who is let through is told 400."""
        return self.client.get(f"{self.pods}/{pod}/{how}", params={"command": "true", **container})

    def add(self, change: Mapping[str, Any], pod: str = POD) -> httpx.Response:
        """Try it, of a container as the gateway adds one but for the change.  None takes a field away."""
        body = copy.deepcopy(addition(self.order(), OURS))
        [container] = body["spec"]["ephemeralContainers"]
        _change(container, change)
        where = f"{self.pods}/{pod}/ephemeralcontainers"
        return self.client.patch(where, params={"dryRun": "All"}, json=body, headers=PATCH)

    def is_held(self) -> tuple[bool, bool]:
        """By the one policy, and by the other."""
        return self.enter("exec", container="api").status_code == 403, self.add({"image": "any"}).status_code == 403


def _change(into: dict[str, Any], change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _change(into[key], value)
        elif value is None:
            del into[key]
        else:
            into[key] = value


@contextmanager
def held(cluster: Cluster, gateway: Gateway, folder: Path, shared: str) -> Iterator[Path]:
    """The policies are in force, with this cluster's image on their list; the file that says so."""
    file = _edited(folder, shared)
    cluster.apply(file)
    try:
        until(lambda: gateway.is_held() == (True, True), 60)
        yield file
    finally:
        with cluster.client() as admin:
            for name in (ENTERS, ADDS):
                admin.delete(f"{GROUP}/validatingadmissionpolicybindings/{name}").raise_for_status()
                admin.delete(f"{GROUP}/validatingadmissionpolicies/{name}").raise_for_status()
        until(lambda: gateway.is_held() == (False, False), 60)


def _edited(folder: Path, shared: str) -> Path:
    text = SHIPPED.read_text()
    for ours, theirs in (
        ("registry.example/doorward-beside@", "localhost/doorward-beside-full@"),
        ("['']", f"['{shared}']"),
    ):
        assert text.count(ours) == 1
        text = text.replace(ours, theirs)
    file = folder / "beside.yaml"
    file.write_text(text)
    return file
