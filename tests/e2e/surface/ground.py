"""A gateway on one backend that many rows share: one start, one grant for each target, one connection to reuse."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from tests.e2e.surface.runtimes import ECHO, ECHO_PORT, MARK, TARGETS, HostRuntime, Runtime, processes_of
from tests.e2e.world import ALICE, Door, merged, until
from tests.stack import example
from tests.stack.opa import Opa
from tests.waiting import SECONDS

INSIDE = 18080
"""A port of the workspace's own loopback that may be forwarded to."""
NOBODY = 18081
"""The same, where nobody listens."""
FORCED = 'echo "forced: ${SSH_ORIGINAL_COMMAND-nothing}"; cat'


@dataclass(frozen=True)
class Place:
    """What a Door needs of a site, and no more: no Vault, no database."""

    directory: Path
    opa: Opa


class Ground(Door):
    """A running gateway whose workspaces are of one backend."""

    runtime: Runtime
    mark: str
    echo: tuple[str, int]
    """Where a service answers with what it read, backwards, after the half-close; as a workspace calls it."""
    late: subprocess.Popen[bytes]
    """A job whose output comes 65 s after its stdin ended; started with the gateway, so that rows need not wait."""

    @property
    def is_host(self) -> bool:
        return self.runtime.name == "sshproxy"

    @property
    def told_port(self) -> int:
        """The port of `SSH_CONNECTION`: a host's sshd tells of its own connection."""
        return self.runtime.server.port if isinstance(self.runtime, HostRuntime) else self.port

    @property
    def state(self) -> Path:
        return self.directory / "state"

    # -- the engineer ------------------------------------------------------------------------------------------------

    def connected(
        self, target: str = "plain", **options: Any
    ) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
        """asyncssh's client, where OpenSSH's cannot provoke the case."""
        key = str(self.site.directory / ALICE)
        return asyncssh.connect(
            "127.0.0.1", self.port, username=f"{ALICE}+{target}", client_keys=[key], known_hosts=None, config=[],
            agent_path=None, **options,
        )  # fmt: skip

    @contextmanager
    def master(self, target: str = "plain", *options: str) -> Iterator[Shared]:
        """A connection that many clients share (ControlMaster)."""
        path = Path("/tmp") / f"dw-mux-{uuid.uuid4().hex[:12]}"
        words = ("-M", "-N", "-S", str(path), *options)
        process = subprocess.Popen(self.ssh_command(options=words, login=f"{ALICE}+{target}"), stdin=subprocess.DEVNULL)
        try:
            until(lambda: path.exists() or process.poll() is not None)
            assert process.poll() is None, "the master ended"
            yield Shared(path, f"{ALICE}+{target}@127.0.0.1", process)
        finally:
            until(lambda: _told_to_end(process), 60)
            path.unlink(missing_ok=True)

    # -- what is left of it ------------------------------------------------------------------------------------------

    def workspaces(self, target: str = "plain") -> list[str]:
        return self.runtime.workspaces(f"{self.mark}-{target}")

    def nothing_left(self, seconds: float = SECONDS, target: str = "alone") -> None:
        """Neither a workspace nor any process of one, by this machine's own list of processes.

        A host's programs are its own: what is left of them is ended as its administrator would.
        """
        until(lambda: not self.workspaces(target), seconds)
        if self.is_host:
            for pid in processes_of(f"{self.mark}-{target}"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        until(lambda: not processes_of(f"{self.mark}-{target}"), seconds)


def _told_to_end(process: subprocess.Popen[bytes]) -> bool:
    """Told again and again: a signal that comes just before its poll() does not wake OpenSSH's client."""
    process.send_signal(signal.SIGTERM)
    return process.poll() is not None


@dataclass(frozen=True)
class Shared:
    """A connection that is open: each client takes a channel of it."""

    path: Path
    destination: str
    process: subprocess.Popen[bytes]

    @property
    def options(self) -> list[str]:
        return ["-F", "none", "-o", f"ControlPath={self.path}", "-o", "ControlMaster=no", "-o", "LogLevel=ERROR"]

    def command(self, *words: Any, options: Sequence[str] = ()) -> list[Any]:
        return ["ssh", *self.options, *options, self.destination, *words]

    def ssh(
        self, *words: Any, options: Sequence[str] = (), stdin: bytes | None = None, seconds: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        command = self.command(*words, options=options)
        return subprocess.run(command, capture_output=True, timeout=seconds, check=False, **given)

    def out(self, command: str, **options: Any) -> bytes:
        """What it said on stdout; it must succeed."""
        ran = self.ssh(command, **options)
        assert ran.returncode == 0, ran.stderr.decode()
        return ran.stdout


SESSION = {
    "idle_seconds": 600, "max_seconds": 3600, "warn_seconds": 60, "max_channels": 32, "policy_grace_seconds": 30,
}  # fmt: skip
ALONE = f"{ALICE}+alone"
ALLOW: dict[str, Any] = {
    "shell": True,
    "exec": True,
    "sftp": True,
    "forwards": [
        {"host": "127.0.0.1", "port": INSIDE}, {"host": "127.0.0.1", "port": NOBODY}, {"host": ECHO, "port": ECHO_PORT},
    ],
    "env": ["LANG", "LC_*", "GREETING", "FIXED"],
    "listen": [{"host": "localhost", "port": 0}, {"host": "localhost", "port": INSIDE}],
    "sockets": {"connect": ["/tmp/*"], "listen": ["/tmp/*"]},
    "agent": True,
    "x11": True,
}  # fmt: skip


CHANGES: dict[str, dict[str, Any]] = {
    "walled": {
        "allow": {"forwards": [], "listen": [], "sockets": {"connect": [], "listen": []}, "agent": False, "x11": False}
    },
    "files": {"allow": {"shell": False, "exec": False}},
    "forced": {"force_command": FORCED},
    "few": {"session": {"max_channels": 3}},
    "idle": {"session": {"idle_seconds": 3, "warn_seconds": 1.5}},
    "short": {"session": {"max_seconds": 3, "warn_seconds": 1.5}},
}


def targets(runtime: Runtime, mark: str, echo: int) -> dict[str, dict[str, Any]]:
    """By name: `plain`, `alone` for rows that count what is left, and what differs from it in one thing."""
    plain: dict[str, Any] = {
        "description": "Somewhere to try every behaviour",
        "backend": runtime.name,
        "env": {"LANG": "C.UTF-8", "FIXED": "by policy"},
        "session": SESSION,
        "max_grant_seconds": 8 * 3600,
        "ask": "#ask",
        "approvers": "the lead",
        "allow": {**ALLOW, "forwards": [*ALLOW["forwards"], {"host": "127.0.0.1", "port": echo}]},
    }
    if runtime.name != "sshproxy":
        plain["credentials"] = []
    found = {
        name: {**merged(plain, CHANGES.get(name, {})), **runtime.place(name, echo)} for name in TARGETS
    }  # fmt: skip
    for name, target in found.items():
        target["env"] = {**target["env"], MARK: f"{mark}-{name}"}
    return found


@contextmanager
def standing(
    runtime: Runtime, place: Place, directory: Path, echo: int, broken: Mapping[str, Any] | None = None, **changes: Any
) -> Iterator[Ground]:
    """A gateway with a grant for every target.  `broken`: by backend, what to change so that its runtime is down."""
    directory.mkdir(parents=True)
    ground = Ground(place, directory, f"{ALICE}+plain")
    ground.runtime, ground.mark = runtime, f"{runtime.name}-{os.getpid()}"
    ground.echo = ("127.0.0.1", echo) if ground.is_host else (ECHO, ECHO_PORT)
    for name, target in targets(runtime, ground.mark, echo).items():
        place.opa.put(f"targets/{name}", target)
    settings: dict[str, Any] = {
        "state_dir": str(directory / "state"),
        "instance": "surface",
        "ssh": {
            "listen": "127.0.0.1:0", "drain_seconds": 1, "penalties": {"exempt": ["127.0.0.0/8"]},
        },
        "policy": {"url": place.opa.url, "token": {"file": str(place.opa.token_files["gateway"])}},
        "door": {
            "listen": "127.0.0.1:0",
            "clients": {"ticketing": {"token": {"file": str(example.door_token(place.directory))}}},
        },
        "backends": {runtime.name: {**runtime.settings(), **(broken or {}).get(runtime.name, {})}},
    }  # fmt: skip
    ground.start(merged(settings, changes))
    try:
        for name in targets(runtime, ground.mark, echo):
            ground.grant(f"G-{name}", target=name)
        yield ground
    finally:
        ground.stop()
    assert "Traceback" not in ground.log.read_text(), ground.log.read_text()[-3000:]


@contextmanager
def reversing() -> Iterator[int]:
    """A TCP service that reads to the end, then answers with all of it backwards; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:  # shut down
            return
        threading.Thread(target=_reverse, args=(connection,), daemon=True).start()


def _reverse(connection: socket.socket) -> None:
    with connection:
        try:
            said = b"".join(iter(lambda: connection.recv(65536), b""))
            connection.sendall(said[::-1])
        except OSError:  # the other side has gone
            return


def connect(port: int) -> socket.socket:
    """To a local port, as soon as somebody listens there."""

    def attempt() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=15)
        except ConnectionRefusedError:
            return None

    connected: socket.socket = until(attempt)
    return connected


def ask(connection: socket.socket, said: bytes) -> bytes:
    """Say it, half-close, and read the answer to its end."""
    with connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))
