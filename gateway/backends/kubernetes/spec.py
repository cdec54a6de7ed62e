"""What a permit means in Kubernetes' words: the pod and the network's rule, so that the hardening reads in one go.

The pod meets the *restricted* level of the Pod Security Standards
(https://kubernetes.io/docs/concepts/security/pod-security-standards/) without an exception.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.backends import CREDENTIALS_DIR, Order, hosts

AGENT_DIR = "/.doorward"
AGENT = f"{AGENT_DIR}/doorward-agent"
SOCKET = f"{CREDENTIALS_DIR}/agent.sock"
CONTAINER = "workspace"
CREDENTIALS_BYTES = 2**20
AGENT_BYTES = 32 * 2**20
DEADLINE_SECONDS = 30
"""How long after the permit's end the cluster itself ends the pod."""
GRACE_SECONDS = 2
CPU_REQUEST = "20m"
INSTANCE_LABEL = "doorward/instance"
SESSION_LABEL = "doorward/session"
PROBE_LABEL = "doorward/probe"
PROBE_SECONDS = 60
_LABEL = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True, slots=True)
class Site:
    """What all pods of one gateway share."""

    instance: str
    agent_image: str


def pod(order: Order, name: str, site: Site) -> dict[str, Any]:
    """The body of the create call."""
    spec, options = order.spec, order.spec.pod
    left = (order.expires_at - datetime.now(UTC)).total_seconds()
    body: dict[str, Any] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": max(1, round(left) + DEADLINE_SECONDS),
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostname": _hostname(order.holder.target),
        "hostAliases": [{"ip": address, "hostnames": [host]} for host, address in hosts(spec).items()],
        "dnsPolicy": "None",  # no name of the cluster's can be resolved, or needs to be
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "securityContext": {
            "runAsUser": spec.user.uid,
            "runAsGroup": spec.user.gid,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            # A service is named by its own port inside, 443 too; of the sysctls this is a safe one.
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        },
        "initContainers": [_installer(order, site)],
        "containers": [_workspace(order)],
        "volumes": [_memory(volume, size) for volume, (_, size) in _places(order).items()],
        "nodeSelector": options.node_selector,
        "tolerations": [toleration.model_dump(exclude_defaults=True) for toleration in options.tolerations],
        "imagePullSecrets": [{"name": secret} for secret in options.image_pull_secrets],
    }
    if options.runtime_class:
        body["runtimeClassName"] = options.runtime_class
    if options.priority_class:
        body["priorityClassName"] = options.priority_class
    return {"metadata": metadata(order, name, site), "spec": body}


def probe(name: str, command: list[str], site: Site) -> dict[str, Any]:
    """A pod of the agent alone, under the same rule as every workspace, that ends by itself."""
    container = {
        "name": CONTAINER,
        "image": site.agent_image,
        "args": command,
        "stdin": True,
        "stdinOnce": True,
        "resources": _resources(64 * 2**20, 1),
        "securityContext": RESTRICTED,
    }
    return {
        "metadata": {"name": name, "labels": {INSTANCE_LABEL: site.instance, PROBE_LABEL: "true"}},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": PROBE_SECONDS,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {"runAsUser": 65532, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }


def metadata(order: Order, name: str, site: Site) -> dict[str, Any]:
    """Labels to select by, where the words fit; the words as they are in annotations."""
    labels = {INSTANCE_LABEL: site.instance, SESSION_LABEL: str(order.holder.session)}
    words = {key.replace("doorward.", "doorward/"): value for key, value in order.holder.labels().items()}
    return {
        "name": name,
        "labels": {**{key: value for key, value in words.items() if _LABEL.match(value)}, **labels},
        "annotations": words,
    }


def claim(order: Order, started: datetime) -> dict[str, Any]:
    """The patch that makes a pod for nobody, which the cluster `started` then, the pod of `order`.

    A deadline can be brought forward and not be put off (the API server refuses that).
    """
    left = (order.expires_at - started).total_seconds()
    labelled = metadata(order, "", Site("", ""))
    labels = {key: value for key, value in labelled["labels"].items() if key != INSTANCE_LABEL}
    return {
        "metadata": {"labels": labels, "annotations": labelled["annotations"]},
        "spec": {"activeDeadlineSeconds": max(1, round(left) + DEADLINE_SECONDS)},
    }


def deny_all(site: Site) -> dict[str, Any]:
    """No packet in or out of any workspace of this gateway: what a permit names goes through the agent's stream."""
    return {
        "metadata": {"name": f"doorward-{_hostname(site.instance)}", "labels": {INSTANCE_LABEL: site.instance}},
        "spec": {
            "podSelector": {"matchLabels": {INSTANCE_LABEL: site.instance}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [],
        },
    }


def _places(order: Order) -> dict[str, tuple[str, int]]:
    """The volumes in memory: name to where it is mounted, and its size in bytes."""
    size = order.spec.limits.tmpfs_bytes
    return {
        "agent": (AGENT_DIR, AGENT_BYTES),
        "credentials": (CREDENTIALS_DIR, CREDENTIALS_BYTES),
        "tmp": ("/tmp", size),  # noqa: S108 - the workspace's own
        "home": (order.spec.home, size),
    }


def _memory(name: str, size: int) -> dict[str, Any]:
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}}


def _installer(order: Order, site: Site) -> dict[str, Any]:
    """Puts the agent in place, and makes folders that are the user's alone: a volume's own root is everybody's."""
    private = [f"/volumes/{name}/private" for name in ("credentials", "tmp", "home")]
    mounts = [{"name": name, "mountPath": f"/volumes/{name}"} for name in _places(order)]
    return {
        "name": "agent",
        "image": site.agent_image,
        "args": ["install", "/volumes/agent/doorward-agent", *private],
        "volumeMounts": mounts,
        "resources": _resources(64 * 2**20, 1),
        "securityContext": RESTRICTED,
    }


def _workspace(order: Order) -> dict[str, Any]:
    spec = order.spec
    mounts = [
        {"name": name, "mountPath": path, "subPath": "private"}
        for name, (path, _) in _places(order).items()
        if name != "agent"
    ]
    return {
        "name": CONTAINER,
        "image": spec.image,
        "command": [AGENT, "serve", SOCKET],
        "env": [{"name": name, "value": literal(value)} for name, value in order.environment().items()],
        "workingDir": "/",
        "stdin": True,
        "stdinOnce": True,  # the attached client's end is the agent's EOF
        "resources": _resources(spec.limits.memory_bytes, spec.limits.cpus),
        "securityContext": {**RESTRICTED, "readOnlyRootFilesystem": spec.read_only},
        "volumeMounts": [{"name": "agent", "mountPath": AGENT_DIR, "readOnly": True}, *mounts],
    }


def _resources(memory_bytes: int, cpus: float) -> dict[str, Any]:
    """All of the memory is asked for, so that nobody is evicted for using it; of the processor, what waiting takes."""
    requests = {"memory": memory_bytes, "cpu": CPU_REQUEST}
    return {"limits": {"memory": memory_bytes, "cpu": f"{round(cpus * 1000)}m"}, "requests": requests}


def literal(value: str) -> str:
    """`$(NAME)` is not to be expanded."""
    return value.replace("$(", "$$(")


def _hostname(name: str) -> str:
    """A DNS label that reads like `name`."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower())[:50].strip("-") or "workspace"
