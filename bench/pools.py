"""Warm starts beside cold ones, on Docker, in the sandbox and in a cluster; and a burst of logins on a small pool."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.latency import NULL, timed
from bench.peers import Peer
from bench.samples import Samples
from bench.stand import SANDBOXED, Stand
from bench.table import Row, milliseconds, ratio
from tests.conftest import SHIPPED
from tests.e2e.world import ALICE, TARGET, Door, settings_of, until
from tests.stack import StackError, example
from tests.stack.cluster import NAMESPACE, cluster
from tests.stack.cluster.files import POD_PIDS
from tests.stack.process import Processes, wait_until

SIZE = 8
BARE_GOAL, RUN_GOAL = 1.3, 0.3
POD = "podded"


@dataclass(frozen=True, slots=True)
class Pooled:
    """A gateway with pools, and what it says of them."""

    door: Door

    def peer(self, name: str, target: str) -> Peer:
        return Peer(name, name, self.door.port, f"{ALICE}+{target}", self.door.site.directory)

    def full(self, backend: str) -> bool:
        socket = httpx.HTTPTransport(uds=str(self.door.directory / "state" / "admin.sock"))
        with httpx.Client(transport=socket) as client:
            kinds = client.get("http://door/v1/status").raise_for_status().json()["pools"][backend]["kinds"]
        return bool(kinds) and all(kind["ready"] == kind["wanted"] for kind in kinds)

    def starts(self) -> Counter[str]:
        return Counter(str(record.get("start")) for record in self.door.audit("workspace"))


def pools(stand: Stand, rounds: int, warm_up: int, burst: int) -> tuple[list[Row], dict[str, Samples]]:
    """On this machine: warm and cold in turn, each when its pool is full and nothing of the one before is left."""
    with _pooled(stand, "docker", sandbox={"tools": []}) as pooled, _bare(stand) as (bare, bare_ready):
        docker, sandbox = pooled.peer("docker, warm", TARGET), pooled.peer("sandbox, warm", SANDBOXED)
        measured: dict[str, tuple[Peer, Callable[[], Any]]] = {
            "Doorward, Docker, warm": (docker, lambda: pooled.full("docker")),
            "bare asyncssh, the same pool": (bare, lambda: bare_ready() == SIZE),
            "OpenSSH, docker run": (stand.peers.run, lambda: True),
            "Doorward, Docker, cold": (stand.doorward, lambda: True),
            "Doorward, sandbox, warm": (sandbox, lambda: pooled.full("sandbox")),
            "Doorward, sandbox, cold": (stand.sandboxed, lambda: True),
        }
        found = _in_turn(stand, measured, rounds, warm_up)
        cold = pooled.starts()["cold"]
        warm, rows = found["Doorward, Docker, warm"], _rows(found)
        rows += [
            ratio("  Docker, warm / bare, the same pool", warm, found["bare asyncssh, the same pool"], goal=BARE_GOAL),
            ratio("  Docker, warm / sshd, docker run", warm, found["OpenSSH, docker run"], goal=RUN_GOAL),
            Row("  of the warm ones, cold in truth", str(cold - 2), "0", cold == 2),  # the first of each kind
        ]
        for name, peer, backend in (("Docker", docker, "docker"), ("sandbox", sandbox, "sandbox")):
            until(lambda backend=backend: pooled.full(backend), 60)  # type: ignore[misc]
            more, samples = _burst(name, peer, pooled, burst)
            rows, found = rows + more, found | samples
    return rows, found


def pods(stand: Stand, rounds: int, warm_up: int, burst: int) -> tuple[list[Row], dict[str, Samples]]:
    """The same in a cluster of one node, which is started for it."""
    limits = {"memory_bytes": 2**26, "cpus": 1.0, "pids": POD_PIDS, "tmpfs_bytes": 2**22}
    with (
        clustered(stand, limits) as backend,
        _pooled(stand, "kubernetes", kubernetes=backend) as pooled,
        _pooled(stand, "kubernetes", size=0, kubernetes=backend) as plain,
    ):
        warm = pooled.peer("kubernetes, warm", POD)
        measured: dict[str, tuple[Peer, Callable[[], Any]]] = {
            "Doorward, Kubernetes, warm": (warm, lambda: pooled.full("kubernetes")),
            "Doorward, Kubernetes, cold": (plain.peer("kubernetes, cold", POD), lambda: True),
        }
        found = _in_turn(stand, measured, rounds, warm_up)
        until(lambda: pooled.full("kubernetes"), 120)
        rows, samples = _burst("Kubernetes", warm, pooled, burst)
        return _rows(found) + rows, found | samples


@contextmanager
def podded(stand: Stand) -> Iterator[tuple[Peer, int]]:
    """A gateway whose workspaces are cold pods, with the limits of the other workspaces; and its process."""
    limits = {**stand.site.target()["limits"], "pids": POD_PIDS}
    with (
        clustered(stand, limits) as backend,
        _pooled(stand, "kubernetes", size=0, kubernetes=backend) as plain,
    ):
        yield plain.peer("Doorward, Kubernetes", POD), plain.door.process.pid


@contextmanager
def clustered(stand: Stand, limits: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A cluster of one node with a target in it that is granted; yields the settings of the backend."""
    with cluster() as there:
        for file in ("namespace.yaml", "role.yaml"):
            there.apply(SHIPPED / file)
        target = stand.site.target(backend="kubernetes", image=there.images.workspace("full"), limits=limits)
        example.load(stand.site.opa, {POD: target}, {})
        stand.door.grant("INC-3", target=POD)
        yield {
            "kubeconfig": str(there.config_for("doorward-gateway", NAMESPACE)),
            "agent_image": there.images.agent(),
            "pod_pids_limit": POD_PIDS,
            "enforces_network_policy": True,
        }


def _in_turn(
    stand: Stand, measured: dict[str, tuple[Peer, Callable[[], Any]]], rounds: int, warm_up: int
) -> dict[str, Samples]:
    samples = {name: Samples() for name in measured}
    for peer, _ in measured.values():
        timed(peer, NULL)  # the first of each kind is cold, and fills its pool
    for turn in range(warm_up + rounds):
        for name, (peer, _) in measured.items():
            for _, ready in measured.values():
                until(ready, 120)  # nobody's pool is filled while another is measured
            until(lambda: not stand.site.roles(), 30)
            seconds = timed(peer, NULL)
            if turn >= warm_up:
                samples[name].add(seconds)
    return samples


def _rows(found: dict[str, Samples]) -> list[Row]:
    return [Row(f"ssh host true, /dev/null: {name}", milliseconds(samples)) for name, samples in found.items()]


def _burst(name: str, peer: Peer, pooled: Pooled, burst: int) -> tuple[list[Row], dict[str, Samples]]:
    """So many clients at once, each timed from its own start to its end."""
    samples, lost, before = Samples(), 0, pooled.starts()
    with ThreadPoolExecutor(burst) as threads:
        for future in [threads.submit(timed, peer, NULL) for _ in range(burst)]:
            try:
                samples.add(future.result())
            except StackError as error:
                print(f"lost: {error}", file=sys.stderr)
                lost += 1
    starts = pooled.starts() - before
    said = f"{milliseconds(samples)}; {starts['warm']} warm, {starts['cold']} cold"
    what = f"{burst} logins at once on a pool of {SIZE}"
    rows = [Row(f"{what}: {name}", said), Row("  lost", str(lost), "0", lost == 0)]
    return rows, {f"{what}: {name}": samples}


@contextmanager
def _pooled(stand: Stand, backend: str, size: int = SIZE, **backends: Any) -> Iterator[Pooled]:
    directory = stand.directory / f"pooled-{backend}-{size}"
    directory.mkdir()
    door = Door(stand.site, directory)
    sized = {name: {"size": size} for name in {backend, *backends}}
    door.start(settings_of(stand.site, directory, backends=backends, pools=sized))
    try:
        yield Pooled(door)
    finally:
        door.stop()


@contextmanager
def _bare(stand: Stand) -> Iterator[tuple[Peer, Callable[[], int]]]:
    """The bare server, and how many it has ready."""
    keys = [str(stand.directory / "peers-host-key"), str(stand.directory / "authorized_keys")]
    words = [stand.site.docker.host, stand.site.images.debug, str(SIZE), *keys]
    processes = Processes(stand.directory / "bare-pool")
    try:
        running = processes.start("bare-pool", [sys.executable, "-m", "bench.bare_pool", *words])
        wait_until(lambda: "ready on" in Path(running.log).read_text(), running)
        port = int(Path(running.log).read_text().rpartition(" ")[2])
        peer = Peer("bare, pooled", "bare asyncssh, the same pool", port, ALICE, stand.directory)
        yield peer, lambda: int(subprocess.run(peer.ssh("ready?"), capture_output=True, check=True).stdout)
    finally:
        processes.end()
