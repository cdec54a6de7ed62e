"""Where the demo is told: on embedded parts, or on real ones.  A place is a running door and ways to look behind it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.world import ALICE, TARGET, Door, settings_of, standing_site
from tests.stack import example
from tests.stack.opa import opa
from tests.stack.process import free_port


@dataclass(frozen=True)
class Place:
    """A door with the example person and target, and no grant."""

    what: str
    ssh: list[str]
    """Up to and without the command."""
    token: Path
    grants: str
    """URL of the person's grants at the grants door."""
    audit: Path
    roles: Callable[[], list[str]]
    """Short-lived database roles that exist now."""
    workspaces: Callable[[], int]


@contextmanager
def real(directory: Path) -> Iterator[Place]:
    """OPA, Vault, PostgreSQL, Docker and Jaeger."""
    print("bringing up OPA, Vault, PostgreSQL, Docker and Jaeger ...", flush=True)
    with opa(directory / "opa") as policy, standing_site(directory, policy) as site:
        example.load(policy, {TARGET: site.target()}, {ALICE: example.ssh_key(directory)})
        door = Door(site, directory)
        door.start(settings_of(site, directory))
        try:
            yield Place(
                what="real OPA, Vault, PostgreSQL and Docker",
                ssh=door.ssh_command(),
                token=example.door_token(directory),
                grants=f"http://127.0.0.1:{door.grants_port}/v1/data/grants/{ALICE}",
                audit=directory / "state" / "audit.jsonl",
                roles=site.roles,
                workspaces=lambda: len(site.containers()),
            )
        finally:
            door.stop()


@contextmanager
def embedded(directory: Path) -> Iterator[Place]:
    """What `make run` starts."""
    print("starting the door with embedded parts ...", flush=True)
    port = free_port()
    command = [sys.executable, "-m", "gateway", "run", "--listen", f"127.0.0.1:{port}", "--state", str(directory)]
    with (directory / "gateway.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        if not any("ready on" in line for line in process.stdout):
            raise SystemExit((directory / "gateway.log").read_text())
        options = ["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes"]
        known = ["-o", f"UserKnownHostsFile={directory}/known_hosts"]
        yield Place(
            what="embedded OPA and PostgreSQL, the embedded issuer and the sandbox",
            ssh=["ssh", *options, *known, "-i", str(directory / ALICE), "-p", str(port), f"{ALICE}@127.0.0.1"],
            token=directory / "ticketing.token",
            grants=f"http://127.0.0.1:{(directory / 'door.port').read_text().strip()}/v1/data/grants/{ALICE}",
            audit=directory / "audit.jsonl",
            roles=lambda: _roles(directory),
            workspaces=lambda: len(_sandboxes(process.pid)),
        )
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def _roles(directory: Path) -> list[str]:
    dsn = (directory / "postgres" / "superuser.dsn").read_text()
    query = "select rolname from pg_roles where rolname like 'dw-%'"
    ran = subprocess.run(["psql", "-XqAt", dsn, "-c", query], capture_output=True, text=True, check=True)
    return ran.stdout.split()


def _sandboxes(gateway: int) -> list[str]:
    ran = subprocess.run(["pgrep", "-P", str(gateway), "bwrap"], capture_output=True, text=True, check=False)
    return ran.stdout.split()
