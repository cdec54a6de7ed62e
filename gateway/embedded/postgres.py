"""A real PostgreSQL of the gateway's own, with a sample database: for laptops, demos and tests.

It listens on loopback TCP only, wants SCRAM passwords, and ends with the gateway: on exit, when the gateway is killed
(fast shutdown: connections are cut, data is kept), or at the next start where both were killed at once.  As root it
runs under an unprivileged account, and reaches its data through an open descriptor, so that the state directory may
be below a folder that is root's alone.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import select
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from pydantic import SecretStr

from gateway.embedded.children import Account, Child, ChildUnavailable, Command, child, run_once, steady_port
from gateway.embedded.opa import write_secret
from gateway.embedded.postgres_sample import DATABASE, ISSUER, prepare
from gateway.embedded.wheel import wheel_tools

SUPERUSER = "postgres"
MINIMUM = 14
START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A running server with the database `orders` and the role that the embedded issuer connects as."""

    port: int
    superuser_file: Path
    issuer_file: Path
    """Connection strings with passwords, 0600.  The issuer's is what `credentials.embedded.dsn` names."""
    programs: Path
    child: Child = field(repr=False)
    host: str = "127.0.0.1"
    database: str = DATABASE

    def dsn(self) -> SecretStr:
        """The superuser's, for tests and set-up."""
        return SecretStr(self.superuser_file.read_text())

    def issuer_dsn(self) -> SecretStr:
        return SecretStr(self.issuer_file.read_text())


@asynccontextmanager
async def postgres(state_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    """Ready on enter, gone on exit and with the gateway.  Raises ChildUnavailable, with the server's last words."""
    folder = state_dir / "postgres"
    data = folder / "data"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    account = _account()
    programs = _programs(_version(data))
    password = _password(folder / "superuser.password")
    if not (data / "PG_VERSION").exists():
        await _initdb(folder, programs, account, password)
    with _reached(data, account) as (path, descriptors):
        port = steady_port(folder / "port")
        files = (folder / "superuser.dsn", folder / "issuer.dsn")
        issuer_password = _password(folder / "issuer.password")
        _write_dsn(files[0], SUPERUSER, password, port)
        _write_dsn(files[1], ISSUER, issuer_password, port)
        command = Command(
            "postgres", [str(programs / "postgres"), "-D", path, *_options(port)], folder / "postgres.log", account,
            descriptors, stop_signal=signal.SIGINT, death_signal=signal.SIGINT,
        )  # fmt: skip
        _end_orphan(data)
        async with child(command, _is_ready(password, port), seconds=START_SECONDS) as running:
            await prepare(_dsn(SUPERUSER, password, port, "postgres"), files[0].read_text(), issuer_password)
            yield EmbeddedPostgres(port, *files, programs, running)


def _options(port: int) -> list[str]:
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        "max_connections": "200",
        "shared_buffers": "16MB",
        "dynamic_shared_memory_type": "mmap",  # a small /dev/shm, as containers have, does no harm
    }
    return [word for name, value in options.items() for word in ("-c", f"{name}={value}")]


async def _initdb(folder: Path, programs: Path, account: Account | None, password: str) -> None:
    """Make the data folder under another name and give it its own at the end: half of one is never used."""
    fresh = folder / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    if account is not None:
        os.chown(fresh, account.uid, account.gid)
    secret = os.memfd_create("password")
    try:
        os.write(secret, password.encode())
        with _reached(fresh, account) as (path, descriptors):
            words = [
                str(programs / "initdb"), "-D", path, "-U", SUPERUSER, "--pwfile", f"/proc/self/fd/{secret}",
                "-A", "scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync",
            ]  # fmt: skip
            command = Command("initdb", words, folder / "initdb.log", account, (*descriptors, secret))
            await run_once(command, seconds=60)
    finally:
        os.close(secret)
    fresh.rename(folder / "data")


@contextmanager
def _reached(data: Path, account: Account | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The path by which the server's account reaches `data`, and the descriptors that takes."""
    if account is None:
        yield str(data), ()
        return
    descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)


def _is_ready(password: str, port: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        try:
            connection = await asyncpg.connect(_dsn(SUPERUSER, password, port, "postgres"), timeout=2)
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
            return False
        await connection.close()
        return True

    return check


def _end_orphan(data: Path) -> None:
    """End a server that outlived its gateway (both ends of the lifeline can be killed within one instant)."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        handle = os.pidfd_open(pid)
    except (OSError, ValueError):
        return
    try:
        # Looked at with the handle held: a process that works in this folder and is no other's.
        if os.path.samefile(f"/proc/{pid}/cwd", data):
            signal.pidfd_send_signal(handle, signal.SIGQUIT)
            _wait(handle)
    except OSError:
        return
    finally:
        os.close(handle)


def _wait(handle: int, seconds: float = 5.0) -> None:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.poll(seconds * 1000)


def _account() -> Account | None:
    """PostgreSQL refuses to run as root, and wants a name for its account."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise ChildUnavailable("no account for PostgreSQL", remedy="Add an account named `postgres`.")


def _version(data: Path) -> int | None:
    file = data / "PG_VERSION"
    return int(file.read_text()) if file.exists() else None


def _programs(version: int | None) -> Path:
    """The folder of postgres and initdb, of the data's major version if there is data: the system's, else a wheel's."""
    found = []
    on_path = shutil.which("postgres")
    system = [Path(on_path).resolve().parent] if on_path else []
    for folder in [*system, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *_wheel()]:
        major = _major(folder)
        if major is not None and major >= MINIMUM:
            found.append(major)
            if version in (None, major):
                return folder
    raise ChildUnavailable(
        f"PostgreSQL {version or ''} is not here (found: {sorted(set(found)) or 'none'})",
        remedy="Install the package `postgresql`, or move the folder `postgres` of the state directory away.",
    )


def _wheel() -> list[Path]:
    tools = wheel_tools()
    return [tools[0].parent / name / "bin" for name in ("pginstall", "pginstall18")] if tools else []


def _major(folder: Path) -> int | None:
    if not (folder / "initdb").exists():
        return None
    try:
        said = subprocess.run([folder / "postgres", "--version"], capture_output=True, timeout=5, text=True)
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.search(r"\s(\d+)", said.stdout)
    return int(number[1]) if number else None


def _password(file: Path) -> str:
    if not file.exists():
        write_secret(file, secrets.token_urlsafe(24))
    return file.read_text()


def _dsn(user: str, password: str, port: int, database: str) -> str:
    return f"postgresql://{user}:{password}@127.0.0.1:{port}/{database}"


def _write_dsn(file: Path, user: str, password: str, port: int) -> None:
    write_secret(file, _dsn(user, password, port, DATABASE))
