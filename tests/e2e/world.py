"""A whole site for a test: real parts, a gateway in a process of its own, and the stock OpenSSH client."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import httpx

from tests.reading import records
from tests.stack import IN_THE_CLEAR, example
from tests.stack.docker import Docker, docker
from tests.stack.images import Images, images
from tests.stack.jaeger import Jaeger, jaeger
from tests.stack.opa import Opa
from tests.stack.postgres import Postgres, postgres
from tests.stack.vault import Vault, vault
from tests.waiting import SECONDS

ALICE = "alice"
TARGET = example.TARGET


def until(condition: Callable[[], Any], seconds: float = SECONDS, every: float = 0.02) -> Any:
    """The first true value of `condition`; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(every)


def in_time(seconds: float, attempt: Callable[[], float]) -> None:
    """What `attempt` measures is less than that, at the best of three: machines that run tests are busy."""
    took: list[float] = []
    while not took or took[-1] >= seconds:
        assert len(took) < 3, f"took {took} s, and may take {seconds} s"
        took.append(attempt())


@dataclass(frozen=True)
class Site:
    """The parts that the tests of one run share."""

    opa: Opa
    postgres: Postgres
    vault: Vault
    docker: Docker
    images: Images
    jaeger: Jaeger
    directory: Path

    def target(self, **changes: Any) -> dict[str, Any]:
        """The example target; `changes` replace whole keys."""
        return {**example.orders_target(self.images.debug, self.postgres), **changes}

    def containers(self) -> list[str]:
        """Ids of all workspaces on the engine."""
        with self.docker.client() as client:
            query = {"all": "true", "filters": json.dumps({"label": ["doorward.session"]})}
            return [found["Id"] for found in client.get("/containers/json", params=query).json()]

    def roles(self) -> list[str]:
        """Database roles that Vault made and that still exist."""
        return self.postgres.sql("select rolname from pg_roles where rolname like 'v-%'").split()

    def backends_of(self, role: str) -> int:
        """How many database connections this role has open."""
        return int(self.postgres.sql(f"select count(*) from pg_stat_activity where usename = '{role}'"))

    def nothing_left(self, seconds: float = SECONDS) -> None:
        until(lambda: not self.containers() and not self.roles(), seconds)


@contextmanager
def standing_site(directory: Path, opa_server: Opa, engine_there: Docker | None = None) -> Iterator[Site]:
    """Everything but OPA, and the engine where there is one, started and ended with the context."""
    with (
        postgres(directory / "pg") as database,
        vault(directory / "vault", database) as issuer,
        nullcontext(engine_there) if engine_there else docker(directory / "docker") as engine,
        jaeger(directory / "jaeger") as traces,
    ):
        yield Site(opa_server, database, issuer, engine, images(engine), traces, directory)


def settings_of(site: Site, directory: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a gateway on the site's parts; `changes` are merged in."""
    settings: dict[str, Any] = {
        "state_dir": str(directory / "state"),
        "instance": "test",
        "ssh": {"listen": "127.0.0.1:0", "drain_seconds": 1, **example.OPEN},
        "policy": {
            "url": site.opa.url, "token": {"file": str(site.opa.token_files["gateway"])}, "lint_seconds": 1,
        },
        "door": {
            "listen": "127.0.0.1:0",
            "clients": {"ticketing": {"token": {"file": str(example.door_token(site.directory))}}},
        },
        "credentials": {"vault": {"url": site.vault.url, "token": {"file": str(site.vault.gateway_token_file)}}},
        "backends": {"docker": {"url": site.docker.host}},
        "telemetry": {"exporter": "otlp_http", "endpoint": site.jaeger.otlp_http},
    }  # fmt: skip
    return merged(settings, changes)


def merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {
        **tree,
        **{
            key: merged(tree[key], value) if isinstance(value, dict) and isinstance(tree.get(key), dict) else value
            for key, value in changes.items()
        },
    }


@dataclass
class Door:
    """A running gateway."""

    site: Ground
    directory: Path
    login: str = ALICE
    port: int = 0
    grants_port: int = 0
    process: subprocess.Popen[str] = field(init=False)
    log: Path = field(init=False)

    def start(self, settings: Mapping[str, Any]) -> None:
        (self.directory / "doorward.toml").write_text(example.settings_toml(settings))
        self.start_again()

    def start_again(self) -> None:
        """With the settings it had."""
        file = self.directory / "doorward.toml"
        self.log = self.directory / "gateway.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve", "--config", str(file)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                stdin=subprocess.DEVNULL,
            )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "grants door on" in line:
                self.grants_port = int(line.rpartition(":")[2])
            if "ready on" in line:
                self.port = int(line.rpartition(":")[2])
                return
        raise AssertionError(f"the gateway did not start:\n{self.log.read_text()}")

    def stop(self, number: int = signal.SIGTERM, seconds: float = 25) -> int:
        """Send a signal; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(seconds)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    # -- the engineer ---------------------------------------------------------------------------------------------

    def ssh_command(self, *words: str | bytes, options: Sequence[str] = (), login: str = "") -> list[Any]:
        return [
            "ssh", "-F", "none", "-i", str(self.site.directory / ALICE), "-p", str(self.port),
            *options, *self.client_options(), f"{login or self.login}@127.0.0.1", *words,
        ]  # fmt: skip

    def client_options(self) -> list[str]:
        return [
            "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=no",
            "-o", f"UserKnownHostsFile={self.directory}/known_hosts", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
        ]  # fmt: skip

    def ssh(
        self,
        *words: str | bytes,
        options: Sequence[str] = (),
        stdin: bytes | None = None,
        login: str = "",
        seconds: float = 60,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `ssh` to its end."""
        command = self.ssh_command(*words, options=options, login=login)
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(command, capture_output=True, timeout=seconds, check=False, **given)

    @contextmanager
    def terminal(self, *words: str, options: Sequence[str] = ("-tt",), login: str = "") -> Iterator[Terminal]:
        """`ssh` on a terminal of its own."""
        with Terminal.running(self.ssh_command(*words, options=options, login=login)) as terminal:
            yield terminal

    # -- ticketing automation ----------------------------------------------------------------------------------------

    def ticketing(self, method: str, path: str, value: Any = None, token: str | None = None) -> httpx.Response:
        secret = token if token is not None else example.door_token(self.site.directory).read_text()
        url = f"http://127.0.0.1:{self.grants_port}/v1/data/{path}"
        headers = {"authorization": f"Bearer {secret}"}
        return httpx.request(method, url, json=value, headers=headers, timeout=30, verify=IN_THE_CLEAR)

    def grant(self, grant: str = "INC-1", person: str = ALICE, **fields: Any) -> None:
        answer = self.ticketing("PUT", f"grants/{person}/{grant}", grant_of(**fields))
        assert answer.status_code == 204, answer.text

    def revoke(self, grant: str = "INC-1", person: str = ALICE) -> None:
        answer = self.ticketing("DELETE", f"grants/{person}/{grant}")
        assert answer.status_code == 204, answer.text

    # -- the operator ---------------------------------------------------------------------------------------------

    def doorward(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway", *words, "--config", str(self.directory / "doorward.toml")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def audit(self, event: str = "") -> list[dict[str, Any]]:
        return records(self.directory / "state" / "audit.jsonl", event)

    def sessions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.doorward("sessions", "--json").stdout)
        return found


def grant_of(**fields: Any) -> dict[str, Any]:
    """A grant for an hour from now."""
    now = datetime.now(UTC)
    return {
        "target": TARGET,
        "starts_at": moment(now - timedelta(minutes=1)),
        "ends_at": moment(now + timedelta(hours=1)),
        "reason": "orders are stuck",
        "approved_by": "erin",
        **fields,
    }


def moment(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")


def in_seconds(seconds: float) -> str:
    return moment(datetime.now(UTC) + timedelta(seconds=seconds))


class Ground(Protocol):
    """What a door stands on, as the engineer and the ticketing automation need it."""

    @property
    def directory(self) -> Path:
        """Where their keys and tokens are."""
        ...


class Terminal:
    """A program on a pseudo-terminal, as a person sees it."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self.screen = b""

    @classmethod
    @contextmanager
    def running(cls, command: Sequence[str], *, asked: bool = False) -> Iterator[Terminal]:
        """`asked`: it can be asked for passwords, for which programs open the terminal of their session."""
        master, slave = pty.openpty()
        if asked:
            # A session's first terminal that its leader opens is that one.
            command = ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(slave), *command]
        # A person's client ignores no signal, however this run was started (nohup, a background job).
        command = ["env", "--default-signal", *command]
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        try:
            yield cls(process, master)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            os.close(master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.process.pid, signal.SIGWINCH)

    def wait_for(self, text: str, seconds: float = SECONDS) -> str:
        """Read until `text` is on the screen; everything seen so far."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self.screen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} not seen in {seconds} s; the screen:\n{self.seen}"
            if not self._read(left):
                break
        assert text in self.seen, f"{text!r} not seen; the screen:\n{self.seen}"
        return self.seen

    def wait_end(self, seconds: float = SECONDS) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + seconds
        while self._read(max(0.0, deadline - time.monotonic())):
            assert time.monotonic() < deadline, f"still running; the screen:\n{self.seen}"
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    @property
    def seen(self) -> str:
        return self.screen.decode("utf-8", "replace")

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the other side is closed
            return False
        self.screen += data
        return bool(data)
