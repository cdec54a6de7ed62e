"""A gateway in this process, with the real OPA and the real agent as a child process, and agents that misbehave."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.packet import SSHPacket

from gateway.app import Gateway, gateway
from gateway.assets import agent_binary
from gateway.authn import Verifier
from gateway.backends import Order, ProtocolFactory, Workspace
from gateway.model import SessionId, WorkspaceSpec
from gateway.settings import Settings
from tests.e2e.world import grant_of, merged
from tests.fakes import ProcessBackend
from tests.reading import records
from tests.stack import example
from tests.stack.opa import Opa
from tests.waiting import SECONDS, until

ALICE, BOB = "alice", "bob"
FORWARD = {"host": "127.0.0.1", "port": 7}


def target(backend: str = "process", **changes: Any) -> dict[str, Any]:
    return merged(
        {
            "description": "A test's own",
            "backend": backend,
            "image": "none",
            "home": "/tmp",
            "limits": {"memory_bytes": 64 * 2**20, "cpus": 1.0, "pids": 64, "tmpfs_bytes": 2**20},
            "network": {"egress": []},
            "env": {"LANG": "C.UTF-8"},
            "credentials": [],
            "session": {
                "idle_seconds": 600, "max_seconds": 3600, "warn_seconds": 1, "max_channels": 20,
                "policy_grace_seconds": 30,
            },
            "max_grant_seconds": 8 * 3600,
            "ask": "#ask",
            "approvers": "the lead",
            "allow": {
                "shell": True, "exec": True, "sftp": True, "forwards": [FORWARD], "env": ["LANG", "LC_*"],
            },
        },
        changes,
    )  # fmt: skip


@dataclass
class Site:
    """A running gateway and what a test looks at."""

    gateway: Gateway
    opa: Opa
    directory: Path
    keys: dict[str, asyncssh.SSHKey]
    backend: ProcessBackend

    @property
    def port(self) -> int:
        return self.gateway.ssh[1]

    def connect(self, person: str = ALICE, **options: Any) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
        return asyncssh.connect("127.0.0.1", self.port, **self.options(person, **options))

    def options(self, person: str = ALICE, **options: Any) -> dict[str, Any]:
        return {
            "username": person, "client_keys": [self.keys[person]], "known_hosts": None, "config": [],
            "agent_path": None, **options,
        }  # fmt: skip

    def audit(self, event: str = "") -> list[dict[str, Any]]:
        return records(self.directory / "state" / "audit.jsonl", event)

    def front(self) -> dict[str, Any]:
        """What the operator sees of the door."""
        return self.gateway.front.describe()

    def gone(self, what: str) -> list[dict[str, Any]]:
        return [record for record in self.audit("gone") if record["of"] == what]

    async def nothing_left(self, seconds: float = SECONDS) -> None:
        """No session, no connection and no agent."""
        await until(lambda: not self.gateway.live.ids() and not agents(self.backend), seconds)
        await until(lambda: len(self.gone("connection")) == len(self.audit("accept")), seconds)


@asynccontextmanager
async def running(
    opa: Opa,
    directory: Path,
    *backends: Any,
    targets: dict[str, Any] | None = None,
    grant: bool = True,
    verifiers: Mapping[str, Verifier] | None = None,
    **changes: Any,
) -> AsyncIterator[Site]:
    """Alice has a grant on the first of `targets` (default: a plain one), Bob on a plain one."""
    keys = {person: asyncssh.generate_private_key("ssh-ed25519") for person in (ALICE, BOB)}
    public = {person: key.export_public_key().decode().strip() for person, key in keys.items()}
    opa.put("grants", {})
    example.load(opa, {"beside": target(), **(targets or {"plain": target()})}, public)
    first = next(iter(targets or {"plain": 0}))
    if grant:
        opa.put(f"grants/{ALICE}/g1", grant_of(target=first))
    opa.put(f"grants/{BOB}/g2", grant_of(target="beside"))
    backend = ProcessBackend(agent_binary())
    settings = merged(
        {
            "state_dir": directory / "state",
            "ssh": {"listen": "127.0.0.1:0", "drain_seconds": 0, **example.OPEN},
            "policy": {
                "url": opa.url, "token": {"file": opa.token_files["gateway"]}, "sweep_seconds": 0.2,
                "timeout_seconds": 2.5,
            },
        },
        changes,
    )  # fmt: skip
    async with gateway(Settings(**settings), more_backends=[backend, *backends], more_verifiers=verifiers) as started:
        yield Site(started, opa, directory, keys, backend)


# -- agents that misbehave -------------------------------------------------------------------------------------------

Script = Callable[["HostileConnection", "HostileChannel"], Awaitable[None]]


class HostileConnection(asyncssh.SSHServerConnection):
    """The agent's end of a workspace, as an SSH server that can send whatever it likes."""

    script: Script
    setup_answer: bool | bytes | None = True
    forwards: list[bytes]

    def _process_setup_at_doorward_global_request(self, packet: SSHPacket) -> None:
        if self.setup_answer is not None:
            if isinstance(self.setup_answer, bytes):
                self.send_packet(82, self.setup_answer)  # MSG_REQUEST_FAILURE with a payload
                self._global_request_queue.pop(0)
            else:
                self._report_global_response(self.setup_answer)


class HostileChannel(asyncssh.SSHServerSession[bytes]):
    def __init__(self, connection: HostileConnection) -> None:
        self.connection = connection
        self.received = bytearray()

    def connection_made(self, chan: Any) -> None:
        self.chan = chan
        chan.set_encoding(None)

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        return command != "refused"

    def subsystem_requested(self, subsystem: str) -> bool:
        self.subsystem = subsystem
        return True

    def pty_requested(self, *_: Any) -> bool:
        return True

    def session_started(self) -> None:
        self.connection.create_task(type(self.connection).script(self.connection, self))

    def data_received(self, data: bytes, datatype: Any) -> None:
        self.received += data

    def eof_received(self) -> bool:
        return True

    def request(self, name: bytes, payload: bytes = b"", want_reply: bool = False) -> None:
        """One channel request, whatever it is."""
        if self.chan._send_chan is not None:
            self.chan._send_request(name, payload, want_reply=want_reply)


class HostileBackend:
    """Workspaces whose agent is `script`, run for each program that is started."""

    name = "hostile"

    def __init__(self, script: Script, **attributes: Any) -> None:
        class Connection(HostileConnection):
            pass

        Connection.script = staticmethod(script)
        for name, value in attributes.items():
            setattr(Connection, name, value)
        self.connection_class = Connection
        self.connections: list[HostileConnection] = []
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.running = 0
        self.raw: Callable[[socket.socket], Awaitable[None]] | None = None

    def workspace(self, _order: Order) -> AbstractAsyncContextManager[Workspace]:
        return self._workspace()

    @asynccontextmanager
    async def _workspace(self) -> AsyncIterator[Workspace]:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.running += 1
        serving = asyncio.ensure_future(self._serve(theirs))
        workspace = HostileWorkspace(ours)
        try:
            yield workspace
        finally:
            serving.cancel()
            await asyncio.wait([serving])
            for connection in self.connections:
                connection.abort()
            theirs.close()
            workspace.end()
            self.running -= 1

    async def _serve(self, theirs: socket.socket) -> None:
        if self.raw is not None:
            await self.raw(theirs)
            await asyncio.get_running_loop().create_future()
        await asyncssh.run_server(theirs, server_factory=lambda: Owner(self), server_host_keys=[self.key], config=[])
        await asyncio.get_running_loop().create_future()

    async def reap(self, live: Collection[SessionId]) -> list[SessionId]:
        return []

    async def check(self, spec: WorkspaceSpec | None = None) -> None:
        return


class HostileWorkspace:
    id = "hostile"

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.Event()

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        self._ours.setblocking(False)
        self._transport, protocol = await asyncio.get_running_loop().create_connection(factory, sock=self._ours)
        return self._transport, protocol

    async def wait_gone(self) -> str:
        await self._gone.wait()
        return "gone"

    def end(self) -> None:
        self._gone.set()
        if self._transport is not None:
            self._transport.abort()
        else:
            self._ours.close()


class Owner(asyncssh.SSHServer):
    def __init__(self, backend: HostileBackend) -> None:
        self._backend = backend

    def connection_made(self, conn: Any) -> None:
        conn.__class__ = self._backend.connection_class
        self._connection = conn
        self._backend.connections.append(conn)

    def begin_auth(self, _username: str) -> bool:
        return False

    def session_requested(self) -> HostileChannel:
        return HostileChannel(self._connection)

    def connection_requested(self, *_: Any) -> bool:
        return False


# -- measures --------------------------------------------------------------------------------------------------------


def agents(backend: ProcessBackend) -> int:
    """How many agents run.  Their processes are asked: a cancelled exit may leave the fake's own list behind."""
    return sum(1 for one in backend._running.values() if one._process is not None and one._process.returncode is None)


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
