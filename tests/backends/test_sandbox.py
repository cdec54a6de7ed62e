"""The sandbox keeps the whole contract, by cgroups and without; and what is its own: this machine's files stay out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.assets import agent_binary
from gateway.backends import Backend, Order
from gateway.backends.sandbox.backend import SandboxBackend
from gateway.backends.sandbox.limits import CONTROLLERS, Limiter, find_limiter
from gateway.backends.sandbox.records import end_orphans, orphans
from gateway.backends.sandbox.root import AGENT, reachable
from gateway.contracts.backend import (
    LIMITS,
    NETWORK,
    USER,
    IsolationContract,
    Line,
    StreamContract,
    agent,
    inside,
    sh,
)
from gateway.embedded.wheel import wheel_tools
from gateway.errors import WorkspaceUnavailable
from gateway.model import Holder, SessionId, WorkspaceSpec
from gateway.settings import SandboxSettings
from tests.stack.require import require
from tests.waiting import eventually


class Machine:
    """This machine itself: what is left of a session, looked for past the backend."""

    def __init__(self, state_dir: Path, limiter: Limiter) -> None:
        self.state_dir = state_dir
        self.limiter = limiter

    def record(self, session: SessionId) -> Path:
        return self.state_dir / "sandbox" / "test" / f"{session}.json"

    def pid(self, session: SessionId) -> int:
        return int(json.loads(self.record(session).read_text())["pid"])

    async def alive(self, session: SessionId) -> bool:
        cgroups = [parent / f"doorward-test-{session}" for parent in self.limiter.parents.values()]
        return self.record(session).exists() or any(folder.exists() for folder in cgroups)

    async def kill(self, session: SessionId) -> None:
        os.kill(self.pid(session), signal.SIGKILL)


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


@pytest.fixture(params=["cgroup", "rlimit"])
def limiter(request: pytest.FixtureRequest) -> Limiter:
    require("bwrap")
    return by_cgroup() if request.param == "cgroup" else Limiter({}, 1)


def by_cgroup() -> Limiter:
    require("bwrap")
    found = find_limiter()
    if set(found.parents) != set(CONTROLLERS):
        pytest.skip(f"no cgroup can be made here: {found.describe()}")
    return found


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = children(os.getpid())
    yield
    assert children(os.getpid()) == before
    assert end_orphans(AGENT) == 0


@pytest.fixture
def runtime(state: Path, limiter: Limiter) -> Machine:
    return Machine(state, limiter)


@pytest.fixture
def backend(state: Path, limiter: Limiter) -> SandboxBackend:
    return SandboxBackend(SandboxSettings(), "test", agent_binary(), state, limiter)


@pytest.fixture
def order(request: pytest.FixtureRequest) -> Order:
    return order_for(hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12])


def order_for(session: str) -> Order:
    spec = WorkspaceSpec(backend="sandbox", image="host", user=USER, limits=LIMITS, network=NETWORK)
    holder = Holder(SessionId(session), "alice", "grant-1", "orders-db", f"00-{'1' * 32}-{'2' * 16}-01")
    return Order(spec, holder, datetime.now(UTC) + timedelta(hours=1))


def with_spec(order: Order, **changes: object) -> Order:
    return replace(order, spec=order.spec.model_copy(update=changes))


class SandboxContract(StreamContract, IsolationContract):
    async def test_processes_are_limited(self, backend: Backend, order: Order) -> None:
        """Through sh, which gives up; this machine's bash would wait and try again for half a minute."""
        bomb = "i=0; while [ $i -lt 300 ]; do sleep 20 & i=$((i+1)); echo started $i; done"
        async with inside(backend, order) as connection:
            said, status = await sh(connection, f"exec sh -c {shlex.quote(bomb)}")
        assert f"started {LIMITS.pids}" not in said.splitlines()
        assert status != 0, said


class TestSandboxByCgroup(SandboxContract):
    @pytest.fixture
    def limiter(self) -> Limiter:
        return by_cgroup()


class TestSandboxByRlimit(SandboxContract):
    @pytest.fixture
    def limiter(self) -> Limiter:
        require("bwrap")
        return Limiter({}, 1)

    async def test_memory_is_limited(self, backend: Backend, order: Order) -> None:
        """An rlimit refuses more, where a cgroup kills."""
        async with inside(backend, order) as connection:
            said, status = await sh(connection, "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done")
        assert status != 0
        assert "allocate" in said or "memory" in said.lower()


def refused(error: pytest.ExceptionInfo[WorkspaceUnavailable]) -> str:
    reason = error.value.reasons[0]
    return f"{reason.message} | {reason.remedy}"


async def test_the_agent_is_pid_1_and_holds_nothing_but_its_stream(
    backend: SandboxBackend, order: Order, runtime: Machine
) -> None:
    async with backend.workspace(order) as workspace:
        await workspace.create_connection(Line)
        pid = runtime.pid(order.holder.session)
        assert await eventually(is_running_the_agent(pid))
        held = {os.readlink(entry).split(":")[0] for entry in Path(f"/proc/{pid}/fd").iterdir()}
        numbers = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:"))
    assert next(numbers).split()[-1] == "1"
    assert held <= {"socket", "pipe", "anon_inode"}


def is_running_the_agent(pid: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/run/doorward-agent")

    return check


async def test_on_the_outside_it_is_an_unprivileged_account_too(
    backend: SandboxBackend, order: Order, runtime: Machine
) -> None:
    async with backend.workspace(order):
        owner = Path(f"/proc/{runtime.pid(order.holder.session)}").stat()
        mapping = Path(f"/proc/{runtime.pid(order.holder.session)}/uid_map").read_text().split()
    expected = USER.uid if os.geteuid() == 0 else os.geteuid()
    assert mapping == [str(USER.uid), str(expected), "1"]
    assert owner


async def test_this_machine_s_own_files_are_not_there(backend: SandboxBackend, order: Order) -> None:
    async with inside(backend, order) as connection:
        for path in ("/root", "/var", "/sys", "/boot", "/etc/shadow", "/etc/ssh", "/etc/ssl/private", str(Path.home())):
            assert (await sh(connection, f"ls -d {path}"))[1] != 0, path
        said, _ = await sh(connection, "ls /home /run; cut -d: -f1 /etc/passwd")
    assert said.split() == ["/home:", "debug", "/run:", "doorward", "doorward-agent", "debug", "nobody"]


async def test_terminals_work(backend: SandboxBackend, order: Order) -> None:
    async with inside(backend, order) as connection:
        done = await connection.run("tty; stty size", term_type="xterm", term_size=(91, 33))
    assert str(done.stdout).split() == ["/dev/pts/0", "33", "91"]


@pytest.mark.parametrize("call", ["unshare -U true", "unshare -m true", "unshare -n true", "chroot / true"])
async def test_no_namespace_can_be_made_inside(backend: SandboxBackend, order: Order, call: str) -> None:
    async with inside(backend, order) as connection:
        said, status = await sh(connection, call)
    assert status != 0
    assert "not permitted" in said or "Permission denied" in said


async def test_without_a_cgroup_a_workspace_cannot_leave_its_cores(state: Path, order: Order) -> None:
    require("bwrap", "taskset")
    backend = SandboxBackend(SandboxSettings(), "test", agent_binary(), state, Limiter({}, 1))
    async with inside(backend, order) as connection:
        assert await sh(connection, "nproc") == ("1", 0)
        said, status = await sh(connection, "taskset -c 0-63 true")
    assert status != 0, said


async def test_it_does_not_outlive_a_gateway_that_is_killed(state: Path, limiter: Limiter, order: Order) -> None:
    script = f"""
import asyncio, sys
from pathlib import Path
from tests.backends.test_sandbox import *
async def main():
    limiter = find_limiter() if {bool(limiter.parents)} else Limiter({{}}, 1)
    backend = SandboxBackend(SandboxSettings(), "test", agent_binary(), Path({str(state)!r}), limiter)
    async with backend.workspace(order_for({order.holder.session!r})) as workspace:
        await workspace.create_connection(Line)
        print("up", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    gateway = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert gateway.stdout is not None
    assert await gateway.stdout.readline() == b"up\n"
    runtime = Machine(state, limiter)
    pid = runtime.pid(order.holder.session)
    gateway.kill()
    await gateway.wait()

    async def is_dead() -> bool:
        return not Path(f"/proc/{pid}").exists()

    assert await eventually(is_dead)
    later = SandboxBackend(SandboxSettings(), "test", agent_binary(), state, limiter)
    assert await later.reap([]) == [order.holder.session]
    assert not await runtime.alive(order.holder.session)


async def test_an_inner_bubblewrap_that_nobody_lets_go_on_is_reaped(state: Path) -> None:
    """Made as it happens: the outer one is killed in the instant after it has told of the inner one."""
    backend = SandboxBackend(SandboxSettings(), "test", agent_binary(), state, Limiter({}, 1))
    left = 0
    for _ in range(200):
        told, telling = os.pipe()
        outer = subprocess.Popen(
            ["bwrap", "--unshare-user", "--unshare-pid", "--info-fd", str(telling), "--ro-bind", "/", "/", "--", AGENT],
            pass_fds=[telling], stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(telling)
        os.read(told, 1)
        outer.kill()
        outer.wait()
        os.close(told)
        handles = orphans(AGENT)
        left = len(handles)
        for handle in handles:
            os.close(handle)
        if left:
            break
    else:
        pytest.skip("bubblewrap was never caught in that instant")
    await backend.reap([])
    assert await eventually(has_no_orphans)


async def has_no_orphans() -> bool:
    return end_orphans(AGENT) == 0


async def test_a_recycled_pid_is_left_alone(backend: SandboxBackend, order: Order, runtime: Machine) -> None:
    bystander = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        record = runtime.record(order.holder.session)
        record.parent.mkdir(parents=True)
        session = order.holder.session
        record.write_text(json.dumps({"session": session, "pid": bystander.pid, "started": "another boot:1"}))

        assert await backend.reap([]) == [session]
        assert bystander.returncode is None
        assert Path(f"/proc/{bystander.pid}/status").read_text().count("State:\tZ") == 0
    finally:
        bystander.kill()
        await bystander.wait()


async def test_extra_tools_come_first_on_the_path(state: Path, limiter: Limiter, order: Order) -> None:
    tools = state / "tools"
    (tools / "bin").mkdir(parents=True)
    state.chmod(0o755)
    (tools / "bin" / "psql").write_text("#!/bin/sh\necho ours\n")
    (tools / "bin" / "psql").chmod(0o755)
    backend = SandboxBackend(SandboxSettings(tools=(tools,)), "test", agent_binary(), state, limiter)
    async with inside(backend, order) as connection:
        assert await sh(connection, "psql") == ("ours", 0)
        assert (await sh(connection, f"touch {tools}/x"))[1] != 0


async def test_the_wheel_s_psql_runs_inside(state: Path, limiter: Limiter, order: Order) -> None:
    """Its libraries are found beside it, so both folders are tools."""
    tools = wheel_tools()
    if not all(reachable(tool, USER) for tool in tools):
        pytest.skip("the wheel is where the workspace's account cannot read")
    backend = SandboxBackend(SandboxSettings(tools=tools), "test", agent_binary(), state, limiter)
    async with inside(backend, order) as connection:
        said, status = await sh(connection, "command -v psql && psql --version")
    assert status == 0
    assert said.startswith(f"{tools[0]}/bin/psql")


async def test_a_tool_that_the_account_cannot_read_is_named(state: Path, limiter: Limiter, order: Order) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: the account is our own")
    tools = state / "tools"
    tools.mkdir()
    state.chmod(0o700)
    backend = SandboxBackend(SandboxSettings(tools=(tools,)), "test", agent_binary(), state, limiter)
    with pytest.raises(WorkspaceUnavailable) as caught:
        await backend.workspace(order).__aenter__()
    assert str(tools) in refused(caught)
    assert "o+x" in refused(caught)


async def test_a_root_folder_is_the_image_of_its_name(state: Path, limiter: Limiter, order: Order) -> None:
    busybox = next((path for path in (Path("/bin/busybox"), Path("/usr/bin/busybox")) if path.exists()), None)
    if busybox is None:
        pytest.skip("no busybox here")
    root = state / "root"
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc" / "shadow").write_text("root:secret")
    (root / "etc" / "motd").write_text("hello")
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in ("sh", "cat", "ls", "id"):
        (root / "bin" / name).symlink_to("busybox")
    state.chmod(0o755)
    backend = SandboxBackend(SandboxSettings(roots={"small": root}), "test", agent_binary(), state, limiter)
    async with inside(backend, with_spec(order, image="small")) as connection:
        assert await sh(connection, "cat /etc/motd; id -un") == ("hellodebug", 0)
        assert (await sh(connection, "cat /etc/shadow"))[1] != 0
        assert (await sh(connection, "ls /usr"))[1] != 0
    assert limiter


async def test_an_image_without_a_root_is_refused(backend: SandboxBackend, order: Order) -> None:
    with pytest.raises(WorkspaceUnavailable) as caught:
        await backend.check(with_spec(order, image="nowhere").spec)
    assert "backends.sandbox.roots" in refused(caught)


async def test_a_limit_that_cannot_be_applied_is_named_and_nothing_starts(
    state: Path, order: Order, limiter: Limiter
) -> None:
    broken = Limiter({**limiter.parents, "pids": state / "no-such-cgroup"}, 1)
    backend = SandboxBackend(SandboxSettings(), "test", agent_binary(), state, broken)
    with pytest.raises(WorkspaceUnavailable) as caught:
        await backend.workspace(order).__aenter__()
    assert "limit" in refused(caught)
    assert "no-such-cgroup" in refused(caught)
    assert not await Machine(state, broken).alive(order.holder.session)


async def test_without_bubblewrap_the_package_is_named(
    backend: SandboxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(WorkspaceUnavailable) as caught:
        await backend.check()
    assert "`bubblewrap`" in refused(caught)


async def test_a_root_that_cannot_be_built_is_said(backend: SandboxBackend, order: Order) -> None:
    with pytest.raises(WorkspaceUnavailable) as caught:
        await backend.workspace(with_spec(order, home="/usr/share/no-such-home")).__aenter__()
    assert "could not be set up" in refused(caught)


async def test_twenty_at_once(backend: SandboxBackend, order: Order) -> None:
    async def one(number: int) -> str:
        own = replace(order, holder=replace(order.holder, session=SessionId(f"{order.holder.session}-m{number}")))
        async with backend.workspace(own) as workspace, agent(workspace) as connection:
            return (await sh(connection, f"echo {number}"))[0]

    assert await asyncio.gather(*map(one, range(20))) == [str(number) for number in range(20)]
