"""A gateway with a crowd inside, for `bench/endings.py`: its own process, and real clients by the hundred.

Its workspaces are the real agent as a plain child process, one each: all of a session but the walls, which play no
part in an ending.  `python -m bench.crowd SETTINGS` is the gateway.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import httpx
import uvloop

from gateway import assets, logs
from gateway.app import gateway
from gateway.settings import load
from tests.fakes import ProcessBackend
from tests.policy.world import grant, in_minutes, populate
from tests.stack import StackError, example
from tests.stack.opa import Opa

GRANT = "INC-1"
TOKEN = "bench-token"
READY = b"ready\n"
ENDED = 254
SECONDS = 60
AT_ONCE = 4
KNOCKS = 5
SESSION = {"idle_seconds": 7200, "max_seconds": 7200, "warn_seconds": 60, "max_channels": 4, "policy_grace_seconds": 5}
WORKSPACE = {
    "backend": "process", "image": "none", "credentials": [], "network": {}, "home": "/tmp", "shell": "/bin/sh",
    "env": {},
}  # fmt: skip


class Engineer(asyncssh.SSHClientSession[bytes]):
    """One client's session: when it was ready, and when it was told that it is over."""

    def __init__(self, person: str) -> None:
        loop = asyncio.get_running_loop()
        self.person = person
        self.said = b""
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[float] = loop.create_future()
        """`time.perf_counter()` of the moment in which its exit status came."""
        self.connection: asyncssh.SSHClientConnection

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is not None:
            self.said += data
        elif data == READY and not self.ready.done():
            self.ready.set_result(None)

    def exit_status_received(self, status: int) -> None:
        if status == ENDED and not self.ended.done():
            self.ended.set_result(time.perf_counter())

    def connection_lost(self, error: Exception | None) -> None:
        for moment in (self.ready, self.ended):
            if not moment.done():
                moment.set_exception(StackError(f"{self.person}'s session is gone: {error or self.said.decode()}"))
                moment.exception()  # who waits for it sees it


@dataclass(frozen=True)
class Crowd:
    """The running gateway, OPA, and who is inside."""

    opa: httpx.AsyncClient
    door: httpx.AsyncClient
    admin: httpx.AsyncClient
    ssh: tuple[str, int]
    key: asyncssh.SSHKey
    inside: dict[str, Engineer]

    async def grow(self, number: int) -> None:
        """Until so many are inside."""
        missing = [f"person{index}" for index in range(number) if f"person{index}" not in self.inside]
        turn = asyncio.Semaphore(AT_ONCE)

        async def enter(person: str) -> None:
            async with turn:
                await self.enter(person)

        async with asyncio.TaskGroup() as tasks:
            for person in missing:
                tasks.create_task(enter(person))

    async def enter(self, person: str) -> Engineer:
        """With a grant of their own.  How fast one enters is not measured: a busy door is knocked at again."""
        value = grant(ends_at=in_minutes(180))
        (await self.opa.put(f"/v1/data/grants/{person}/{GRANT}", json=value)).raise_for_status()
        for _ in range(KNOCKS):
            try:
                self.inside[person] = await self._entered(person)
            except (asyncssh.Error, StackError) as error:
                print(f"{person} is not in yet: {error}", file=sys.stderr)
            else:
                return self.inside[person]
        raise StackError(f"{person} cannot enter")

    async def _entered(self, person: str) -> Engineer:
        host, port = self.ssh
        async with asyncio.timeout(SECONDS):
            connection = await asyncssh.connect(
                host, port, username=person, client_keys=[self.key], known_hosts=None, config=None, agent_path=None,
                kex_algs=["curve25519-sha256"], encryption_algs=["aes128-gcm@openssh.com"],
            )  # fmt: skip
            _, session = await connection.create_session(
                lambda: Engineer(person), "echo ready; exec cat", encoding=None
            )
            engineer: Any = session
            engineer.connection = connection
            await engineer.ready
        entered: Engineer = engineer
        return entered

    async def leave(self, engineer: Engineer) -> None:
        """Forget who has been ended."""
        self.inside.pop(engineer.person, None)
        engineer.connection.abort()
        await engineer.connection.wait_closed()


@asynccontextmanager
async def crowd(server: Opa, directory: Path) -> AsyncIterator[Crowd]:
    """The gateway in a process of its own, on `server`, with nobody inside yet."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    populate(server, session=SESSION, **WORKSPACE)
    server.put("people", {f"person{index}": {"keys": [_public(key)], "groups": ["oncall"]} for index in range(1000)})
    file = directory / "crowd.toml"
    file.write_text(example.settings_toml(_settings(server, directory)))
    _raise_limit()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.crowd", str(file),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=(directory / "crowd.log").open("w"),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            raise StackError(f"no gateway: {(directory / 'crowd.log').read_text()[-2000:]}")
        told: Mapping[str, Any] = json.loads(line)
        async with (
            _http(server.url, server.token("admin")) as opa,
            _http(_url(told["door"]), TOKEN) as door,
            _http(_url(told["admin"]), TOKEN) as admin,
        ):
            opened = Crowd(opa, door, admin, tuple(told["ssh"]), key, {})
            try:
                yield opened
            finally:
                for engineer in list(opened.inside.values()):
                    engineer.connection.abort()
    finally:
        process.terminate()
        await process.wait()


def _settings(server: Opa, directory: Path) -> dict[str, Any]:
    token = directory / "crowd.token"
    token.write_text(TOKEN)
    return {
        "state_dir": str(directory / "state"),
        "ssh": {"listen": "127.0.0.1:0", "drain_seconds": 0, "max_connections": 4000, **example.OPEN},
        "policy": {"url": server.url, "token": {"file": str(server.token_files["gateway"])}},
        "door": {
            "listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0",
            "clients": {"ticketing": {"token": {"file": str(token)}}},
        },
        "log_level": "warning",
    }  # fmt: skip


def _http(url: str, token: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=SECONDS)


def _url(address: list[Any]) -> str:
    return f"http://{address[0]}:{address[1]}"


def _public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


def _raise_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(file: Path) -> None:
    settings = load(file)
    logs.set_up(settings.log_level)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with gateway(settings, more_backends=[ProcessBackend(assets.agent_binary())]) as running:
        print(json.dumps({"ssh": running.ssh, "door": running.door, "admin": running.admin}), flush=True)
        await stop.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Path(sys.argv[1])))
