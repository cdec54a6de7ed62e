"""`doorward run`: the whole door on one machine, with stand-ins where parts are missing, and an example to try.

OPA and PostgreSQL are real, started here and ended with us.  The embedded issuer stands in for Vault, the sandbox for
Docker or Kubernetes, a file for the trace collector.
"""

from __future__ import annotations

import asyncio
import fcntl
import secrets
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncssh
import httpx

from gateway import assets
from gateway.app import Gateway, gateway
from gateway.embedded.children import steady_port
from gateway.embedded.opa import EmbeddedOpa, opa, write_secret
from gateway.embedded.postgres import EmbeddedPostgres, postgres
from gateway.embedded.tools import OPA, find_or_build
from gateway.embedded.wheel import wheel_tools
from gateway.errors import SettingsError
from gateway.model import Address
from gateway.parts import make_private
from gateway.policy.contract import rfc3339
from gateway.settings import Settings, built, to_toml

PERSON = "alice"
TARGET = "orders-db"
ROLE = "orders-readonly"
GRANT = "DEMO-1"
GRANT_HOURS = 8
AUTOMATION = "ticketing"
AUTOMATION_RIGHTS = {
    "roots": ["grants", "approvals", "reviews", "roster"],
    "verbs": ["GET", "PUT", "PATCH", "DELETE"],
    "actions": ["reevaluate"],
}
DEBUG_IMAGE = "doorward-debug"
STATE = Path("~/.local/state/doorward/run")


async def run(backend: str, listen: str, state: str | None) -> None:
    """Serve until SIGTERM or SIGINT.  Raises DoorwardError when a part cannot be had."""
    async with standing(backend, listen, Path(state) if state else STATE) as (running, folder):
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        print(_welcome(running, folder, backend), flush=True)
        print(f"doorward: ready on {running.ssh[0]}:{running.ssh[1]}", flush=True)
        await stop.wait()


@asynccontextmanager
async def standing(backend: str, listen: str, state: Path) -> AsyncIterator[tuple[Gateway, Path]]:
    """A gateway with embedded parts, an example person, target and grant; all of it ends with the context."""
    started = time.monotonic()
    folder = state.expanduser().absolute()
    built({"ssh": {"listen": listen}})  # what is wrong with it is told before anything is started
    make_private(folder)
    async with AsyncExitStack() as stack:
        try:
            stack.enter_context(_alone(folder))
            running = await stack.enter_async_context(_standing(backend, listen, folder))
        except OSError as error:
            remedy = "Make room or take away what is in the way, or name another folder with --state."
            raise SettingsError(f"{folder} cannot be used: {error}", remedy=remedy) from error
        print(f"doorward: everything is up after {time.monotonic() - started:.1f} s", file=sys.stderr)
        yield running, folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises SettingsError where another gateway with embedded parts has the folder."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                f"a gateway runs in {folder} already", remedy="End that one, or name another folder with --state."
            ) from error
        yield


@asynccontextmanager
async def _standing(backend: str, listen: str, folder: Path) -> AsyncIterator[Gateway]:
    binary = await asyncio.to_thread(find_or_build, OPA)
    await asyncio.to_thread(assets.agent_binary)
    async with opa(binary, assets.folder("policies"), folder) as engine, postgres(folder) as database:
        image = "host" if backend == "sandbox" else await debug_image()
        await _example(engine, database, backend, image, folder)
        tree = _settings(engine, database, backend, listen, folder)
        (folder / "doorward.toml").write_text(to_toml(tree))
        settings = built(tree)
        async with gateway(settings) as running:
            await _grant(running, folder)
            _know_the_host(running, settings, folder)
            yield running


def _settings(
    engine: EmbeddedOpa, database: EmbeddedPostgres, backend: str, listen: str, folder: Path
) -> dict[str, Any]:
    return {
        "state_dir": str(folder),
        "instance": "laptop",
        # Whoever tries it out comes from this machine, and fails at it as a beginner may.
        "ssh": {"listen": listen, "drain_seconds": 1, "penalties": {"exempt": ["127.0.0.0/8", "::1/128"]}},
        "policy": {
            "url": engine.url,
            "token": {"file": str(engine.token_files["gateway"])},
            "auditor_token": {"file": str(engine.token_files["auditor"])},
        },
        "door": {
            "listen": f"127.0.0.1:{steady_port(folder / 'door.port')}",
            "clients": {AUTOMATION: {"token": {"file": str(folder / "ticketing.token")}}},
        },
        "credentials": {
            "embedded": {
                "dsn": {"file": str(database.issuer_file)},
                "roles": str(assets.folder("secrets/vault/database")),
            }
        },
        "backends": {backend: {"tools": _tools()} if backend == "sandbox" else {}},
        "telemetry": {"exporter": "file"},
    }


def _tools() -> list[str]:
    """The wheel's psql for sandboxes, where this machine has none."""
    return [] if Path("/usr/bin/psql").exists() else [str(tool) for tool in wheel_tools()]


async def _example(engine: EmbeddedOpa, database: EmbeddedPostgres, backend: str, image: str, folder: Path) -> None:
    """The example person and target, as a security engineer would load them; their key and token, made once."""
    key = folder / PERSON
    if not key.exists():
        made = asyncssh.generate_private_key("ssh-ed25519", comment=f"{PERSON} (doorward example)")
        write_secret(key, made.export_private_key().decode())
        key.with_suffix(".pub").write_bytes(made.export_public_key())
    if not (folder / "ticketing.token").exists():
        write_secret(folder / "ticketing.token", secrets.token_urlsafe(32))
    # For curl's -H @FILE: what is in its arguments, every user of the machine can read.
    tokens = {
        AUTOMATION: (folder / "ticketing.token").read_text(),
        "opa-admin": engine.token_of("admin").get_secret_value(),
    }
    for name, token in tokens.items():
        write_secret(folder / f"{name}.header", f"Authorization: Bearer {token}\n")
    address = Address(host=database.host, port=database.port)
    headers = {"authorization": f"Bearer {engine.token_of('admin').get_secret_value()}"}
    async with httpx.AsyncClient(base_url=engine.url, headers=headers) as client:
        documents = {
            f"people/{PERSON}": {"keys": [key.with_suffix(".pub").read_text().strip()], "groups": ["oncall"]},
            f"automations/{AUTOMATION}": AUTOMATION_RIGHTS,
            f"targets/{TARGET}": example_target(address, backend, image, "embedded"),
        }
        for path, value in documents.items():
            (await client.put(f"/v1/data/{path}", json=value)).raise_for_status()


def example_target(address: Address, backend: str, image: str, issuer: str) -> dict[str, Any]:
    """A read-only look at the example's database, which the gateway dials at `address`."""
    return {
        "description": "A read-only look at the orders database",
        "backend": backend,
        "image": image,
        "limits": {"memory_bytes": 512 * 2**20, "cpus": 1.0, "pids": 256, "tmpfs_bytes": 64 * 2**20},
        "network": {"egress": [{"host": TARGET, "port": 5432, "address": address.model_dump()}]},
        "env": {"LANG": "C.UTF-8"},
        "credentials": [
            {
                "name": "orders",
                "issuer": issuer,
                "role": ROLE,
                "ttl_seconds": 60,
                "deliver": {"kind": "postgres", "host": TARGET, "port": 5432, "dbname": "orders"},
            }
        ],
        "session": {
            "idle_seconds": 1800,
            "max_seconds": GRANT_HOURS * 3600,
            "warn_seconds": 120,
            "max_channels": 32,
            "policy_grace_seconds": 30,
        },
        "max_grant_seconds": GRANT_HOURS * 3600,
        "ask": "#orders-oncall",
        "approvers": "the orders team lead",
        "allow": {
            "shell": True,
            "exec": True,
            "sftp": True,
            "forwards": [{"host": TARGET, "port": 5432}],
            "env": ["LANG", "LC_*", "TERM"],
        },
    }


async def _grant(running: Gateway, folder: Path) -> None:
    """Write the example's grant at the grants door, as ticketing automation would."""
    assert running.door is not None
    now = datetime.now(UTC)
    grant = {
        "target": TARGET,
        "starts_at": rfc3339(now),
        "ends_at": rfc3339(now + timedelta(hours=GRANT_HOURS)),
        "reason": "trying Doorward",
        "approved_by": "the orders team lead",
    }
    headers = {"authorization": f"Bearer {(folder / 'ticketing.token').read_text()}"}
    async with httpx.AsyncClient(headers=headers) as client:
        url = f"http://{running.door[0]}:{running.door[1]}/v1/data/grants/{PERSON}/{GRANT}"
        answer = await client.put(url, json=grant)
    if answer.is_error:
        raise SettingsError(f"the example grant was refused: {answer.text}")


def _know_the_host(running: Gateway, settings: Settings, folder: Path) -> None:
    host, port = running.ssh
    public = (settings.state / "ssh_host_ed25519_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[{host}]:{port} {public}")


async def debug_image() -> str:
    """The id of the debug image on the Docker engine that answers.  Raises SettingsError that says how to get one."""
    import aiodocker

    from gateway.backends.docker.engine import connect

    async with connect(None) as engine:
        try:
            found = await engine.images.list(filter=DEBUG_IMAGE)
        except (aiodocker.DockerError, OSError) as error:
            raise SettingsError("no Docker engine answers", remedy="Start one, or use BACKEND=sandbox.") from error
    if not found:
        raise SettingsError(
            f"the image {DEBUG_IMAGE} is not on this engine",
            remedy=f"Build it: docker build -t {DEBUG_IMAGE} backends/docker",
        )
    return str(found[0]["Id"])


def _welcome(running: Gateway, folder: Path, backend: str) -> str:
    host, port = running.ssh
    ssh = f"ssh -i {folder}/{PERSON} -p {port} -o UserKnownHostsFile={folder}/known_hosts {PERSON}@{host}"
    stands_in = {
        "sandbox": "the bubblewrap sandbox stands in for Docker or Kubernetes (its root is this machine's own /usr)",
        "docker": "workspaces run on your Docker engine",
    }[backend]
    assert running.door is not None
    return f"""
Doorward runs here with embedded parts:
  OPA and PostgreSQL are real, started by this command and ended with it
  the embedded issuer stands in for Vault: the same short-lived database roles, made directly
  {stands_in}
  traces go to {folder}/traces.jsonl, the audit log is {folder}/audit.jsonl
Host key: {running.host_keys.fingerprints[0]}

In another terminal, as {PERSON} on call (grant {GRANT}, {GRANT_HOURS} hours):

  {ssh}

then, inside:  psql -c 'select * from orders'
Take the grant away, as the ticketing system would, and watch the session end:

  curl -X DELETE -H @{folder}/{AUTOMATION}.header \\
    http://{running.door[0]}:{running.door[1]}/v1/data/grants/{PERSON}/{GRANT}

Every other command asks this gateway once it is told which settings are meant:

  export DOORWARD_CONFIG={folder}/doorward.toml
  {shutil.which("doorward") or Path(sys.executable).with_name("doorward")} sessions
"""  # noqa: S608  the SQL in it is for the reader
