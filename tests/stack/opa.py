"""OPA as in production: disk storage, token authentication, `system.authz`, decision logs."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.stack import IN_THE_CLEAR
from tests.stack.process import Processes, Running, free_port, wait_until, write_secret
from tests.stack.tools import OPA, find_or_build

POLICIES = Path(__file__).parents[2] / "policies"
ROLES = ("gateway", "automation", "auditor", "admin", "copy_reader", "copy_writer")
PARTITIONS = ("/grants/*/*", "/approvals/*/*", "/reviews/*/*", "/people/*", "/targets/*", "/roster/*")


@dataclass(frozen=True, slots=True)
class Opa:
    """A running OPA.  One token for each role, each also in a file of its own (0600)."""

    url: str
    token_files: Mapping[str, Path]
    directory: Path
    decision_log: Path
    """JSON lines of the process, decision logs (`"msg":"Decision Log"`) among them."""
    process: Running

    def token(self, role: str) -> str:
        return self.token_files[role].read_text()

    def client(self, role: str = "admin") -> httpx.Client:
        """An HTTP client that authenticates as `role`."""
        headers = {"authorization": f"Bearer {self.token(role)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=IN_THE_CLEAR)

    def put(self, path: str, value: object, role: str = "admin") -> None:
        """Write base data, for example `put("people/alice", {...})`."""
        with self.client(role) as client:
            client.put(f"/v1/data/{path}", json=value).raise_for_status()

    def delete(self, path: str, role: str = "admin") -> None:
        with self.client(role) as client:
            client.delete(f"/v1/data/{path}").raise_for_status()


@contextmanager
def opa(directory: Path, *, policies: Path = POLICIES, port: int = 0, otlp_grpc: str = "") -> Iterator[Opa]:
    """A real OPA with the policies in `policies`, its data kept in `directory` (a second start finds it again)."""
    processes = Processes(directory)
    try:
        yield start_opa(processes, policies=policies, port=port, otlp_grpc=otlp_grpc)
    finally:
        processes.end()


def start_opa(processes: Processes, *, policies: Path = POLICIES, port: int = 0, otlp_grpc: str = "") -> Opa:
    """Start and wait until decisions can be had.  With `otlp_grpc` it sends its own spans there."""
    directory = processes.directory
    token_files = role_tokens(directory)
    address = f"127.0.0.1:{port or free_port()}"
    command: list[str | Path] = [
        find_or_build(OPA), "run", "--server", "--skip-version-check", "--addr", address, "--log-format", "json",
        "--authentication=token", "--authorization=basic", "--config-file", _config(directory, otlp_grpc),
        # Rego files only: a data file loaded here would be written at the root and wipe the grants on disk.
        *sorted(policies.rglob("*.rego")),
    ]  # fmt: skip
    running = processes.start("opa", command)
    started = Opa(f"http://{address}", token_files, directory, Path(running.log), running)
    wait_until(lambda: is_ready(started), running)
    return started


def role_tokens(directory: Path) -> dict[str, Path]:
    """A random token for each role, kept over restarts, and the bundle that tells OPA their hashes.

    A bundle owns its root alone (`tokens`): nobody can add a token over the API, and everything else stays on disk.
    """
    files = {role: directory / f"opa-{role}.token" for role in ROLES}
    entries = {}
    for role, file in files.items():
        if not file.exists():
            write_secret(file, secrets.token_urlsafe(32))
        entries[hashlib.sha256(file.read_bytes()).hexdigest()] = {"name": role, "role": role}
    bundle = directory / "opa-tokens"
    bundle.mkdir(exist_ok=True)
    revision = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:12]
    (bundle / ".manifest").write_text(json.dumps({"revision": revision, "roots": ["tokens"]}))
    (bundle / "data.json").write_text(json.dumps({"tokens": entries}))
    return files


def _config(directory: Path, otlp_grpc: str) -> Path:
    storage = {"directory": str(directory / "opa-data"), "auto_create": True, "partitions": list(PARTITIONS)}
    config: dict[str, object] = {
        "storage": {"disk": storage},
        "bundles": {"tokens": {"resource": f"file://{directory / 'opa-tokens'}"}},
        "decision_logs": {"console": True},
        "status": {"prometheus": True},
    }
    if otlp_grpc:
        address = otlp_grpc.removeprefix("http://")
        config["distributed_tracing"] = {"type": "grpc", "address": address, "sample_percentage": 100}
    file = directory / "opa.json"  # JSON is YAML
    file.write_text(json.dumps(config, indent=1))
    return file


def is_ready(started: Opa) -> bool:
    try:
        with started.client("gateway") as client:
            return client.get("/health", params={"bundles": "true"}).status_code == 200
    except httpx.TransportError:
        return False
