"""A real Kubernetes of one node: etcd, API server, controllers, scheduler, kubelet and containerd.

All of it runs in a mount and a PID namespace of its own, so that one kill ends it, pods and mounts included, and it
does not disturb a Docker engine beside it.  Its bridge, ports and cgroup are the machine's: one at a time, by a lock.
Root only.  About 1 GB of memory, ready in 5-10 s.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import httpx
import yaml

from tests.stack import StackError
from tests.stack.cluster.files import API, BRIDGE, CGROUP, ETCD, NODE, NODE_IP, OLDER_API, Layout, kubeconfig
from tests.stack.cluster.images import NodeImages
from tests.stack.cluster.network import FROM_PODS, Enforcement
from tests.stack.process import Processes, Running, wait_until
from tests.stack.tools import HYPERKUBE, find_or_build

NAMESPACE = "doorward-workspaces"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
CONTROLLERS = Path("/sys/fs/cgroup")
LOCK = Path("/run/lock/doorward-kubetest.lock")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster whose node is ready."""

    layout: Layout
    images: NodeImages
    process: Running
    enforcement: Enforcement

    url: ClassVar[str] = f"https://127.0.0.1:{API}"

    @property
    def authority(self) -> Path:
        """Who signed the API's certificate."""
        return self.layout.pki / "apiserver.crt"

    def token(self, user: str) -> str:
        """That of one of `files.USERS`."""
        return str(json.loads(self.layout.kubeconfig(user).read_text())["users"][0]["user"]["token"])

    def client(self, user: str = "admin") -> httpx.Client:
        """The API, as one of `files.USERS`."""
        trust = ssl.create_default_context(cafile=str(self.authority))
        headers = {"authorization": f"Bearer {self.token(user)}"}
        return httpx.Client(base_url=self.url, headers=headers, verify=trust, timeout=30)

    def apply(self, file: Path) -> None:
        """Create the objects of a file as `kubectl apply` would; one that is there is left alone."""
        with self.client() as client:
            for manifest in yaml.safe_load_all(file.read_text()):
                group = manifest["apiVersion"]
                base = f"/apis/{group}" if "/" in group else f"/api/{group}"
                space = manifest["metadata"].get("namespace")
                kind = re.sub("ys$", "ies", manifest["kind"].lower() + "s")
                path = f"{base}/namespaces/{space}/{kind}" if space else f"{base}/{kind}"
                answer = client.post(path, json=manifest)
                if answer.status_code not in (201, 409):
                    raise StackError(f"{file.name}: {manifest['kind']}: {answer.text}")

    @contextmanager
    def stopped_api(self) -> Iterator[None]:
        """The API server answers nobody."""
        mark = f"kube-apiserver\0--etcd-servers=http://127.0.0.1:{ETCD}".encode()
        [server] = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if mark in _command_line(pid)]
        os.kill(server, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(server, signal.SIGCONT)

    @contextmanager
    def older_api(self) -> Iterator[str]:
        """The address of a second API server of the same cluster, one that knows no `v5.channel.k8s.io`."""
        command = self.layout.commands()["kube-apiserver"]
        older = [f"--secure-port={OLDER_API}" if one == f"--secure-port={API}" else one for one in command]
        processes = Processes(self.layout.directory / "older")
        try:
            running = processes.start("api", [*older, "--feature-gates=TranslateStreamCloseWebsocketRequests=false"])
            url = f"https://127.0.0.1:{OLDER_API}"
            wait_until(lambda: _get(self, f"{url}/readyz") is not None, running, seconds=180)
            yield url
        finally:
            processes.end()

    def token_of(self, account: str, namespace: str, *audiences: str) -> str:
        """A projected token of a service account, for the API or for `audiences`."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        asked = {"audiences": audiences} if audiences else {}
        with self.client() as client:
            answer = client.post(
                path, json={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": asked}
            )
            return str(answer.raise_for_status().json()["status"]["token"])

    def config_for(self, account: str, namespace: str) -> Path:
        """A kubeconfig whose user is a service account of `namespace`."""
        token = self.token_of(account, namespace)
        file = self.layout.directory / f"{namespace}-{account}.kubeconfig"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            json.dump(kubeconfig(self.layout.pki / "apiserver.crt", token, namespace), out)
        return file


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A fresh cluster, gone at the end."""
    hyperkube = find_or_build(HYPERKUBE)
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _clear()
        directory = Path(tempfile.mkdtemp(prefix="dw-kube-", dir="/run"))
        processes = Processes(directory / "run")
        try:
            started = _started(Layout(directory, hyperkube), processes)
            started.enforcement.start()
            try:
                yield started
            finally:
                started.enforcement.end()
        finally:
            processes.end()
            _clear()
            shutil.rmtree(directory, ignore_errors=True)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # gone
        return b""


def _started(layout: Layout, processes: Processes) -> Cluster:
    layout.write()
    for controller in CONTROLLERS.iterdir():
        if (controller / "cgroup.procs").exists():
            (controller / CGROUP).mkdir(exist_ok=True)
            if controller.name == "cpuset":
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (controller / CGROUP / file).write_text((controller / file).read_text())
    link = (["add", BRIDGE, "type", "bridge"], ["set", BRIDGE, "up"])
    subprocess.run(["ip", "link", *link[0]], check=True)
    subprocess.run(["ip", "addr", "add", f"{NODE_IP}/24", "dev", BRIDGE], check=True)
    subprocess.run(["ip", "link", *link[1]], check=True)
    node = Path(__file__).with_name("node.py")
    running = processes.start(
        "node",
        [
            "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
            sys.executable, node, layout.directory,
        ],
        stop_signal=signal.SIGKILL,  # unshare heeds no other while it waits, and takes its child along
    )  # fmt: skip
    images = NodeImages(layout)
    cluster = Cluster(layout, images, running, Enforcement())
    wait_until(lambda: _answers(layout), running, seconds=180)
    images.pause()
    wait_until(lambda: _get(cluster, "/readyz") is not None, running, seconds=180)
    (layout.directory / "ready").touch()
    wait_until(lambda: _is_ready(cluster), running, seconds=180)
    return cluster


def _answers(layout: Layout) -> bool:
    command = ["ctr", "-a", str(layout.containerd), "version"]
    return layout.containerd.exists() and subprocess.run(command, capture_output=True).returncode == 0


def _get(cluster: Cluster, path: str) -> httpx.Response | None:
    if not (cluster.layout.pki / "apiserver.crt").exists():
        return None
    try:
        with cluster.client() as client:
            answer = client.get(path)
    except httpx.TransportError:
        return None
    return answer if answer.is_success else None


def _is_ready(cluster: Cluster) -> bool:
    node = _get(cluster, f"/api/v1/nodes/{NODE}")
    if node is None or _get(cluster, "/api/v1/namespaces/default/serviceaccounts/default") is None:
        return False
    found = node.json()
    conditions = {entry["type"]: entry["status"] for entry in found["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and not found["spec"].get("taints")


def _clear() -> None:
    """What a cluster of ours leaves on the machine when it ends: its bridge, the CNI plugins' chains, its cgroup."""
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)
    while subprocess.run(["iptables", "-w", "-D", *FROM_PODS], capture_output=True).returncode == 0:
        pass
    for table in ("filter", "nat"):
        saved = subprocess.run(["iptables-save", "-t", table], capture_output=True, text=True).stdout.splitlines()
        rules = [line for line in saved if line.startswith("-A") and " CNI-" in line]
        for rule in rules:
            subprocess.run(["iptables", "-w", "-t", table, "-D", *shlex.split(rule)[1:]], capture_output=True)
        for line in saved:
            if line.startswith(":CNI-"):
                subprocess.run(["iptables", "-w", "-t", table, "-X", line.split()[0][1:]], capture_output=True)
    for controller in CONTROLLERS.iterdir():
        for path, _folders, _files in os.walk(controller / CGROUP, topdown=False):
            with contextlib.suppress(OSError):  # a process of it is just ending: the next start clears it
                os.rmdir(path)
