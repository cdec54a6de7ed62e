"""What every backend must do.

`StreamContract` is about starting, streaming and ending, and holds for the fake as well; `IsolationContract` is about
walls and limits.  A backend's tests inherit both and bring three fixtures:

    backend   the Backend, opened for one test
    order     an Order with `LIMITS`, `NETWORK` and `USER` below; the tests make others out of it
    runtime   a `Runtime` that asks and acts past the backend, at the runtime itself
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import ClassVar, Protocol

import asyncssh
import pytest
from asyncssh.packet import String

from gateway.backends import CREDENTIALS_DIR, Backend, HostWorkspace, Order, Workspace, hosts
from gateway.contracts.waiting import GONE_SECONDS, SECONDS
from gateway.model import Egress, Limits, Network, SessionId, WorkspaceUser

USER = WorkspaceUser()
LIMITS = Limits(memory_bytes=64 * 2**20, cpus=1.0, pids=64, tmpfs_bytes=8 * 2**20)
NETWORK = Network(egress=(Egress(host="orders-db", port=5432), Egress(host="stock-db.example", port=5432)))
REQUEST_SUCCESS = 81
_numbers = itertools.count(1)


class Runtime(Protocol):
    """The runtime, asked without the backend's help."""

    async def alive(self, session: SessionId) -> bool:
        """Whether anything is there of a session's workspace, running or not."""

    async def kill(self, session: SessionId) -> None:
        """End a session's workspace from outside, hard."""


def another(order: Order) -> Order:
    """The same for a session of its own."""
    session = SessionId(f"{order.holder.session}-{next(_numbers)}")
    return replace(order, holder=replace(order.holder, session=session))


@contextlib.asynccontextmanager
async def agent(workspace: Workspace) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """The agent, as the gateway speaks to it."""

    class Tunnel:
        async def create_connection(self, factory, _host, _port):  # type: ignore[no-untyped-def]
            return await workspace.create_connection(factory)

    plain = {"host": "agent", "username": "debug", "known_hosts": None, "client_keys": None, "agent_path": None}
    options = workspace.login.options if isinstance(workspace, HostWorkspace) else plain
    connection = await asyncssh.connect(tunnel=Tunnel(), config=None, **options)
    try:
        yield connection
    finally:
        connection.abort()
        await connection.wait_closed()


@contextlib.asynccontextmanager
async def inside(backend: Backend, order: Order) -> AsyncIterator[asyncssh.SSHClientConnection]:
    async with backend.workspace(order) as workspace, agent(workspace) as connection:
        yield connection


async def sh(connection: asyncssh.SSHClientConnection, command: str) -> tuple[str, int | None]:
    """Output of both kinds and exit status of a shell command."""
    done = await asyncio.wait_for(connection.run(command, stderr=asyncssh.STDOUT), SECONDS)
    return str(done.stdout).strip(), done.exit_status


class Line(asyncio.Protocol):
    """A client that only listens."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class StreamContract:
    """Starting, streaming, ending."""

    async def test_an_agent_answers_and_runs_commands(self, backend: Backend, order: Order) -> None:
        async with inside(backend, order) as connection:
            assert await sh(connection, "echo $((6 * 7)); exit 3") == ("42", 3)

    async def test_set_up_reaches_what_is_started_after_it(self, backend: Backend, order: Order) -> None:
        async with inside(backend, order) as connection:
            payload = String(json.dumps({"env": {"COLOUR": "blue"}}))
            kind, _ = await connection._make_global_request(b"setup@doorward", payload)
            assert kind == REQUEST_SUCCESS
            assert await sh(connection, "echo $COLOUR") == ("blue", 0)

    async def test_the_order_s_environment_is_there(self, backend: Backend, order: Order) -> None:
        spec = order.spec.model_copy(update={"env": {"GREETING": "hello there"}})
        async with inside(backend, replace(order, spec=spec)) as connection:
            said, _ = await sh(connection, 'echo "$GREETING $TRACEPARENT"')
        assert said == f"hello there {order.holder.traceparent}"

    async def test_64_megabytes_go_both_ways_unchanged(self, backend: Backend, order: Order) -> None:
        blob = os.urandom(2**20) * 64
        async with inside(backend, order) as connection, asyncio.timeout(60):
            done = await connection.run("cat", input=blob, encoding=None)
        assert isinstance(done.stdout, bytes)
        assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(blob).digest()

    @pytest.mark.parametrize("how", ["close", "abort", "write_eof"])
    async def test_the_end_of_the_stream_ends_the_workspace(
        self, backend: Backend, order: Order, runtime: Runtime, how: str
    ) -> None:
        async with backend.workspace(order) as workspace:
            transport, line = await workspace.create_connection(Line)
            assert await runtime.alive(order.holder.session)
            getattr(transport, how)()
            async with asyncio.timeout(SECONDS):
                assert (await workspace.wait_gone()).startswith("the workspace ")
                await line.lost.wait()  # type: ignore[attr-defined]
        assert not await runtime.alive(order.holder.session)

    async def test_killed_from_outside_everyone_is_told(self, backend: Backend, order: Order, runtime: Runtime) -> None:
        async with backend.workspace(order) as workspace:
            _, line = await workspace.create_connection(Line)
            gone = asyncio.ensure_future(workspace.wait_gone())
            await asyncio.wait([gone], timeout=0.05)
            assert not gone.done()
            await runtime.kill(order.holder.session)
            async with asyncio.timeout(SECONDS):
                assert "killed" in await gone
                await line.lost.wait()  # type: ignore[attr-defined]
        assert not await runtime.alive(order.holder.session)

    async def test_a_cancelled_wait_changes_nothing(self, backend: Backend, order: Order) -> None:
        async with backend.workspace(order) as workspace:
            gone = asyncio.ensure_future(workspace.wait_gone())
            await asyncio.wait([gone], timeout=0.05)
            gone.cancel()
            await asyncio.wait([gone])
            async with agent(workspace) as connection:
                assert await sh(connection, "echo on") == ("on", 0)

    async def test_leaving_ends_what_ignores_a_polite_end(
        self, backend: Backend, order: Order, runtime: Runtime
    ) -> None:
        async with backend.workspace(order) as workspace, agent(workspace) as connection:
            stubborn = await connection.create_process("trap '' TERM HUP; echo set; while :; do sleep 1; done")
            assert await stubborn.stdout.readline() == "set\n"
            left = time.monotonic()
        assert time.monotonic() - left < GONE_SECONDS
        assert not await runtime.alive(order.holder.session)
        async with asyncio.timeout(SECONDS):
            assert await workspace.wait_gone()

    async def test_leaving_twice_is_fine(self, backend: Backend, order: Order, runtime: Runtime) -> None:
        context = backend.workspace(order)
        await context.__aenter__()
        await context.__aexit__(None, None, None)
        await context.__aexit__(None, None, None)
        assert not await runtime.alive(order.holder.session)

    @pytest.mark.parametrize("milliseconds", [0, 3, 10, 20, 30, 50, 80, 120, 200])
    async def test_entering_cancelled_on_the_way_leaves_nothing(
        self, backend: Backend, order: Order, runtime: Runtime, milliseconds: int
    ) -> None:
        context = backend.workspace(order)
        entering = asyncio.ensure_future(context.__aenter__())
        await asyncio.wait([entering], timeout=milliseconds / 1000)
        entering.cancel()
        await asyncio.wait([entering])
        if not entering.cancelled():  # it was faster
            await context.__aexit__(None, None, None)
        assert not await runtime.alive(order.holder.session)

    async def test_leaving_cancelled_leaves_nothing(self, backend: Backend, order: Order, runtime: Runtime) -> None:
        context = backend.workspace(order)
        await context.__aenter__()
        leaving = asyncio.ensure_future(context.__aexit__(None, None, None))
        await asyncio.wait([leaving], timeout=0.005)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert not await runtime.alive(order.holder.session)

    async def test_two_at_once_are_separate(self, backend: Backend, order: Order, runtime: Runtime) -> None:
        first, second = another(order), another(order)
        async with inside(backend, first) as one:
            async with inside(backend, second) as two:
                assert await sh(two, "echo two") == ("two", 0)
            assert not await runtime.alive(second.holder.session)
            assert await sh(one, "echo one") == ("one", 0)

    async def test_reaping_removes_only_sessions_that_do_not_live(
        self, backend: Backend, order: Order, runtime: Runtime
    ) -> None:
        live, dead = another(order), another(order)
        async with inside(backend, live) as one, backend.workspace(dead):
            assert await backend.reap([live.holder.session]) == [dead.holder.session]
            assert not await runtime.alive(dead.holder.session)
            assert await sh(one, "echo here") == ("here", 0)
            assert await backend.reap([live.holder.session]) == []

    async def test_a_check_passes_where_a_workspace_can_start(self, backend: Backend, order: Order) -> None:
        await backend.check()
        await backend.check(order.spec)


class IsolationContract:
    """Walls and limits, seen from inside."""

    mount_options: ClassVar[set[str]] = {"nosuid", "nodev"}
    """Of the places to write."""

    async def test_it_runs_as_the_permit_s_user(self, backend: Backend, order: Order) -> None:
        async with inside(backend, order) as connection:
            assert await sh(connection, "id -u; id -g") == (f"{USER.uid}\n{USER.gid}", 0)

    async def test_it_has_no_privileges_and_can_gain_none(self, backend: Backend, order: Order) -> None:
        async with inside(backend, order) as connection:
            said, _ = await sh(connection, "cat /proc/self/status")
        status = dict(line.split(":", 1) for line in said.splitlines())
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert status["NoNewPrivs"].strip() == "1"
        assert status["Seccomp"].strip() == "2"

    @pytest.mark.parametrize("path", ["/", "/etc", "/usr", "/bin"])
    async def test_the_root_cannot_be_written(self, backend: Backend, order: Order, path: str) -> None:
        async with inside(backend, order) as connection:
            said, status = await sh(connection, f"echo x > {path}/doorward-was-here")
            assert status != 0, said
            said, _ = await sh(connection, "while read -r a b c; do case $b in /) echo $c;; esac; done < /proc/mounts")
        assert said

    @pytest.mark.parametrize("path", ["/tmp", CREDENTIALS_DIR, "$HOME"])
    async def test_the_places_to_write_are_there_and_in_memory(self, backend: Backend, order: Order, path: str) -> None:
        async with inside(backend, order) as connection:
            assert await sh(connection, f"echo x > {path}/a && cat {path}/a") == ("x", 0)
            said, _ = await sh(
                connection, f'while read -r a b c d; do [ "$b" = "{path}" ] && echo $c $d; done </proc/mounts'
            )
        assert said.startswith("tmpfs "), said
        assert self.mount_options <= set(said.split()[1].split(","))

    async def test_the_credentials_place_is_the_user_s_alone(self, backend: Backend, order: Order) -> None:
        async with inside(backend, order) as connection:
            assert await sh(connection, f"stat -c '%a %u %g' {CREDENTIALS_DIR}") == (f"700 {USER.uid} {USER.gid}", 0)

    async def test_what_is_written_is_limited(self, backend: Backend, order: Order) -> None:
        async with inside(backend, order) as connection:
            said, status = await sh(connection, f"head -c {LIMITS.tmpfs_bytes * 2} /dev/zero > /tmp/large")
        assert status != 0, said

    async def test_the_only_network_is_its_own_loopback(self, backend: Backend, order: Order) -> None:
        async with inside(backend, order) as connection:
            said, _ = await sh(connection, "cat /proc/net/dev")
        assert [line.split(":")[0].strip() for line in said.splitlines() if ":" in line] == ["lo"]

    async def test_the_permit_s_hosts_are_names_of_loopback_addresses(self, backend: Backend, order: Order) -> None:
        async with inside(backend, order) as connection:
            said, _ = await sh(connection, "cat /etc/hosts")
        names = {name: line.split()[0] for line in said.splitlines() if line for name in line.split()[1:]}
        assert {name: names.get(name) for name in hosts(order.spec)} == hosts(order.spec)

    async def test_processes_are_limited(self, backend: Backend, order: Order) -> None:
        bomb = "i=0; while [ $i -lt 300 ]; do sleep 20 >/dev/null 2>&1 & i=$((i+1)); echo started $i; done"
        started, limit = 0, order.spec.limits.pids
        async with inside(backend, order) as connection, asyncio.timeout(SECONDS):
            process = await connection.create_process(bomb, stderr=asyncssh.STDOUT)
            async for line in process.stdout:
                if "fork" in line:  # every shell names it when it may not; some then try again
                    break
                started += 1
            else:
                pytest.fail(f"{started} processes were started, and the limit is {limit}")
        assert 0 < started < limit, line

    async def test_memory_is_limited(self, backend: Backend, order: Order) -> None:
        async with backend.workspace(order) as workspace, agent(workspace) as connection:
            hog = connection.run("x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done")
            async with asyncio.timeout(SECONDS):
                try:
                    done = await hog
                except asyncssh.Error:  # the runtime may take the whole workspace
                    assert "memory" in await workspace.wait_gone()
                    return
            assert done.exit_signal
            assert done.exit_signal[0] == "KILL"
