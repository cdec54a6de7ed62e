"""A service that runs in the cluster and is nobody's of ours: its namespace, its pods, and what is seen beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from gateway.backends import Order
from gateway.backends.kubernetes.cluster import connect
from gateway.backends.kubernetes.guest import PREFIX, SESSION, addition, is_running
from gateway.backends.kubernetes.states import UNPULLABLE, UNSTARTABLE
from gateway.settings import KubernetesSettings
from tests.e2e.world import until
from tests.stack.cluster import Cluster

SHIPPED = Path(__file__).parents[3] / "backends" / "kubernetes" / "beside.yaml"
SHOP = "shop"
APP = "payments-api"
LABELS = {"app": APP}
PORT = 8080
WORDS = "payments-api is here"
USER = 10001
SERVES = f"echo {WORDS} > /www/index.html; exec busybox httpd -f -p 127.0.0.1:{PORT} -h /www"
HARDENED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


class Service:
    """The namespace, as its administrator sees it."""

    def __init__(self, cluster: Cluster, client: httpx.Client) -> None:
        self._cluster = cluster
        self.client = client
        self.pods = f"/api/v1/namespaces/{SHOP}/pods"

    @contextmanager
    def running(self, name: str = f"{APP}-0", labels: Mapping[str, str] = LABELS) -> Iterator[str]:
        """A pod that is ready, gone at the end."""
        body = {"metadata": {"name": name, "labels": labels}, "spec": self.spec()}
        self.client.post(self.pods, json=body).raise_for_status()
        try:
            until(lambda: self.is_ready(name), 60)
            yield name
        finally:
            self.delete(name)
            until(lambda: self.client.get(f"{self.pods}/{name}").status_code == 404, 60)

    def spec(self) -> dict[str, Any]:
        container = {
            "name": "api",
            "image": self._cluster.images.workspace("full"),
            "command": ["sh", "-c", SERVES],
            "env": [{"name": "API_KEY", "value": "of the service alone"}],
            "securityContext": HARDENED,
            "resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            "volumeMounts": [{"name": "www", "mountPath": "/www"}],
        }
        return {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsUser": USER, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "www", "emptyDir": {}}],
        }

    def delete(self, name: str) -> None:
        answer = self.client.request("DELETE", f"{self.pods}/{name}", json={"gracePeriodSeconds": 1})
        assert answer.status_code in (200, 202, 404), answer.text

    def evict(self, name: str) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": SHOP}}
        self.client.post(f"{self.pods}/{name}/eviction", json=body).raise_for_status()

    def pod(self, name: str) -> Any:
        return self.client.get(f"{self.pods}/{name}").raise_for_status().json()

    def is_ready(self, name: str) -> bool:
        conditions = self.pod(name)["status"].get("conditions", ())
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    # -- what is beside it -------------------------------------------------------------------------------------------

    def guests(self, session: str = "") -> list[str]:
        """Containers of ours (of one session) that run, or may still run."""
        found = []
        for pod in self.client.get(self.pods).raise_for_status().json()["items"]:
            states = {one["name"]: one["state"] for one in pod["status"].get("ephemeralContainerStatuses", ())}
            for container in pod["spec"].get("ephemeralContainers", ()):
                own = {one["name"]: one["value"] for one in container["env"]}
                is_over = _is_over(states.get(container["name"], {}))
                if container["name"].startswith(PREFIX) and not is_over and session in ("", own[SESSION]):
                    found.append(container["name"])
        return found

    def processes(self, session: str) -> list[int]:
        """Of this machine, that a session's container started, its agent first."""
        found = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit() and _is_of(one, session)]
        return sorted(found)

    def add(self, pod: str, order: Order) -> str:
        """A container as the gateway adds one, that nobody comes for; its name, once it runs."""
        name = f"{PREFIX}{uuid.uuid4().hex[:16]}"
        answer = self.client.patch(
            f"{self.pods}/{pod}/ephemeralcontainers", json=addition(order, name),
            headers={"content-type": "application/strategic-merge-patch+json"},
        )  # fmt: skip
        answer.raise_for_status()
        until(lambda: is_running(self.pod(pod), name), 60)
        return name

    def log(self, pod: str, container: str) -> str:
        return self.client.get(f"{self.pods}/{pod}/log", params={"container": container}).raise_for_status().text

    async def executed(self, pod: str, container: str, command: list[str]) -> str:
        """What a command in a container of the service says, as `kubectl exec` shows it."""
        said = _Said()
        admin = KubernetesSettings(
            kubeconfig=self._cluster.layout.kubeconfig("admin"),
            agent_image=self._cluster.images.agent(),
            namespace=SHOP,
        )
        async with connect(admin) as api:
            stream = await api.exec(pod, container, command)
            stream.connect(lambda: said)
            await said.ended.wait()
        return said.words.decode().strip()

    @contextmanager
    def closed_by_policy(self) -> Iterator[None]:
        """The cluster's owner lets nobody add a container to a pod here."""
        group, name = "/apis/admissionregistration.k8s.io/v1", "nobody-beside"
        rule = {
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["UPDATE"],
            "resources": ["pods/ephemeralcontainers"],
        }
        policy = {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false", "message": "not in this cluster"}],
        }
        binding = {"policyName": name, "validationActions": ["Deny"]}
        made = {"validatingadmissionpolicies": policy, "validatingadmissionpolicybindings": binding}
        for kind, spec in made.items():
            _made(self.client, f"{group}/{kind}", {"metadata": {"name": name}, "spec": spec})
        try:
            until(self._is_closed, 60)
            yield
        finally:
            for kind in made:
                self.client.delete(f"{group}/{kind}/{name}").raise_for_status()
            until(lambda: not self._is_closed(), 60)

    def _is_closed(self) -> bool:
        container = {"name": "tried", "image": "none", "securityContext": HARDENED}
        tried = {"spec": {"ephemeralContainers": [container]}}
        answer = self.client.patch(
            f"{self.pods}/{APP}-0/ephemeralcontainers", params={"dryRun": "All"}, json=tried,
            headers={"content-type": "application/strategic-merge-patch+json"},
        )  # fmt: skip
        return "not in this cluster" in answer.text

    def kill(self, session: str) -> None:
        for pid in self.processes(session)[:1]:
            os.kill(pid, signal.SIGKILL)


class _Said(asyncio.Protocol):
    def __init__(self) -> None:
        self.words = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.words += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


def _is_over(state: Mapping[str, Any]) -> bool:
    """Or will never begin."""
    return "terminated" in state or state.get("waiting", {}).get("reason") in UNPULLABLE | UNSTARTABLE


def _is_of(process: Path, session: str) -> bool:
    try:
        return f"{SESSION}={session}".encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:  # gone
        return False


@contextmanager
def shop(cluster: Cluster) -> Iterator[Service]:
    """Its namespace, in which the gateway has the rights that it needs beside a service, and no other."""
    with cluster.client() as client:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        _made(client, "/api/v1/namespaces", {"metadata": {"name": SHOP, "labels": labels}})
        until(lambda: client.get(f"/api/v1/namespaces/{SHOP}/serviceaccounts/default").is_success, 60)
        for right in yaml.safe_load_all(SHIPPED.read_text()):
            if right["kind"] in ("Role", "RoleBinding"):
                kind = f"{right['kind'].lower()}s"
                _made(client, f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SHOP}/{kind}", right)
        yield Service(cluster, client)


def _made(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code in (201, 409), json.dumps(answer.json())
