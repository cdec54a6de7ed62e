"""What is left in the gateway of a thousand logins: memory and descriptors."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

from bench.clients import wait_end
from bench.machine import resident
from bench.samples import Samples
from bench.stand import Stand
from bench.table import Row
from tests.stack import StackError

AT_ONCE = 4
STEPS = 10
GOAL = 2**20
"""Bytes, over the second half of the logins: what is kept of a login would be there of each."""


def growth(stand: Stand, logins: int) -> tuple[list[Row], dict[str, Samples]]:
    """Logins to the sandbox, some at once; memory is looked at ten times, when nobody is inside."""
    pid = stand.door.process.pid
    memory, descriptors = Samples(), Samples()
    for _ in range(STEPS):
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for done in [threads.submit(_log_in, stand) for _ in range(logins // STEPS)]:
                done.result()
        stand.settle()
        memory.add(resident(pid))
        descriptors.add(len(os.listdir(f"/proc/{pid}/fd")))
    half = len(memory.values) // 2
    grown = memory.values[-1] - min(memory.values[half - 1 : half + 1])
    shown = " ".join(f"{value / 2**20:.1f}" for value in memory.values)
    return [
        Row(f"gateway's memory (RSS) in the course of {logins} logins", f"{shown} MiB"),
        Row(
            "  growth over the second half of them",
            f"{grown / 2**20:+.2f} MiB",
            f"<= {GOAL / 2**20:g} MiB",
            grown <= GOAL,
        ),
        Row(
            "  descriptors, first and last",
            f"{descriptors.values[0]:.0f} and {descriptors.values[-1]:.0f}",
            "no more",
            descriptors.values[-1] <= descriptors.values[0],
        ),
    ], {"memory": memory, "descriptors": descriptors}


def _log_in(stand: Stand) -> None:
    with subprocess.Popen(stand.sandboxed.ssh("true"), stdin=subprocess.DEVNULL) as client:
        if status := wait_end(client):
            raise StackError(f"a login ended with status {status}")
