"""MariaDB over loopback TCP with passwords, the database `stock`, and the user that Vault issues with."""

from __future__ import annotations

import os
import pwd
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

DATABASE = "stock"
ISSUER_SQL = Path(__file__).parents[2] / "secrets" / "vault" / "mariadb" / "issuer.sql"
SAMPLE = """
CREATE DATABASE stock;
CREATE TABLE stock.items (name VARCHAR(40) PRIMARY KEY, pieces INT NOT NULL);
INSERT INTO stock.items VALUES ('lamp', 12), ('desk', 0), ('chair', 7);
"""
USER = "mysql"


@dataclass(frozen=True, slots=True)
class MariaDb:
    """A running server."""

    port: int
    data: Path
    issuer_password_file: Path
    process: Running
    host: str = "127.0.0.1"

    def sql(self, statements: str) -> str:
        """Run as who may everything, over the server's own socket; the rows, one a line, columns separated by tabs."""
        user = unprivileged(USER)
        ran = subprocess.run(
            ["mysql", "--no-defaults", "-u", _superuser(), "-BN", "-S", self.data / "socket"],
            input=statements, text=True, capture_output=True, timeout=30, user=user, group=user,
            extra_groups=None if user is None else (),
        )  # fmt: skip
        if ran.returncode != 0:
            raise StackError(f"mysql: {ran.stderr.strip()}")
        return ran.stdout.strip()


@contextmanager
def mariadb(directory: Path, *, port: int = 0) -> Iterator[MariaDb]:
    """A fresh server, gone with all its data on exit."""
    processes = Processes(directory)
    data = Path(tempfile.mkdtemp(prefix="doorward-mariadb-"))  # the server's user cannot enter `directory`
    try:
        yield _started(processes, data, port or free_port())
    finally:
        processes.end()
        shutil.rmtree(data, ignore_errors=True)


def _started(processes: Processes, data: Path, port: int) -> MariaDb:
    user = unprivileged(USER)
    if user is not None:
        shutil.chown(data, user, user)
    _install(data, user)
    options = [
        f"--datadir={data}/files", f"--socket={data}/socket", f"--pid-file={data}/pid", "--bind-address=127.0.0.1",
        f"--port={port}", "--skip-name-resolve", "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0",
        "--innodb-buffer-pool-size=16M", "--general-log=0",
    ]  # fmt: skip
    running = processes.start("mariadb", [_program("mariadbd"), "--no-defaults", *options], user=user, cwd=data)
    password = write_secret(processes.directory / "mariadb-issuer.password", secrets.token_urlsafe(24))
    started = MariaDb(port, data, password, running)
    wait_until(lambda: _accepts(started), running)
    started.sql(SAMPLE)
    started.sql(f"SET @issuer_password = '{password.read_text()}';\n{ISSUER_SQL.read_text()}")
    return started


def _install(data: Path, user: str | None) -> None:
    command = [
        _program("mariadb-install-db"), "--no-defaults", f"--datadir={data}/files", "--skip-test-db",
        "--skip-name-resolve", "--auth-root-authentication-method=socket", f"--auth-root-socket-user={_superuser()}",
    ]  # fmt: skip
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=data, user=user, group=user,
        extra_groups=None if user is None else (),
    )  # fmt: skip
    if ran.returncode != 0:
        raise StackError(f"mariadb-install-db: {ran.stderr.strip()}")


def _superuser() -> str:
    """Whose account in the database opens to their account on the machine alone."""
    return unprivileged(USER) or pwd.getpwuid(os.geteuid()).pw_name


def _accepts(started: MariaDb) -> bool:
    try:
        return started.sql("SELECT 1") == "1"
    except StackError:
        return False


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") or name
