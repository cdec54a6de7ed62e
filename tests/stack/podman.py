"""Podman's Docker-compatible API: a `podman system service` of our own, with storage of its own, over runc."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stack import StackError
from tests.stack.docker import Docker, unmount
from tests.stack.process import Processes, wait_until

CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]  # Podman's own defaults need CAP_SYS_RESOURCE
[engine]
runtime = "runc"  # crun takes cgroup v1 and v2 only where they are not mixed
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@contextmanager
def podman(directory: Path) -> Iterator[Docker]:
    """An engine in `directory` that ends with this context; what it stored goes too."""
    binary = shutil.which("podman")
    if binary is None or os.geteuid() != 0:
        raise StackError("Podman needs root and the Debian package podman")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "containers.conf").write_text(CONF)
    sockets = Path(tempfile.mkdtemp(prefix="doorward-podman-", dir="/run"))  # conmon's sockets have long names
    places = ("--root", directory / "root", "--runroot", sockets / "run", "--tmpdir", sockets / "tmp")
    started = Docker(f"unix://{sockets}/podman.sock", is_ours=True)
    processes = Processes(directory)
    try:
        command = (binary, *places, "system", "service", "--time", "0", started.host)
        env = {"CONTAINERS_CONF": str(directory / "containers.conf")}
        wait_until(started.answers, processes.start("podman", command, env=env, cwd=directory))  # conmon leaves a file
        yield started
    finally:
        started.remove_workspaces()
        processes.end()
        unmount(directory, sockets)
        shutil.rmtree(directory / "root", ignore_errors=True)
        shutil.rmtree(sockets, ignore_errors=True)
