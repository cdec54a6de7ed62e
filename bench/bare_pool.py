"""The yardstick of warm starts: asyncssh on the same pool of the same backend, and nothing else.

No policy, no credentials, no record, no trace.  A connection's one command runs in a container of its own, ready
beforehand: `python -m bench.bare_pool ENGINE IMAGE SIZE HOST_KEY AUTHORIZED_KEYS`.  `ready?` says how many are.
Clients are acknowledged at once, as by Doorward: 40 ms that are no part of what is compared (`gateway/ssh/swift.py`).
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import asyncssh
import uvloop
from asyncssh.connection import SSHServerConnection

from gateway.assets import agent_binary, seccomp_profile
from gateway.backends import Order
from gateway.backends.docker.backend import DockerBackend
from gateway.concurrency import background
from gateway.metrics import UNMETERED
from gateway.model import Holder, Limits, SessionId, WorkspaceSpec
from gateway.pools import Pools
from gateway.pools.kinds import Kinds
from gateway.pools.pool import Pool
from gateway.settings import DockerSettings
from gateway.settings_pools import PoolSettings
from gateway.ssh.agent import connected
from gateway.ssh.swift import Prompt

LIMITS = Limits(memory_bytes=256 * 2**20, cpus=1, pids=128, tmpfs_bytes=2**24)


class _Connection(Prompt, SSHServerConnection):
    """asyncssh's own, but for the acknowledgements."""


async def run(pools: Pools, image: str, process: asyncssh.SSHServerProcess[bytes]) -> None:
    """One command: claim, pump, status, gone."""
    if process.command == "ready?":
        process.stdout.write(str(sum(kind["ready"] for kind in pools.describe()["docker"]["kinds"])).encode())
        process.exit(0)
        return
    spec = WorkspaceSpec(backend="docker", image=image, limits=LIMITS)
    holder = Holder(SessionId(secrets.token_hex(8)), "bench", "bench", "bench", "")
    order = Order(spec, holder, datetime.now(UTC) + timedelta(hours=1))
    async with pools.backends["docker"].workspace(order) as workspace, pools.connect(workspace) as agent:
        connection: asyncssh.SSHClientConnection = agent.connection  # type: ignore[attr-defined]
        inside = await connection.create_process(process.command or "sh", encoding=None)
        await process.redirect(inside.stdin, inside.stdout, inside.stderr)
        process.exit((await inside.wait()).exit_status or 0)
        process.close()  # the engineer does not wait for the container's end, here as in Doorward


async def serve(engine: str, image: str, size: str, host_key: str, authorized_keys: str) -> None:
    settings = PoolSettings(size=int(size))
    with tempfile.TemporaryDirectory() as state:
        kinds = Kinds(Path(state) / "pool.json", settings)
        async with DockerBackend.open(
            DockerSettings(url=engine), "bench-bare", agent_binary(), seccomp_profile()
        ) as backend:
            pool = Pool(backend, connected, settings, kinds, UNMETERED)
            pools = Pools({}, {"docker": pool}, connected)
            async with background(pool.keep()):
                options = await asyncssh.SSHServerConnectionOptions.construct(
                    None,
                    config=None,
                    server_host_keys=[host_key],
                    authorized_client_keys=authorized_keys,
                    process_factory=partial(run, pools, image),
                    encoding=None,
                )
                loop = asyncio.get_running_loop()
                server = await loop.create_server(lambda: _Connection(loop, options), "127.0.0.1", 0)
                print(f"ready on {server.sockets[0].getsockname()[1]}", flush=True)
                await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(*sys.argv[1:]))
