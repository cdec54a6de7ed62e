"""A Docker engine: the one this machine has, else a `dockerd` of our own that disturbs nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.stack import IN_THE_CLEAR, StackError
from tests.stack.process import Processes, wait_until

DEFAULT_SOCKET = Path("/var/run/docker.sock")
LABEL = "doorward.session"
API = "/v1.41"
DATA = "docker-data"
SOCKETS = "docker-sockets"


@dataclass(frozen=True, slots=True)
class Docker:
    """An engine that answers.  `host` is what DOCKER_HOST and the gateway's `backends.docker.url` take."""

    host: str
    is_ours: bool

    def client(self) -> httpx.Client:
        """An HTTP client for the engine's API."""
        if self.host.startswith("unix://"):
            transport = httpx.HTTPTransport(uds=self.host.removeprefix("unix://"), verify=IN_THE_CLEAR)
            return httpx.Client(base_url=f"http://docker{API}", transport=transport, timeout=120)
        return httpx.Client(base_url=self.host.replace("tcp://", "http://") + API, timeout=120, verify=IN_THE_CLEAR)

    def answers(self) -> bool:
        if self.host.startswith("unix://") and not _listens(self.host.removeprefix("unix://")):
            return False
        try:
            with self.client() as client:
                return client.get("/_ping", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def import_image(self, tar: Path, name: str, changes: Sequence[str] = ()) -> str:
        """Import a root file system as `name` (`repository:tag`) unless that is there; its id (`sha256:...`)."""
        with self.client() as client:
            found = client.get(f"/images/{name}/json")
            if found.status_code == 200:
                return str(found.json()["Id"])
            repository, _, tag = name.rpartition(":")
            query = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": list(changes)}
            with tar.open("rb") as content:
                answer = client.post("/images/create", params=query, content=content)
            last = json.loads(answer.text.strip().splitlines()[-1])
            if answer.status_code != 200 or "status" not in last:
                raise StackError(f"import of {name}: {answer.text.strip()}")
            return str(last["status"])

    def remove_workspaces(self, label: str = LABEL) -> int:
        """Remove containers that carry `label` (`key` or `key=value`); how many there were."""
        with self.client() as client:
            filters = json.dumps({"label": [label]})
            found = client.get("/containers/json", params={"all": "true", "filters": filters}).raise_for_status().json()
            for container in found:
                client.delete(f"/containers/{container['Id']}", params={"force": "true", "v": "true"})
            return len(found)


def _listens(path: str) -> bool:
    # Looked at first, since httpcore leaks the socket of a connection that is refused.
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


@contextmanager
def docker(directory: Path, *, networks: bool = False) -> Iterator[Docker]:
    """DOCKER_HOST, else the default socket, else a `dockerd` in `directory` that ends with this context.

    Workspaces have no network, so our own engine gets no bridge and touches no firewall.  With `networks`, networks can
    be made in it, and its (empty) chains stay in the firewall, as Docker's do.
    """
    found = existing_docker()
    if found is not None:
        yield found
        return
    processes = Processes(directory)
    try:
        yield start_docker(processes, networks=networks)
    finally:
        processes.end()
        remove_docker(directory)


def existing_docker() -> Docker | None:
    """The engine this machine offers.  Raises StackError when DOCKER_HOST names one that does not answer."""
    named = os.environ.get("DOCKER_HOST")
    if named:
        found = Docker(named, is_ours=False)
        if not found.answers():
            raise StackError(f"DOCKER_HOST is {named}, but no engine answers there")
        return found
    found = Docker(f"unix://{DEFAULT_SOCKET}", is_ours=False)
    return found if DEFAULT_SOCKET.exists() and found.answers() else None


@contextmanager
def own_docker(directory: Path, runtimes: Mapping[str, Path]) -> Iterator[Docker]:
    """A `dockerd` of our own in any case, which knows `runtimes` as well: name to program."""
    processes = Processes(directory)
    try:
        yield start_docker(processes, runtimes=runtimes)
    finally:
        processes.end()
        remove_docker(directory)


def start_docker(processes: Processes, *, networks: bool = False, runtimes: Mapping[str, Path] | None = None) -> Docker:
    """Start a `dockerd` with a data folder, sockets and pid file of its own."""
    binary = shutil.which("dockerd")
    if binary is None or os.geteuid() != 0:
        raise StackError("no Docker engine answers, and starting one needs root and `dockerd` (Debian: docker.io)")
    folder = processes.directory
    # containerd's sockets are deep below its folder, and a socket's path has 108 bytes: so not inside `folder`.
    sockets = Path(tempfile.mkdtemp(prefix="doorward-docker-", dir="/run"))
    (folder / SOCKETS).symlink_to(sockets)
    nothing_shared = ["--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    running = processes.start(
        "dockerd",
        [
            binary, "--host", f"unix://{sockets}/docker.sock", "--pidfile", sockets / "pid", "--bridge=none",
            "--exec-root", sockets / "exec", "--data-root", folder / DATA, "--userland-proxy=false",
            *([] if networks else nothing_shared),
            *(f"--add-runtime={name}={program}" for name, program in (runtimes or {}).items()),
        ],
    )  # fmt: skip
    started = Docker(f"unix://{sockets}/docker.sock", is_ours=True)
    wait_until(started.answers, running)
    return started


def remove_docker(directory: Path) -> None:
    """Unmount and remove what an engine of ours that has ended left."""
    folders = [path.resolve() for path in (directory / DATA, directory / SOCKETS) if path.exists()]
    unmount(*folders)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    (directory / SOCKETS).unlink(missing_ok=True)


def unmount(*folders: Path) -> None:
    """Unmount what is mounted in any of these (resolved) folders, the deepest first."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted(mounts, reverse=True):
        if any(Path(mount).is_relative_to(folder) for folder in folders):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
