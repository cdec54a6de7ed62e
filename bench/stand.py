"""Everything that is measured, running: the real parts, the gateway, its peers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers import Peer, Peers, peers
from tests.e2e.world import ALICE, TARGET, Door, Site, settings_of, until
from tests.stack import example
from tests.stack.docker import docker
from tests.stack.images import images
from tests.stack.jaeger import jaeger
from tests.stack.machine import install_packages
from tests.stack.opa import opa
from tests.stack.postgres import postgres
from tests.stack.vault import vault

SANDBOXED = "sandboxed"


@dataclass(frozen=True, slots=True)
class Stand:
    site: Site
    door: Door
    doorward: Peer
    sandboxed: Peer
    """Doorward too, into a sandbox on this machine: no engine copies the stream."""
    peers: Peers
    directory: Path

    @property
    def all_cold(self) -> tuple[Peer, ...]:
        """Doorward first, then its peers, in the order in which they are measured."""
        return self.doorward, self.peers.run, self.peers.plain, self.peers.bare

    def settle(self) -> None:
        """Wait until the last measurement's container and credentials are gone: they are not the next one's load."""
        self.site.nothing_left(30)
        until(lambda: self._containers() == 1, 30)

    def first_processes(self) -> list[int]:
        """The agents of the workspaces on Docker, as processes of this machine."""
        with self.site.docker.client() as client:
            labels = json.dumps({"label": ["doorward.session"]})
            found = client.get("/containers/json", params={"filters": labels}).json()
            return [client.get(f"/containers/{one['Id']}/json").json()["State"]["Pid"] for one in found]

    def _containers(self) -> int:
        with self.site.docker.client() as client:
            labels = json.dumps({"ancestor": [self.site.images.debug]})
            return len(client.get("/containers/json", params={"all": "true", "filters": labels}).json())


@contextmanager
def stand() -> Iterator[Stand]:
    """Bring all of it up; what is left of it at the end is nothing."""
    install_packages()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dw-")))
        database = stack.enter_context(postgres(directory / "pg"))
        issuer = stack.enter_context(vault(directory / "vault", database))
        policy = stack.enter_context(opa(directory / "opa"))
        engine = stack.enter_context(docker(directory / "docker"))
        traces = stack.enter_context(jaeger(directory / "jaeger"))
        site = Site(policy, database, issuer, engine, images(engine), traces, directory)
        door = stack.enter_context(_door(site, directory / "gateway"))
        door.grant()
        door.grant("INC-2", target=SANDBOXED)
        doorward = Peer("doorward", "Doorward, all of it", door.port, f"{ALICE}+{TARGET}", directory)
        sandboxed = Peer("doorward, sandbox", "Doorward, sandbox", door.port, f"{ALICE}+{SANDBOXED}", directory)
        others = stack.enter_context(peers(directory, engine, site.images.debug))
        yield Stand(site, door, doorward, sandboxed, others, directory)


@contextmanager
def _door(site: Site, directory: Path) -> Iterator[Door]:
    targets = {TARGET: site.target(), SANDBOXED: site.target(backend="sandbox", image="host", credentials=[])}
    example.load(site.opa, targets, {ALICE: example.ssh_key(site.directory)})
    directory.mkdir()
    door = Door(site, directory)
    ssh = {"max_connections_per_person": 150}  # `memory` has a hundred of one person
    door.start(settings_of(site, directory, backends={"sandbox": {"tools": []}}, ssh=ssh))
    try:
        yield door
    finally:
        door.stop()
