"""Where the numbers come from: without it they mean nothing."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.stand import Stand
from tests.stack import StackError
from tests.stack.tools import JAEGER, OPA, VAULT

LIBRARIES = ("asyncssh", "aiodocker", "aiohttp", "uvloop", "cryptography", "pydantic")
LOOK_SECONDS = 0.05


def facts(stand: Stand) -> dict[str, Any]:
    with stand.site.docker.client() as client:
        engine = client.get("/version").json()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "python": platform.python_version(),
        "openssh": subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.strip(),
        "docker": engine["Version"],
        "components": {part["Name"]: part["Version"] for part in engine.get("Components", [])},
        "postgres": stand.site.postgres.sql("show server_version"),
        "opa": OPA.version,
        "vault": VAULT.version,
        "jaeger": JAEGER.version,
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def load() -> float:
    """The load average of the last minute: what else the machine was busy with, and with us."""
    return round(os.getloadavg()[0], 2)


def described(found: dict[str, Any]) -> str:
    return (
        f"{found['cores']} cores ({found['processor']}), {found['memory_gib']} GiB, Linux {found['kernel']}, "
        f"{found['system']}; Python {found['python']}, {found['openssh']}, Docker {found['docker']}, "
        f"OPA {found['opa']}, Vault {found['vault']}, PostgreSQL {found['postgres']}, Jaeger {found['jaeger']}, "
        + ", ".join(f"{name} {number}" for name, number in found["libraries"].items())
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def resident(pid: int) -> float:
    """Bytes of memory that the process has now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) * 1024
    raise StackError(f"process {pid} has no memory")


@contextmanager
def grown_most(pid: int) -> Iterator[Callable[[], float]]:
    """How many bytes more than at the start the process had, at the most, looked at often."""
    before = most = resident(pid)
    over = threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(LOOK_SECONDS):
            most = max(most, resident(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: most - before
    finally:
        over.set()
        thread.join()
