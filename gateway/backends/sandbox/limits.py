"""Memory, processes and cpu of one sandboxed workspace: a cgroup where this process may make one, else rlimits.

What stands without a cgroup (`Limiter.describe` says it, and `check` logs it): processes are still counted for the
workspace as a whole, since each has a user namespace of its own.  Memory is limited for each process, not their sum
(the file systems in memory have sizes of their own), and by what the agent's own runtime maps more.  Cpu is a number of
whole cores, rounded up, and a seccomp rule keeps the workspace on them.
"""

from __future__ import annotations

import logging
import math
import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.model import Limits

log = logging.getLogger(__name__)

CONTROLLERS = ("memory", "pids", "cpu")
PERIOD_MICROSECONDS = 100_000
REMOVE_SECONDS = 2.0
AGENT_BYTES = 128 * 2**20
"""What RLIMIT_DATA must leave the agent, which everything else inherits it from: Go maps its heap 64 MiB at a time."""


class LimitsRefused(Exception):
    """A limit could not be applied; the message says which."""


@dataclass(frozen=True, slots=True)
class Limiter:
    """`parents`: for each controller that may be used, the folder to make a cgroup in."""

    parents: Mapping[str, Path]
    version: int

    def describe(self) -> str:
        """Which mechanism holds each limit, in one sentence."""
        without = {
            "memory": "memory by RLIMIT_DATA, for each process by itself",
            "pids": "pids by RLIMIT_NPROC in a user namespace",
            "cpu": "cpu by whole cores",
        }
        words = [f"{name} by cgroup v{self.version}" if name in self.parents else without[name] for name in CONTROLLERS]
        return "; ".join(words)

    @property
    def pins_cores(self) -> bool:
        return "cpu" not in self.parents

    def apply(self, pid: int, limits: Limits, name: str, prefix: Sequence[str]) -> None:
        """Put `pid`, which has not started anything yet, under all `limits`.  Blocks for some milliseconds.

        `prefix` is the command that acts as the workspace's account.  Raises LimitsRefused.
        """
        for folder in self._folders(name):
            _attempt(f"a cgroup of its own in {folder.parent}", folder.mkdir)
        for controller in CONTROLLERS:
            if controller in self.parents:
                folder = self.parents[controller] / name
                for file, value in self._values(controller, limits).items():
                    _attempt(f"{controller} = {value}", _writer(folder / file, value))
        for folder in self._folders(name):
            _attempt(f"the cgroup {folder}", _writer(folder / "cgroup.procs", str(pid)))
        self._without_cgroup(pid, limits, prefix)

    def ran_out(self, name: str) -> bool:
        """Whether the kernel has killed something of this workspace for want of memory."""
        file = {1: "memory.oom_control", 2: "memory.events"}[self.version]
        try:
            lines = (self.parents["memory"] / name / file).read_text().splitlines()
        except (KeyError, OSError):
            return False
        return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in lines)

    def remove(self, name: str) -> bool:
        """Remove the cgroups of a workspace that has ended.  Blocks; false (and logged) when one would not go."""
        deadline = time.monotonic() + REMOVE_SECONDS
        gone = True
        for folder in self._folders(name):
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError as error:  # busy until the kernel has let go of the last dead process
                    if time.monotonic() > deadline:
                        log.error("sandbox_cgroup_not_removed", extra={"cgroup": str(folder), "reason": str(error)})
                        gone = False
                        break
                    time.sleep(0.005)
        return gone

    def _folders(self, name: str) -> list[Path]:
        return sorted({parent / name for parent in self.parents.values()})

    def _values(self, controller: str, limits: Limits) -> dict[str, str]:
        quota = max(1000, int(limits.cpus * PERIOD_MICROSECONDS))
        if controller == "pids":
            return {"pids.max": str(limits.pids)}
        if self.version == 2:
            return {
                "memory": {"memory.max": str(limits.memory_bytes), "memory.swap.max": "0"},
                "cpu": {"cpu.max": f"{quota} {PERIOD_MICROSECONDS}"},
            }[controller]
        return {
            "memory": {"memory.limit_in_bytes": str(limits.memory_bytes), "memory.swappiness": "0"},
            "cpu": {"cpu.cfs_period_us": str(PERIOD_MICROSECONDS), "cpu.cfs_quota_us": str(quota)},
        }[controller]

    def _without_cgroup(self, pid: int, limits: Limits, prefix: Sequence[str]) -> None:
        values = {}
        if "memory" not in self.parents:
            values["data"] = (resource.RLIMIT_DATA, limits.memory_bytes + AGENT_BYTES)
        if "pids" not in self.parents:
            values["nproc"] = (resource.RLIMIT_NPROC, limits.pids)
        if values and prefix:
            # Another account's process takes its limits from that account; root may lack CAP_SYS_RESOURCE.
            words = [f"--{name}={value}:{value}" for name, (_, value) in values.items()]
            command = [*prefix, "prlimit", "--pid", str(pid), *words]
            _attempt("memory and pids by rlimit", lambda: _run(command))
        else:
            for number, value in values.values():
                _attempt("memory and pids by rlimit", partial(resource.prlimit, pid, number, (value, value)))
        if self.pins_cores:
            cores = sorted(os.sched_getaffinity(0))[: math.ceil(limits.cpus)]
            _attempt("cpus by core", lambda: os.sched_setaffinity(pid, cores))


def find_limiter() -> Limiter:
    """What this process may use, found by trying: below its own cgroup, or beside it where that is delegated."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for line in (line for line in lines if line[1] == ""):
        for mount in mounts:
            if _kind(mount) == "cgroup2":
                parents = _unified(_place(mount, line[2]))
                if parents:
                    return Limiter(parents, 2)
    found = {}
    for _, names, path in lines:
        for controller in set(names.split(",")) & set(CONTROLLERS):
            for mount in mounts:
                if _kind(mount) == "cgroup" and controller in mount[-1].split(","):
                    place = _place(mount, path)
                    if _may_make(place):
                        found[controller] = place
    return Limiter(found, 1)


def _unified(own: Path) -> dict[str, Path]:
    # A cgroup that holds processes cannot hand controllers to children, so a delegated service keeps the gateway in a
    # leaf (systemd: Delegate=yes, DelegateSubgroup=gateway) and the workspaces go beside it.
    for parent in (own.parent, own):
        control = parent / "cgroup.subtree_control"
        try:
            if not set(CONTROLLERS) & set((parent / "cgroup.controllers").read_text().split()):
                continue
            missing = set(CONTROLLERS) - set(control.read_text().split())
            if missing:
                control.write_text(" ".join(f"+{name}" for name in sorted(missing)))
        except OSError:
            continue
        if _may_make(parent):
            return dict.fromkeys(CONTROLLERS, parent)
    return {}


def _kind(mount: Sequence[str]) -> str:
    return mount[mount.index("-") + 1]


def _place(mount: Sequence[str], path: str) -> Path:
    """Where the cgroup `path` is found below a mount that may show only a part of the hierarchy."""
    root, point = mount[3], Path(mount[4])
    return point / path.removeprefix(root if root != "/" else "").lstrip("/")


def _may_make(parent: Path) -> bool:
    probe = parent / f"doorward-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _writer(file: Path, value: str) -> Callable[[], object]:
    return lambda: file.write_text(value)


def _run(command: Sequence[str]) -> None:
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    subprocess.run(command, check=True, capture_output=True, timeout=5, env=environment)


def _attempt(what: str, action: Callable[[], object]) -> None:
    try:
        action()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise LimitsRefused(f"{what}: {error}") from error
