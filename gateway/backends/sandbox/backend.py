"""The sandbox backend: workspaces on this machine by bubblewrap, without a container engine.

Each workspace has its own user, pid, mount, ipc, uts, cgroup and network namespace, a root that is always read-only, no
capability, no new privileges, and a seccomp filter; the agent is its PID 1.  A gateway that runs as root starts it
under the workspace's own unprivileged account.  One that does not can only start it under *its own*: inside, that
looks the same, but a process that broke out would be the gateway's user.  Where that matters run it as root, or use a
container engine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
import signal
import socket
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

from gateway.backends import TRIAL, Bindable, Order, ProtocolFactory
from gateway.backends.sandbox.limits import Limiter, LimitsRefused, find_limiter
from gateway.backends.sandbox.ports import needs_low_ports, open_low_ports
from gateway.backends.sandbox.process import Confined, SandboxFailure
from gateway.backends.sandbox.records import Records, end_orphans
from gateway.backends.sandbox.root import AGENT, HOST, Descriptors, filesystem, found_as, require_reachable, search_path
from gateway.backends.sandbox.seccomp import program
from gateway.concurrency import to_the_end
from gateway.errors import WorkspaceUnavailable
from gateway.model import Limits, SessionId, WorkspaceSpec, WorkspaceUser
from gateway.settings import SandboxSettings

T = TypeVar("T")
log = logging.getLogger(__name__)

END_SECONDS = 10.0
KILLED = 128 + signal.SIGKILL
CLOSED = "the workspace was closed"
_SYSCTLS = {  # the value that forbids what the sandbox needs
    "kernel/unprivileged_userns_clone": "0",
    "user/max_user_namespaces": "0",
    "kernel/apparmor_restrict_unprivileged_userns": "1",
}


class SandboxBackend:
    """Workspaces on this machine."""

    name = "sandbox"

    def __init__(
        self, settings: SandboxSettings, instance: str, agent: Path, state_dir: Path, limiter: Limiter | None = None
    ) -> None:
        """`limiter` absent: whatever this process may use (`find_limiter`)."""
        self.limiter = limiter or find_limiter()
        self.settings = settings
        self.agent = settings.agent or agent
        self.instance = instance
        self.records = Records(state_dir / "sandbox" / instance)

    def workspace(self, order: Order) -> AbstractAsyncContextManager[Bindable]:
        return _Sandbox(self, order)

    def made_of(self, spec: WorkspaceSpec) -> str:
        """Files and folders are bound as they are at the start: one that was replaced since is another one."""
        return "; ".join(found_as(path) for path in (self.agent, self.settings.roots.get(spec.image)) if path)

    async def reap(self, live: Collection[SessionId]) -> list[SessionId]:
        return await asyncio.to_thread(self._reap, live)

    def _reap(self, live: Collection[SessionId]) -> list[SessionId]:
        reaped = []
        for record in self.records.all():
            if record.session not in live and record.end() and self.limiter.remove(self.cgroup(record.owner)):
                self.records.remove(record.session)
                reaped.append(record.session)
        if count := end_orphans(AGENT):
            log.warning("sandbox_orphans_ended", extra={"count": count})
        return reaped

    async def check(self, spec: WorkspaceSpec | None = None) -> None:
        """Starts a workspace for real, and logs by what its limits are held."""
        log.info("sandbox_limits", extra={"in_force": self.limiter.describe()})
        spec = spec or WorkspaceSpec(
            backend=self.name, image=HOST, limits=Limits(memory_bytes=2**28, cpus=1, pids=32, tmpfs_bytes=2**20)
        )
        holder = replace(TRIAL, session=SessionId(f"check-{os.getpid()}"))
        async with self.workspace(Order(spec, holder, datetime.now(UTC))):
            pass

    def cgroup(self, session: SessionId) -> str:
        """That of what was started for `session`, whoever's it is by now."""
        return f"doorward-{self.instance}-{quote(session, safe='')}"

    def command(self, user: WorkspaceUser) -> list[str]:
        """The command that starts bubblewrap under the account that the workspace has on the outside."""
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise WorkspaceUnavailable(
                "the sandbox needs bubblewrap, which is not installed", remedy="Install the package `bubblewrap`."
            )
        return [*self.account(user), bwrap]

    def account(self, user: WorkspaceUser) -> list[str]:
        if os.geteuid() != 0:
            return []
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise WorkspaceUnavailable(
                "the sandbox needs setpriv, which is not installed", remedy="Install the package `util-linux`."
            )
        return [setpriv, f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--inh-caps=-all", "--"]

    def arguments(self, order: Order, descriptors: Descriptors) -> list[str]:
        """bubblewrap's arguments for `order`.  Raises WorkspaceUnavailable for a root, tool or agent it cannot use."""
        spec, user, tools = order.spec, order.spec.user, self.settings.tools
        root = self._root(spec)
        for tool in tools:
            require_reachable(tool, user, "the tools folder")
        if not self.agent.is_file():
            raise WorkspaceUnavailable(f"the agent {self.agent} is not there", remedy="Build or install the agent.")
        filter_code = program(pin_cores=self.limiter.pins_cores)
        if filter_code is None:
            raise WorkspaceUnavailable(f"the sandbox knows no system calls of {platform.machine()}")
        environment = {"PATH": search_path(tools), "HOME": spec.home, "USER": user.name, "LOGNAME": user.name}
        return [
            *("--unshare-all", "--unshare-user", "--disable-userns"),
            *("--die-with-parent", "--new-session", "--as-pid-1"),
            *("--uid", str(user.uid), "--gid", str(user.gid), "--cap-drop", "ALL"),
            *("--hostname", order.holder.target[:63], "--chdir", "/", "--clearenv"),
            *(word for pair in {**environment, **order.environment()}.items() for word in ("--setenv", *pair)),
            *filesystem(spec, root, tools, self.agent, descriptors),
            *("--seccomp", descriptors.of(filter_code)),
        ]

    def _root(self, spec: WorkspaceSpec) -> Path | None:
        if spec.image == HOST:
            return None
        if spec.image not in self.settings.roots:
            raise WorkspaceUnavailable(
                f"the sandbox has no root folder for the image {spec.image}",
                remedy="In the policy, name `host` or a key of backends.sandbox.roots.",
            )
        root = self.settings.roots[spec.image]
        require_reachable(root, spec.user, "the root folder")
        return root


class _Sandbox:
    """One workspace, and the context that it lives in."""

    def __init__(self, backend: SandboxBackend, order: Order) -> None:
        self.id = ""
        self._backend = backend
        self._order = order
        self._session = order.holder.session
        self._cgroup = backend.cgroup(self._session)
        self._confined: Confined | None = None
        self._stream: socket.socket | None = None
        self._transport: asyncio.Transport | None = None
        self._is_closed = False

    async def __aenter__(self) -> Bindable:
        try:
            await self._start()
        except BaseException as error:
            await self._end()
            if isinstance(error, SandboxFailure | TimeoutError):
                raise WorkspaceUnavailable("the sandbox could not be set up", remedy=_remedy(str(error))) from error
            if isinstance(error, LimitsRefused):
                raise WorkspaceUnavailable(f"the sandbox cannot apply a limit of the permit: {error}") from error
            if isinstance(error, OSError):
                raise WorkspaceUnavailable("the sandbox could not be started") from error
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _start(self) -> None:
        backend, user = self._backend, self._order.spec.user
        descriptors = Descriptors()
        self._stream, inside = socket.socketpair()
        try:
            arguments = backend.arguments(self._order, descriptors)
            command = backend.command(user)
            self._confined = confined = Confined.start(
                command, arguments, AGENT, stream=inside, descriptors=descriptors.numbers
            )
        finally:
            inside.close()
            descriptors.close()
        # Not cut short: killed before its inner half is known, bubblewrap would leave that behind, waiting for ever.
        await to_the_end(confined.wait_held())
        self.id = str(confined.pid)
        backend.records.add(self._session, confined.pid)
        # In a thread, since a write to cgroup.procs may wait for the kernel; bubblewrap builds the root meanwhile.
        limits = (confined.pid, self._order.spec.limits, self._cgroup, backend.account(user))
        try:
            await to_the_end(asyncio.to_thread(backend.limiter.apply, *limits))
        except LimitsRefused as error:
            raise (await confined.explain()) or error from error
        if needs_low_ports(self._order.spec):
            await to_the_end(asyncio.to_thread(open_low_ports, confined.pid))
        await confined.release()

    async def _end(self) -> None:
        """Kill first and without waiting, so that even a second cancellation leaves nothing that runs."""
        confined, self._confined = self._confined, None
        if confined is not None:
            confined.kill()
        if self._transport is not None:
            self._transport.abort()
        if self._stream is not None and self._transport is None:
            self._stream.close()
        self._is_closed = True
        if confined is not None:
            await to_the_end(self._clear(confined))

    async def _clear(self, confined: Confined) -> None:
        try:
            async with asyncio.timeout(END_SECONDS):
                await confined.wait_ended()
                if await asyncio.to_thread(self._backend.limiter.remove, self._cgroup):
                    self._backend.records.remove(self._session)
        except TimeoutError:
            log.exception("sandbox_not_ended", extra={"session": self._session, "pid": confined.pid})
        finally:
            confined.close()

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        stream, confined = self._stream, self._confined
        if stream is None or confined is None or confined.gone.is_set():
            raise WorkspaceUnavailable("the workspace has ended")
        self._stream = None
        loop = asyncio.get_running_loop()
        self._transport, protocol = await loop.create_unix_connection(factory, sock=stream)
        return self._transport, protocol

    async def bind(self, order: Order) -> None:
        before, session = self._session, order.holder.session
        if self._confined is None or self._confined.gone.is_set():
            raise WorkspaceUnavailable("the workspace has ended")
        try:
            record = self._backend.records.rebind(before, session)
        except (OSError, ValueError, TypeError) as error:
            raise WorkspaceUnavailable("the sandbox could not record whose the workspace is") from error
        self._session = session
        if (record.session, record.owner, record.pid) != (session, before, self._confined.pid):
            raise WorkspaceUnavailable("the sandbox's record does not say whose the workspace is")

    async def wait_gone(self) -> str:
        confined = self._confined
        if confined is None:
            return CLOSED
        status = await confined.wait_ended()
        if self._is_closed:
            return CLOSED
        if status != KILLED:
            return f"the workspace ended by itself with status {status}"
        if self._backend.limiter.ran_out(self._cgroup):
            return "the workspace ran out of memory and was ended"
        return "the workspace was killed from outside"


def _remedy(said: str) -> str:
    """What bubblewrap's refusal means on this machine."""
    forbidding = [
        f"{name.replace('/', '.')}={value}"
        for name, value in _SYSCTLS.items()
        if (file := Path("/proc/sys") / name).exists() and file.read_text().strip() == value
    ]
    if forbidding:
        return f"This machine forbids user namespaces: change the sysctl {', '.join(forbidding)}."
    if "Unknown option" in said:
        return "Install bubblewrap 0.8 or newer."
    if "namespace" in said or "uid map" in said or "Operation not permitted" in said:
        return "This machine forbids user namespaces (in a container: its seccomp profile does); allow them."
    return "Tell the platform team the session id: the log has what bubblewrap said."
