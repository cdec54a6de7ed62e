"""The first process of the node's own mount and PID namespace: one kill ends it and all that it started.

Run as a script by `unshare` (see `__init__.py`): etcd, containerd, the API server, the controller manager, the
scheduler and the kubelet, in the order in which they can start.  `node.py DIRECTORY`, with `commands.json` in it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PRIVATE = ("/run/netns", "/run/containerd", "/var/lib/kubelet", "/var/log/containers", "/var/lib/cni")
FIRST = ("containerd", "etcd", "kube-apiserver")
THEN = ("kube-controller-manager", "kube-scheduler", "kubelet")


class Node:
    """Starts the programs, and ends when one of them does."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._commands: dict[str, list[str]] = json.loads((directory / "commands.json").read_text())
        self._children: dict[int, str] = {}

    def run(self) -> None:
        self._mount()
        for name in FIRST:
            self._start(name)
        self._wait((self._directory / "ready").exists)  # written from outside when the API server answers
        for name in THEN:
            self._start(name)
        self._reap(0)

    def _mount(self) -> None:
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        for path in PRIVATE:
            os.makedirs(path, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)
        subprocess.run(["mount", "--make-rshared", "/"], check=True)

    def _start(self, name: str) -> None:
        with (self._directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                self._commands[name], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._children[process.pid] = name
        process.returncode = 0  # reaped below, with everybody else's orphans

    def _reap(self, flags: int = os.WNOHANG) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, flags)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._children:
                sys.exit(f"{self._children[pid]} ended ({status})")

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            if time.monotonic() > deadline:
                sys.exit("timed out")
            time.sleep(0.05)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    Node(Path(sys.argv[1])).run()
