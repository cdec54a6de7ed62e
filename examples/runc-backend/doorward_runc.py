"""Workspaces by runc alone: an OCI bundle each, on this machine, by a gateway that runs as root."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from gateway import assets
from gateway.backends import CREDENTIALS_DIR, Order, ProtocolFactory, Workspace, hosts
from gateway.concurrency import to_the_end
from gateway.errors import WorkspaceUnavailable
from gateway.model import SessionId, WorkspaceSpec
from gateway.plugins import Place
from gateway.sections import Section

PATH = "/usr/local/bin:/usr/bin:/bin"
SAFE = ["nosuid", "nodev"]
END_SECONDS = 3.0
KILLED = 137


class RuncSettings(Section):
    roots: dict[str, Path]  # image name to root folder


class Runc:
    name = "runc"
    Settings = RuncSettings

    def __init__(self, settings: RuncSettings, place: Place) -> None:
        self._roots, self._place = settings.roots, place

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: RuncSettings, place: Place) -> AsyncIterator[Runc]:
        yield cls(settings, place)

    @asynccontextmanager
    async def workspace(self, order: Order) -> AsyncIterator[Workspace]:
        container = Container(self._place.state / order.holder.session)
        config = bundle(order, self._root(order.spec), self._place.agent, container.folder)
        try:
            await to_the_end(container.start(config, order))
            yield container
        finally:
            await to_the_end(container.end())

    async def reap(self, live: Collection[SessionId]) -> list[SessionId]:
        dead = [folder for folder in self._place.state.iterdir() if folder.name not in live]
        for folder in dead:
            await remove(folder)
        return [SessionId(folder.name) for folder in dead]

    async def check(self, spec: WorkspaceSpec | None = None) -> None:
        if shutil.which("runc") is None:
            raise WorkspaceUnavailable("runc is not installed", remedy="Install the package `runc`.")
        if spec:
            self._root(spec)

    def _root(self, spec: WorkspaceSpec) -> Path:
        root = self._roots.get(spec.image)
        if root is None or not root.is_dir():
            raise WorkspaceUnavailable(
                f"runc has no root folder for the image {spec.image}", remedy="Name one in backends.runc.roots."
            )
        return root


class Container:
    """One workspace.  The agent's stdin and stdout are one end of a socket pair; the other is the transport."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.id = folder, folder.name
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._transport: asyncio.Transport | None = None
        self._runc: asyncio.subprocess.Process | None = None

    async def start(self, config: dict[str, Any], order: Order) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "config.json").write_text(json.dumps(config))
        names = "".join(f"{address} {name}\n" for name, address in hosts(order.spec).items())
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        started = self.folder / "pid"
        with self._theirs as pipe, TemporaryFile() as said:
            run = ("runc", "run", "--bundle", str(self.folder), "--pid-file", str(started), self.id)
            self._runc = await asyncio.create_subprocess_exec(
                *run, stdin=pipe.fileno(), stdout=pipe.fileno(), stderr=said
            )
            ended = asyncio.ensure_future(self._runc.wait())
            while not started.exists():
                if (await asyncio.wait([ended], timeout=0.005))[0]:
                    said.seek(0)
                    reason = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                    raise WorkspaceUnavailable("runc could not start the workspace", remedy=reason)

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        self._transport, protocol = await asyncio.get_running_loop().create_connection(factory, sock=self._ours)
        return self._transport, protocol

    async def wait_gone(self) -> str:
        status = await self._runc.wait() if self._runc else 0
        return "the workspace was killed" if status == KILLED else f"the workspace ended with status {status}"

    async def end(self) -> None:
        self._transport.abort() if self._transport else self._ours.close()
        if self._runc:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._runc.wait()), END_SECONDS)
        await remove(self.folder)
        if self._runc:
            await self._runc.wait()


async def remove(folder: Path) -> None:
    quiet = asyncio.subprocess.DEVNULL
    delete = await asyncio.create_subprocess_exec("runc", "delete", "--force", folder.name, stdout=quiet, stderr=quiet)
    await delete.wait()
    shutil.rmtree(folder, ignore_errors=True)


def bundle(order: Order, root: Path, agent: Path, folder: Path) -> dict[str, Any]:
    """The OCI runtime configuration (runtime-spec 1.0, config.md) of a workspace."""
    spec, limits = order.spec, order.spec.limits
    own = [*SAFE, f"size={limits.tmpfs_bytes}", f"uid={spec.user.uid}", f"gid={spec.user.gid}", "mode=0700"]
    environment = {"PATH": PATH, "HOME": spec.home, **order.environment()}
    profile = json.loads(assets.seccomp_profile().read_text())["syscalls"]
    calls = [{key: call[key] for key in call.keys() & {"names", "action", "args"}} for call in profile]

    def mount(kind: str, place: str, options: list[str], source: str = "none") -> dict[str, Any]:
        return {"type": kind, "source": source, "destination": place, "options": options}

    return {
        "ociVersion": "1.0.2",
        "hostname": order.holder.target[:63],
        "root": {"path": str(root.resolve()), "readonly": spec.read_only},
        "process": {
            "args": ["/run/agent"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": {},
            "env": [f"{name}={value}" for name, value in environment.items()],
            "user": {"uid": spec.user.uid, "gid": spec.user.gid},
        },
        "mounts": [
            mount("proc", "/proc", [*SAFE, "noexec"]),
            mount("tmpfs", "/dev", ["nosuid", "mode=755", "size=65536"]),
            mount("devpts", "/dev/pts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("tmpfs", "/run", [*SAFE, "mode=755", "size=65536"]),
            mount("bind", "/run/agent", ["bind", "ro", *SAFE], str(agent)),
            mount("bind", "/etc/hosts", ["bind", "ro", *SAFE, "noexec"], str(folder / "hosts")),
            *(mount("tmpfs", place, own) for place in ("/tmp", spec.home, CREDENTIALS_DIR)),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "cgroupsPath": f"/doorward-runc-{folder.name}",
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "resources": {
                "devices": [{"allow": False, "access": "rwm"}],
                "memory": {"limit": limits.memory_bytes, "swap": limits.memory_bytes},
                "cpu": {"quota": round(limits.cpus * 100_000), "period": 100_000},
                "pids": {"limit": limits.pids},
            },
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": calls},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }
