"""A real OPA of the gateway's own: for laptops, demos and tests.

Set up as in production: data on disk (grants outlive restarts), every request by token and judged by `system.authz`,
decision logs on.  Policies and token hashes are bundles, each the only owner of its roots: what was removed from the
policies is gone at the next start, nobody can add a token over the API, and everything else stays on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from pydantic import SecretStr

from gateway.embedded.children import Child, Command, child, run_once, steady_port

ROLES = ("gateway", "automation", "auditor", "admin")
PARTITIONS = ("/grants/*/*", "/approvals/*/*", "/reviews/*/*", "/people/*", "/targets/*", "/roster/*")
START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class EmbeddedOpa:
    """A running OPA and one token for each role (`ROLES`), each also in a file of its own (0600)."""

    url: str
    token_files: Mapping[str, Path]
    log_file: Path
    """JSON lines, the decision log among them.  Moved aside at a start when over 16 MiB; not bounded in between."""
    child: Child = field(repr=False)

    @property
    def token(self) -> SecretStr:
        """The gateway's own."""
        return self.token_of("gateway")

    def token_of(self, role: str) -> SecretStr:
        return SecretStr(self.token_files[role].read_text())


@asynccontextmanager
async def opa(binary: Path, policies: Path, state_dir: Path) -> AsyncIterator[EmbeddedOpa]:
    """Ready on enter, gone on exit and with the gateway.  Raises ChildUnavailable, with OPA's own last words.

    `policies` is a bundle's folder: its `.manifest` names the roots it owns.
    """
    folder = state_dir / "opa"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = _tokens(folder)
    _policies(policies, folder / "policies")
    # A bundle that does not compile is retried by a running OPA, in silence to us: look first.
    look = Command("opa check", [str(binary), "check", "--bundle", str(folder / "policies")], folder / "check.log")
    await run_once(look, seconds=START_SECONDS)
    port = steady_port(folder / "port")
    words = [
        str(binary), "run", "--server", "--skip-version-check", "--addr", f"127.0.0.1:{port}", "--log-format", "json",
        "--authentication=token", "--authorization=basic", "--shutdown-grace-period", "1",
        "--config-file", str(_config(folder)),
    ]  # fmt: skip
    command = Command("opa", words, folder / "opa.log")
    url = f"http://127.0.0.1:{port}"
    headers = {"authorization": f"Bearer {files['gateway'].read_text()}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=1)) as session:

        async def is_ready() -> bool:
            try:
                async with session.get(f"{url}/health", params={"bundles": "true"}) as response:
                    return response.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        async with child(command, is_ready, seconds=START_SECONDS) as running:
            yield EmbeddedOpa(url, files, command.log_file, running)


def _tokens(folder: Path) -> dict[str, Path]:
    """A random token for each role, kept over restarts, and the bundle that tells OPA their hashes."""
    files = {role: folder / f"{role}.token" for role in ROLES}
    entries = {}
    for role, file in files.items():
        if not file.exists():
            write_secret(file, secrets.token_urlsafe(32))
        entries[hashlib.sha256(file.read_bytes()).hexdigest()] = {"name": role, "role": role}
    bundle = folder / "tokens"
    bundle.mkdir(exist_ok=True)
    text = json.dumps({"tokens": entries}, sort_keys=True)
    (bundle / "data.json").write_text(text)
    revision = hashlib.sha256(text.encode()).hexdigest()[:12]
    (bundle / ".manifest").write_text(json.dumps({"revision": revision, "roots": ["tokens"]}))
    return files


def _policies(source: Path, bundle: Path) -> None:
    """A copy, so that what runs is what was there at the start, with the hash of its files as its revision."""
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.copytree(source, bundle)
    digest = hashlib.sha256()
    for file in sorted(path for path in bundle.rglob("*") if path.is_file()):
        text = file.read_bytes()
        digest.update(f"{file.relative_to(bundle)}\0{len(text)}\0".encode() + text)
    manifest = json.loads((bundle / ".manifest").read_text())
    (bundle / ".manifest").write_text(json.dumps({**manifest, "revision": digest.hexdigest()[:12]}))


def _config(folder: Path) -> Path:
    storage = {"directory": str(folder / "data"), "auto_create": True, "partitions": list(PARTITIONS)}
    bundles = {name: {"resource": f"file://{folder / name}"} for name in ("policies", "tokens")}
    file = folder / "config.json"  # JSON is YAML
    config = {
        "storage": {"disk": storage},
        "bundles": bundles,
        "decision_logs": {"console": True},
        "status": {"prometheus": True},
    }
    file.write_text(json.dumps(config))
    return file


def write_secret(file: Path, value: str) -> None:
    """Create `file` with mode 0600, whole or not at all."""
    temporary = file.with_name(file.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as stream:
        stream.write(value)
    temporary.rename(file)
