"""A real Vault, set up by the same script an administrator runs (`secrets/vault/setup.sh`)."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import hvac

from tests.stack import IN_THE_CLEAR, StackError
from tests.stack.cluster import Cluster
from tests.stack.mariadb import MariaDb
from tests.stack.postgres import Postgres
from tests.stack.process import Processes, Running, free_port, wait_until, write_secret
from tests.stack.redis import Redis
from tests.stack.sshd import USER
from tests.stack.tools import VAULT, find_or_build

HOST_NAME = "door.test"
Other = MariaDb | Redis | Cluster
SETUP = Path(__file__).parents[2] / "secrets" / "vault" / "setup.sh"


@dataclass(frozen=True, slots=True)
class Vault:
    """A running server."""

    url: str
    root_token_file: Path
    gateway_token_file: Path
    process: Running

    def client(self, token: str = "") -> hvac.Client:
        """An hvac client with `token`, else the root token."""
        return hvac.Client(url=self.url, token=token or self.root_token_file.read_text())

    def gateway_token(self) -> str:
        return self.gateway_token_file.read_text().strip()


@contextmanager
def vault(directory: Path, postgres: Postgres, *others: Other, port: int = 0) -> Iterator[Vault]:
    """Vault in dev mode (in memory), issuing `orders-readonly` on `postgres`, and likewise on `others`."""
    processes = Processes(directory)
    try:
        yield start_vault(processes, postgres, *others, port=port)
    finally:
        processes.end()


@contextmanager
def bare_vault(directory: Path, *, port: int = 0) -> Iterator[Vault]:
    """Vault in dev mode with nothing in it; its gateway's token is never written."""
    processes = Processes(directory)
    try:
        yield _started(processes, port)
    finally:
        processes.end()


def start_vault(processes: Processes, postgres: Postgres, *others: Other, port: int = 0) -> Vault:
    """Start, then run the set-up script."""
    started = _started(processes, port)
    _set_up(started, postgres, others)
    return started


def _started(processes: Processes, port: int) -> Vault:
    directory, address = processes.directory, f"127.0.0.1:{port or free_port()}"
    root = write_secret(directory / "vault-root.token", secrets.token_urlsafe(24))
    running = processes.start(
        "vault",
        [find_or_build(VAULT), "server", "-dev", "-dev-no-store-token", f"-dev-listen-address={address}"],
        env={"VAULT_DEV_ROOT_TOKEN_ID": root.read_text(), "HOME": str(directory)},
    )
    started = Vault(f"http://{address}", root, directory / "vault-gateway.token", running)
    wait_until(lambda: _is_ready(started.url), running)
    return started


def _set_up(started: Vault, postgres: Postgres, others: Sequence[Other]) -> None:
    env = {
        "VAULT": str(find_or_build(VAULT)),
        "VAULT_ADDR": started.url,
        "VAULT_TOKEN_FILE": str(started.root_token_file),
        "POSTGRES_ADDRESS": f"{postgres.host}:{postgres.port}/{postgres.database}?sslmode=disable",
        "ISSUER_PASSWORD_FILE": str(postgres.issuer_password_file),
        "GATEWAY_TOKEN_FILE": str(started.gateway_token_file),
        "HOST_NAMES": HOST_NAME,
        "USER_NAMES": "alice,bob",
        "HOST_LOGINS": f"{USER},deploy",
        "KV_MOUNT": "kv",
    }
    for other in others:
        if isinstance(other, Cluster):
            reviewer = write_secret(started.gateway_token_file.with_name("reviewer.token"), other.token("admin"))
            env["KUBERNETES_HOST"] = other.url
            env["KUBERNETES_CA_FILE"] = str(other.authority)
            env["KUBERNETES_REVIEWER_TOKEN_FILE"] = str(reviewer)
            continue
        name = "MARIADB" if isinstance(other, MariaDb) else "REDIS"
        env[f"{name}_ADDRESS"] = f"{other.host}:{other.port}"
        env[f"{name}_PASSWORD_FILE"] = str(other.issuer_password_file)
    ran = subprocess.run(["sh", SETUP], env={**os.environ, **env}, capture_output=True, text=True, timeout=60)
    if ran.returncode != 0:
        raise StackError(f"{SETUP.name}: {ran.stderr.strip()}")


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/sys/health", timeout=5, verify=IN_THE_CLEAR).status_code == 200
    except httpx.TransportError:
        return False
