"""Two things at once: whatever meets, nothing is left running and nothing is unexplained."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from opentelemetry import trace

from gateway.assets import agent_binary
from gateway.audit.journal import Journal
from gateway.audit.log import AuditLog
from gateway.audit.writer import Writer
from gateway.backends import Bindable, Order
from gateway.errors import AuditUnavailable, DoorwardError, WorkspaceUnavailable
from gateway.policy import Policy
from gateway.ssh.raw import RawChannel
from gateway.ssh.server import Engineer
from gateway.telemetry import Step
from tests.fakes import ProcessBackend
from tests.ssh.openssh import answering
from tests.ssh.world import ALICE, BOB, Site, agents, descriptors, resident, running, target
from tests.stack.opa import Opa, opa
from tests.waiting import SECONDS, until


class Gated(ProcessBackend):
    """The process backend, stopped before and after entering and before leaving until the test says so."""

    name = "gated"

    def __init__(self, stop_at: str = "", error: BaseException | None = None) -> None:
        super().__init__(agent_binary())
        self.stop_at = stop_at
        self.error = error
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        self.inside = 0

    def workspace(self, order: Order) -> AbstractAsyncContextManager[Bindable]:
        return self._gated(order)

    async def _point(self, name: str) -> None:
        if name == self.stop_at:
            self.reached.set()
            if self.error is not None:
                raise self.error
            await self.go.wait()

    @asynccontextmanager
    async def _gated(self, order: Order) -> AsyncIterator[Bindable]:
        await self._point("before entering")
        async with super().workspace(order) as workspace:
            self.inside += 1
            try:
                await self._point("after entering")
                yield workspace
            finally:
                self.inside -= 1
        await self._point("after leaving")


@asynccontextmanager
async def gated(
    opa: Opa, directory: Path, stop_at: str = "", error: BaseException | None = None, **changes: Any
) -> AsyncIterator[tuple[Site, Gated]]:
    backend = Gated(stop_at, error)
    async with running(opa, directory, backend, targets={"slow": target("gated")}, **changes) as site:
        yield site, backend
        backend.go.set()
        await site.nothing_left()
        await until(lambda: not agents(backend) and not backend.inside)


class Resource:
    def __init__(self) -> None:
        self.held = 0

    @asynccontextmanager
    async def manager(self) -> AsyncIterator[str]:
        self.held += 1
        try:
            yield "it"
        finally:
            self.held -= 1


async def test_what_was_entered_but_could_not_be_recorded_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = Resource()
    async with AuditLog.open(tmp_path / "audit.jsonl") as audit:
        monkeypatch.setattr(Writer, "append", _no_space)
        journal = Journal(audit, trace.get_tracer("test"))
        with pytest.raises(AuditUnavailable):
            async with journal.held(Step.WORKSPACE, resource.manager()):
                pytest.fail("nothing is held without its record")
        assert resource.held == 0
        monkeypatch.undo()


async def test_what_was_entered_but_cancelled_while_being_recorded_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = Resource()
    recording = asyncio.Event()
    go = asyncio.Event()
    true_record = AuditLog.record

    async def slow(self: AuditLog, event: str, *what: Any) -> None:
        recording.set()
        if not go.is_set():
            await go.wait()
        await true_record(self, event, *what)

    async with AuditLog.open(tmp_path / "audit.jsonl") as audit:
        monkeypatch.setattr(AuditLog, "record", slow)
        journal = Journal(audit, trace.get_tracer("test"))

        async def hold() -> None:
            async with journal.held(Step.WORKSPACE, resource.manager()):
                pytest.fail("cancelled")

        holding = asyncio.ensure_future(hold())
        await asyncio.wait_for(recording.wait(), 60)
        assert resource.held == 1
        holding.cancel()
        go.set()
        await asyncio.wait([holding])
        assert resource.held == 0


def _no_space(*_: Any) -> Any:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("number", range(1, 12))
async def test_an_audit_log_that_fails_at_any_record_leaves_nothing_running(
    opa_server: Opa,
    tmp_path: Path,
    unexpected: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    for_ever: bool,
) -> None:
    counter = itertools.count(1)
    append = Writer.append

    def failing(self: Writer, records: Any) -> Any:
        at = next(counter)
        if at == number or (for_ever and at > number):
            _no_space()
        return append(self, records)

    async with gated(opa_server, tmp_path, audit={"grace_seconds": 0.1}) as (site, backend):
        monkeypatch.setattr(Writer, "append", failing)
        with contextlib.suppress(asyncssh.Error, OSError):
            async with site.connect(login_timeout=5) as connection:
                ran = await asyncio.wait_for(connection.run("echo ran"), SECONDS)
                assert ran.exit_status in (0, 254, None)
        await until(lambda: not site.gateway.live.ids() and not agents(backend))
        assert backend.inside == 0
        monkeypatch.undo()
        # What was not recorded cannot be counted: leave the accounting of `nothing_left` alone.
        site.audit = lambda event="": []  # type: ignore[method-assign]


STAGES = ["before entering", "after entering", "after leaving"]


@pytest.mark.parametrize("stage", STAGES)
async def test_an_engineer_who_leaves_at_any_stage_leaves_nothing(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], stage: str
) -> None:
    async with gated(opa_server, tmp_path, stage) as (site, backend), site.connect() as connection:
        running_now = asyncio.ensure_future(connection.run("true"))
        if stage != "after leaving":
            await backend.reached.wait()
        else:
            await running_now
        connection.abort()
        await asyncio.gather(running_now, return_exceptions=True)
        await backend.reached.wait()
        backend.go.set()
    gc.collect()


async def test_who_leaves_with_all_said_while_a_workspace_starts_is_no_fault_of_the_library(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As `ssh -R ... -o ExitOnForwardFailure=yes door true </dev/null` does, where the listener is refused."""
    async with gated(opa_server, tmp_path, "before entering") as (site, backend):
        client = await openssh(site, tmp_path, "-Tn")
        await backend.reached.wait()
        await until(lambda: any(isinstance(one, RawChannel) and one._recv_state == "eof_pending"
                                for one in gc.get_objects()))  # fmt: skip
        client.kill()
        await client.wait()
        await site.nothing_left()

    assert "connection_crashed" not in caplog.messages


async def test_a_grant_deleted_while_the_workspace_starts_starts_nothing(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    touched = tmp_path / "touched"
    async with gated(opa_server, tmp_path, "after entering") as (site, backend):
        async with site.connect() as connection:
            running_now = asyncio.ensure_future(connection.run(f"touch {touched}"))
            await backend.reached.wait()
            site.opa.delete(f"grants/{ALICE}/g1")
            ran = await asyncio.wait_for(running_now, SECONDS)  # the backend still hangs: nobody waits for it
        backend.go.set()
        assert ran.exit_status == 254
        assert "doorward: grant_deleted:" in str(ran.stderr)
        await site.nothing_left()
    assert not touched.exists()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("error", [RuntimeError("a bug"), WorkspaceUnavailable("not today")], ids=["bug", "refusal"])
async def test_a_backend_that_fails_harms_no_other_session_and_is_explained(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], stage: str, error: Exception
) -> None:
    async with gated(opa_server, tmp_path, stage, error) as (site, _):  # noqa: SIM117
        async with site.connect(BOB) as bob, site.connect() as alice:
            beside = await bob.create_process("cat")
            ran = await asyncio.wait_for(alice.run("true"), SECONDS)
            if stage == "after leaving":
                assert ran.exit_status == 0
            else:
                assert ran.exit_status == 254
                assert ("internal" if isinstance(error, RuntimeError) else "workspace_unavailable") in str(ran.stderr)
                assert "a bug" not in str(ran.stderr)
            alice.close()
            beside.stdin.write("here\n")
            assert await beside.stdout.readline() == "here\n"


async def test_revoked_left_and_stopped_at_once(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    async with running(opa_server, tmp_path) as site:
        connection = await asyncssh.connect("127.0.0.1", site.port, **site.options())
        process = await connection.create_process("echo up; sleep 60")
        assert await process.stdout.readline() == "up\n"
        backend = site.backend
        site.opa.delete(f"grants/{ALICE}/g1")
        await asyncio.gather(site.gateway.live.reevaluate(), asyncio.sleep(0))
        connection.abort()
    assert not agents(backend)
    assert len(site.gone("connection")) == 1
    assert len(site.gone("workspace")) == 1


async def test_three_hundred_logins_leave_no_trace(site: Site) -> None:
    async def login() -> None:
        async with site.connect() as connection:
            assert (await connection.run("exit 3")).exit_status == 3

    async def logins(count: int) -> tuple[int, int, int]:
        for _ in range(count // 10):
            await asyncio.gather(*(login() for _ in range(10)))
        await site.nothing_left()
        return descriptors(), len(asyncio.all_tasks()), resident()

    fds, tasks, memory = await logins(50)
    _, _, memory_after = await logins(250)
    assert memory_after - memory < 20 * 2**20
    # Some descriptors are kept-alive connections to OPA, as many as were needed at once.
    await until(lambda: descriptors() <= fds + 10 and len(asyncio.all_tasks()) <= tasks)


async def test_a_terminal_is_told_what_is_waited_for_and_a_script_is_not(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with gated(opa_server, tmp_path, "before entering") as (site, backend):
        terminal, script = await openssh(site, tmp_path, "-tt"), await openssh(site, tmp_path, "-T")
        assert terminal.stderr is not None
        line = await asyncio.wait_for(terminal.stderr.readline(), SECONDS)
        backend.go.set()
        said = await asyncio.wait_for(script.communicate(), SECONDS)
        await asyncio.wait_for(terminal.communicate(), SECONDS)
    assert b"waiting for your workspace" in line
    assert said == (b"up\n", b"")


async def test_who_waits_for_a_turn_is_told_so_and_comes_in(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    pools = {"gated": {"size": 0, "starts_at_once": 1}}
    async with gated(opa_server, tmp_path, "before entering", pools=pools) as (site, backend):
        first = await openssh(site, tmp_path, "-tt")
        assert first.stderr is not None
        assert b"your workspace, which is being started" in await asyncio.wait_for(first.stderr.readline(), 30)
        second = await openssh(site, tmp_path, "-tt")
        assert second.stderr is not None
        line = await asyncio.wait_for(second.stderr.readline(), 30)
        backend.go.set()
        for client in (first, second):
            said, _ = await asyncio.wait_for(client.communicate(), 30)
            assert b"up" in said
        waited = [record["waited_seconds"] for record in site.audit("workspace")]
    assert b"none is ready: 1 wait for one to be started, 1 at a time" in line
    assert waited[0] < 1 < waited[1]


async def test_beside_a_running_program_an_opa_that_is_gone_refuses_the_request_alone(
    tmp_path: Path, unexpected: list[Any]
) -> None:
    with opa(tmp_path / "own-opa") as server:
        async with running(server, tmp_path) as site, site.connect() as connection:
            program = await connection.create_process("echo up; read word; echo $word", term_type="xterm")
            await program.stdout.readuntil("up")
            server.process.end()
            program.change_terminal_size(100, 40)
            await until(lambda: [one for one in site.audit("request") if one["outcome"] == "failed"])
            program.stdin.write("on\n")
            await asyncio.wait_for(program.stdout.readuntil("on"), SECONDS)
            connection.abort()
            await site.nothing_left()


async def openssh(site: Site, directory: Path, terminal: str) -> asyncio.subprocess.Process:
    """The stock client, which shows what arrives before its program has started."""
    key = directory / "openssh-key"
    if not key.exists():
        key.touch(0o600)
        key.write_bytes(site.keys[ALICE].export_private_key())
    options = "IdentitiesOnly=yes StrictHostKeyChecking=no UserKnownHostsFile=/dev/null BatchMode=yes LogLevel=ERROR"
    words = [word for option in options.split() for word in ("-o", option)]
    return await asyncio.create_subprocess_exec(
        "ssh", "-F", "none", terminal, "-i", str(key), "-p", str(site.port), *words, f"{ALICE}@127.0.0.1", "echo up",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_channels_that_were_closed_do_not_count_for_those_that_come_with_their_close(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    """A close and the next open in one packet: asyncssh forgets the first a turn later."""
    single = target(session={"max_channels": 1})
    async with running(opa_server, tmp_path, targets={"single": single}) as site, site.connect() as connection:
        first = await connection.create_process("cat")
        send, held = connection._send, list[bytes]()
        connection._send = held.append  # type: ignore[method-assign, assignment]
        first.stdin.write_eof()
        send(b"".join(held))
        held.clear()
        await first.wait()  # the gateway has closed it; our own close is held
        closing = len(held)
        second = asyncio.ensure_future(connection.run("echo on"))
        await until(lambda: len(held) > closing > 0)
        del connection._send
        send(b"".join(held))
        ran = await second
        assert (ran.stdout, ran.stderr) == ("on\n", "")


@pytest.mark.parametrize("when", ["before", "while it is judged"])
@pytest.mark.parametrize("what", ["exec", "direct-tcpip"])
async def test_nothing_begins_once_the_end_was_told(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], monkeypatch: pytest.MonkeyPatch, what: str, when: str
) -> None:
    """The workspace is taken away a moment after; until then it would still do what is asked."""
    true_authorize, end = Policy.authorize, DoorwardError("over", code="ended_by_operator")

    async def ending(self: Policy, *args: Any) -> Any:
        answer = await true_authorize(self, *args)
        if args[3]["kind"] == what:
            engineer.end(end)
        return answer

    async with answering() as port:
        open_to = target(allow={"forwards": [{"host": "127.0.0.1", "port": port}]})
        async with running(opa_server, tmp_path, targets={"plain": open_to}) as site, site.connect() as connection:
            first = await connection.create_process("echo up; cat")
            assert await first.stdout.readline() == "up\n"
            [engineer] = [one for one in gc.get_objects() if type(one) is Engineer and not one.connection.is_lost]
            if when == "before":
                engineer.end(end)
            else:
                monkeypatch.setattr(Policy, "authorize", ending)
            if what == "exec":
                ran = await connection.run(f"touch {tmp_path}/made")
                assert "ended_by_operator" in str(ran.stderr)
                assert not (tmp_path / "made").exists()
            else:
                with pytest.raises(asyncssh.ChannelOpenError, match="ended_by_operator"):
                    await connection.open_connection("127.0.0.1", port)
