"""Redis over loopback TCP, where nobody is without a password, and the user that Vault issues with."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stack import StackError
from tests.stack.process import Processes, Running, free_port, unprivileged, wait_until, write_secret

ISSUER_RULES = Path(__file__).parents[2] / "secrets" / "vault" / "redis" / "issuer.rules"
USER = "redis"


@dataclass(frozen=True, slots=True)
class Redis:
    """A running server."""

    port: int
    password_file: Path
    issuer_password_file: Path
    process: Running
    tls_port: int = 0
    host: str = "127.0.0.1"

    def command(self, *words: str) -> str:
        """Run as the user `default`, who may everything; what redis-cli prints."""
        ran = subprocess.run(
            ["redis-cli", "-e", "-h", self.host, "-p", str(self.port), *words], text=True, capture_output=True,
            timeout=30, env={**os.environ, "REDISCLI_AUTH": self.password_file.read_text()},
        )  # fmt: skip
        if ran.returncode != 0:
            raise StackError(f"redis-cli: {ran.stderr.strip() or ran.stdout.strip()}")
        return ran.stdout.strip()


@contextmanager
def redis(directory: Path, *, port: int = 0, pair: tuple[Path, Path] | None = None) -> Iterator[Redis]:
    """A fresh server that keeps nothing on a disk.  `pair`: certificate and key, to speak TLS too, at another port."""
    processes = Processes(directory)
    folder = Path(tempfile.mkdtemp(prefix="doorward-redis-"))
    try:
        yield _started(processes, folder, port or free_port(), pair)
    finally:
        processes.end()
        shutil.rmtree(folder)


def _started(processes: Processes, folder: Path, port: int, pair: tuple[Path, Path] | None) -> Redis:
    user = unprivileged(USER)
    password = write_secret(processes.directory / "redis.password", secrets.token_urlsafe(24))
    issuer = write_secret(processes.directory / "redis-issuer.password", secrets.token_urlsafe(24))
    settings = f'bind 127.0.0.1\nport {port}\nsave ""\nappendonly no\nrequirepass {password.read_text()}\n'
    tls_port = 0
    if pair is not None:
        tls_port = free_port()
        copies = [Path(shutil.copy(file, folder)) for file in pair]
        settings += f"tls-port {tls_port}\ntls-cert-file {copies[0]}\ntls-key-file {copies[1]}\ntls-auth-clients no\n"
    file = write_secret(folder / "redis.conf", settings)
    if user is not None:
        shutil.chown(folder, user, user)
        for each in folder.iterdir():
            shutil.chown(each, user, user)
    running = processes.start("redis", ["redis-server", file], user=user, cwd=folder)
    started = Redis(port, password, issuer, running, tls_port)
    wait_until(lambda: _accepts(started), running)
    digest = hashlib.sha256(issuer.read_bytes()).hexdigest()
    started.command("ACL", "SETUSER", "doorward_issuer", "on", f"#{digest}", *ISSUER_RULES.read_text().split())
    started.command("SET", "stock:lamp", "12")
    return started


def _accepts(started: Redis) -> bool:
    try:
        return started.command("PING") == "PONG"
    except StackError:
        return False
