"""What the table needs to know of a backend: its settings, its images, and what of a gateway still runs there.

Another backend is one more class here and one more name in `RUNTIMES`.
"""

from __future__ import annotations

import json
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from gateway.backends.kubernetes.spec import SESSION_LABEL
from gateway.backends.sandbox.root import AGENT
from tests.stack.cluster import NAMESPACE, PODS, Cluster
from tests.stack.cluster.files import API, POD_PIDS
from tests.stack.docker import LABEL, Docker
from tests.stack.images import images, tiny_root
from tests.stack.process import free_port
from tests.stack.require import require
from tests.stack.sshd import ACCOUNT, Sshd, make_key

MARK = "DOORWARD_TEST_GROUND"
"""A variable in the environment of every process of a workspace, by which this machine's processes can be searched."""
TARGETS = (
    "plain", "alone", "late", "shonly", "noshell", "missing", "walled", "files", "forced", "few", "idle", "short",
)  # fmt: skip
KINDS = ("full", "shonly", "noshell", "missing")
"""Images: with tools, with /bin/sh alone, with nothing at all, and one that is not there."""
ECHO = "echo-service"
"""A host beyond the workspace that may be reached: what is said to it comes back, backwards, after the half-close."""
ECHO_PORT = 7  # below 1024, where listening needs more than an ordinary account has
LIMITS = {"memory_bytes": 512 * 2**20, "cpus": 2.0, "pids": 256, "tmpfs_bytes": 256 * 2**20}


class Runtime(Protocol):
    """One backend."""

    name: str
    removal_seconds: float
    """A workspace that is left has gone by then, at the best of three."""
    no_image_seconds: float
    """An image that is not there is explained by then."""

    no_image: str
    """The code by which it is explained."""

    def settings(self) -> dict[str, Any]:
        """What stands in the gateway's settings below `backends.<name>`."""
        ...

    def place(self, target: str, echo: int) -> dict[str, Any]:
        """What of a target's entry says where it runs.  Its image is the target's of KINDS, else "full"; the way to the
        service at the port `echo` is there.
        """
        ...

    def down(self, directory: Path) -> dict[str, Any]:
        """Settings with which it cannot be reached, or nothing can be started."""
        ...

    def workspaces(self, mark: str) -> list[str]:
        """Those that still run with this mark in their environment."""
        ...

    def kill(self, mark: str) -> None:
        """End them from outside."""
        ...


class Started:
    """What starts workspaces, from images."""

    no_image = "workspace_unavailable"

    def image(self, kind: str) -> str:
        raise NotImplementedError

    def place(self, target: str, echo: int) -> dict[str, Any]:
        address = {"host": "127.0.0.1", "port": echo}
        return {
            "image": self.image(target if target in KINDS else "full"),
            "limits": LIMITS,
            "network": {"egress": [{"host": ECHO, "port": ECHO_PORT, "address": address}]},
        }


class DockerRuntime(Started):
    name = "docker"
    removal_seconds = 1.0
    no_image_seconds = 3.0

    def __init__(self, engine: Docker) -> None:
        self._engine = engine
        self._images = images(engine)

    def settings(self) -> dict[str, Any]:
        return {"url": self._engine.host}

    def image(self, kind: str) -> str:
        known = {"full": self._images.debug, "shonly": self._images.shonly, "noshell": self._images.noshell}
        return known.get(kind, f"sha256:{'0' * 64}")

    def down(self, directory: Path) -> dict[str, Any]:
        return {"url": f"unix://{directory}/no.sock"}

    def workspaces(self, mark: str) -> list[str]:
        with self._engine.client() as client:
            query = {"all": "true", "filters": json.dumps({"label": [LABEL]})}
            found = client.get("/containers/json", params=query).json()
            return [one["Id"] for one in found if f"{MARK}={mark}" in _environment(client, one["Id"])]

    def kill(self, mark: str) -> None:
        with self._engine.client() as client:
            for container in self.workspaces(mark):
                client.delete(f"/containers/{container}", params={"force": "true"})


class KubernetesRuntime(Started):
    name = "kubernetes"
    removal_seconds = 4.0
    no_image_seconds = 45.0  # the kubelet tells when its attempts to pull have failed

    def __init__(self, cluster: Cluster, client: httpx.Client) -> None:
        self._cluster = cluster
        self._client = client
        self._config = cluster.config_for("doorward-gateway", NAMESPACE)

    def settings(self) -> dict[str, Any]:
        return {
            "kubeconfig": str(self._config),
            "namespace": NAMESPACE,
            "agent_image": self._cluster.images.agent(),
            "pod_pids_limit": POD_PIDS,
            "enforces_network_policy": True,
        }

    def image(self, kind: str) -> str:
        return f"localhost/none@sha256:{'0' * 64}" if kind == "missing" else self._cluster.images.workspace(kind)

    def down(self, directory: Path) -> dict[str, Any]:
        config = directory / "nowhere.kubeconfig"
        config.write_text(self._config.read_text().replace(f":{API}", ":1"))
        return {"kubeconfig": str(config)}

    def workspaces(self, mark: str) -> list[str]:
        found = self._client.get(PODS, params={"labelSelector": SESSION_LABEL}).raise_for_status().json()
        wanted = {"name": MARK, "value": mark}
        return [
            pod["metadata"]["name"] for pod in found["items"]
            if wanted in pod["spec"]["containers"][0]["env"] and pod["status"]["phase"] not in ("Succeeded", "Failed")
        ]  # fmt: skip

    def kill(self, mark: str) -> None:
        for pod in self.workspaces(mark):
            self._client.request("DELETE", f"{PODS}/{pod}", json={"gracePeriodSeconds": 1})


class SandboxRuntime(Started):
    name = "sandbox"
    removal_seconds = 1.0
    no_image_seconds = 3.0

    def __init__(self, directory: Path) -> None:
        self._roots = {kind: _unpacked(directory / kind, kind == "shonly") for kind in ("shonly", "noshell")}

    def settings(self) -> dict[str, Any]:
        return {"roots": {kind: str(root) for kind, root in self._roots.items()}}

    def image(self, kind: str) -> str:
        return "host" if kind == "full" else kind

    def down(self, directory: Path) -> dict[str, Any]:
        return {"agent": "/dev/null"}

    def workspaces(self, mark: str) -> list[str]:
        return [str(pid) for pid in _agents(mark)]

    def kill(self, mark: str) -> None:
        for pid in _agents(mark):
            os.kill(pid, signal.SIGKILL)


class HostRuntime:
    """A machine that is there already.  Each target has a key of its own, by which sshd's log tells connections apart.

    What is left on it when a connection ends is its own (docs/hosts.md), and is ended by hand here.
    """

    name = "sshproxy"
    removal_seconds = 1.0
    no_image_seconds = 3.0
    no_image = "host_unreachable"

    def __init__(self, server: Sshd) -> None:
        self.server = server
        self._nowhere = free_port()

    def settings(self) -> dict[str, Any]:
        return {"keys": {target: str(self._key(target)) for target in TARGETS}}

    def place(self, target: str, _echo: int) -> dict[str, Any]:
        port = self._nowhere if target == "missing" else self.server.port
        return {
            "host": {
                "address": "127.0.0.1", "port": port, "user": ACCOUNT, "host_keys": [self.server.host_key],
                "key": target,
            }
        }  # fmt: skip

    def down(self, directory: Path) -> dict[str, Any]:
        return {"keys": {target: str(directory / "no.key") for target in TARGETS}}

    def workspaces(self, mark: str) -> list[str]:
        key = self._key(mark.rpartition("-")[2]).with_suffix(".pub")
        return [str(port) for port in self.server.connected_by(key.read_text())]

    def kill(self, mark: str) -> None:
        """The server's processes for the connections that run programs."""
        for pid in {above for program in processes_of(mark) for above in _sshds_above(program)}:
            os.kill(pid, signal.SIGKILL)

    def _key(self, target: str) -> Path:
        path = self.server.directory / "keys" / target
        if not path.exists():
            allowed = self.server.directory / "authorized_keys"
            allowed.write_text(f"{allowed.read_text()}{make_key(path)}\n")
        return path


def _environment(client: httpx.Client, container: str) -> list[str]:
    answer = client.get(f"/containers/{container}/json")
    environment: list[str] = answer.json()["Config"]["Env"] if answer.status_code == 200 else []
    return environment


def _agents(mark: str) -> list[int]:
    """The first processes of sandboxes."""
    return [pid for pid in processes_of(mark) if _program(pid) == AGENT]


def _sshds_above(pid: int) -> Iterator[int]:
    """sshd's own for one connection: a child of the one that listens, which is bubblewrap's, and what runs under it."""
    while (parent := _status(pid)[1]) and _status(parent)[0] == "sshd" and _status(_status(parent)[1])[0] != "bwrap":
        yield parent
        pid = parent


def _status(pid: int) -> tuple[str, int]:
    """Name and parent; of nobody where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return "", 0
    found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return found["Name"], int(found["PPid"])


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:  # gone
        return ""


def _unpacked(root: Path, has_shell: bool) -> Path:
    root.mkdir(parents=True)
    with tarfile.open(tiny_root(has_shell=has_shell)) as tar:
        tar.extractall(root, filter="tar")
    root.chmod(0o755)
    return root


def _docker(request: pytest.FixtureRequest, _directory: Path) -> Runtime:
    require("docker", "images")
    return DockerRuntime(request.getfixturevalue("engine"))


def _kubernetes(request: pytest.FixtureRequest, _directory: Path) -> Runtime:
    require("kubernetes", "images")
    cluster: Cluster = request.getfixturevalue("cluster")
    client = cluster.client()
    request.addfinalizer(client.close)
    return KubernetesRuntime(cluster, client)


def _sandbox(_request: pytest.FixtureRequest, directory: Path) -> Runtime:
    require("bwrap")
    return SandboxRuntime(directory)


def _host(request: pytest.FixtureRequest, _directory: Path) -> Runtime:
    require("sshd", "bwrap", "root")
    return HostRuntime(request.getfixturevalue("host_machine"))


RUNTIMES: dict[str, Callable[[pytest.FixtureRequest, Path], Runtime]] = {
    "docker": _docker,
    "kubernetes": _kubernetes,
    "sandbox": _sandbox,
    "sshproxy": _host,
}


def processes_of(mark: str) -> list[int]:
    """Processes of this machine that a workspace with this mark started, its agent among them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:  # gone, or another account's
                continue
            if f"{MARK}={mark}".encode() in environment.split(b"\0"):
                found.append(int(entry.name))
    return found


@contextmanager
def reachable_directory() -> Iterator[Path]:
    """A folder that the workspace's own account can read: pytest's are closed to others."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="dw-roots-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory
