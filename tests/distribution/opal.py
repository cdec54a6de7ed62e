"""OPAL as backends/opal/ runs it: a server, and a client beside the copy, from pinned packages of its own."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from gateway.embedded.tools import cache, made_once, run_shown
from tests.stack import IN_THE_CLEAR
from tests.stack.opa import Opa
from tests.stack.process import Processes, Running, free_port, wait_until, write_secret

HERE = Path(__file__).parents[2] / "backends" / "opal"
PERIOD_SECONDS = 1
COMMAND = """#!/bin/sh
PYTHONPATH={packages} exec {python} -c 'from {module}.cli import cli; cli()' "$@"
"""


def packages() -> Path:
    """OPAL and what it needs, in a folder of the cache: they do not go together with ours.  Made once on a machine."""
    lock = HERE / "requirements.txt"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]

    def make(folder: Path) -> None:
        run_shown([*install, str(folder), "--require-hashes", "-r", str(lock)], "fetching OPAL (200 MB, once)")

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    return made_once(cache() / f"opal-py{version}-{digest}", make)


@dataclass
class Opal:
    """A server that tells of `source`, and the client that writes to `copy`; each can be ended and started again."""

    processes: Processes
    source: Opa
    copy: Opa
    usable_seconds: int
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def _folder(self) -> Path:
        return self.processes.directory

    def prepare(self) -> None:
        """Keys and tokens, as docs/distribution.md says to make them, and the commands."""
        for name in ("opal-server", "opal-client"):
            text = COMMAND.format(packages=packages(), python=sys.executable, module=name.replace("-", "_"))
            (self._folder / name).write_text(text)
            (self._folder / name).chmod(0o755)
        key, public = self._folder / "opal.key", self._folder / "opal.pem"
        for words in (
            ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", str(key)],
            ["pkey", "-in", str(key), "-pubout", "-out", str(public)],
        ):
            subprocess.run(["openssl", *words], check=True, capture_output=True)
        write_secret(self._folder / "master.token", secrets.token_urlsafe(32))

    def start_server(self) -> Running:
        """Start, and wait until it answers."""
        running = self._start(
            "server",
            SOURCE_URL=self.source.url,
            COPY_READER_TOKEN_FILE=self.source.token_files["copy_reader"],
            COPY_PERIOD_SECONDS=PERIOD_SECONDS,
            COPY_USABLE_SECONDS=self.usable_seconds,
            OPAL_AUTH_PRIVATE_KEY=self._folder / "opal.key",
            OPAL_AUTH_PUBLIC_KEY=self._folder / "opal.pem",
            OPAL_MASTER_TOKEN_FILE=self._folder / "master.token",
            OPAL_AUTH_JWKS_STATIC_DIR=self._folder / "jwks",
            OPAL_LEADER_LOCK_FILE_PATH=self._folder / "leader.lock",
            OPAL_SERVER_BIND_PORT=self.port,
        )
        wait_until(self._answers, running, seconds=90)
        return running

    def start_client(self) -> Running:
        """Start; that it copies shows at the copy."""
        token = self._folder / "client.token"
        if not token.exists():
            master = (self._folder / "master.token").read_text()
            words = [str(self._folder / "opal-client"), "obtain-token", master, "--server-url", self.url]
            obtained = subprocess.run(words, check=True, capture_output=True, text=True, cwd=self._folder)
            write_secret(token, obtained.stdout.strip())
        return self._start(
            "client",
            COPY_URL=self.copy.url,
            COPY_WRITER_TOKEN_FILE=self.copy.token_files["copy_writer"],
            OPAL_SERVER_URL=self.url,
            OPAL_CLIENT_TOKEN_FILE=token,
            OPAL_CLIENT_API_SERVER_PORT=free_port(),
        )

    def _start(self, name: str, **settings: object) -> Running:
        env = {setting: str(value) for setting, value in settings.items()}
        path = f"{self._folder}:{os.environ['PATH']}"
        return self.processes.start(f"opal-{name}", [HERE / f"{name}.sh"], env={**env, "PATH": path}, cwd=self._folder)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthcheck", verify=IN_THE_CLEAR).status_code == 200
        except httpx.TransportError:
            return False
