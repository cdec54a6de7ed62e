"""A stand-in for a network plugin that enforces the rule against all traffic: the bridge plugin enforces none.

Every pod's port of the bridge is kept from every other, and the node takes nothing from the bridge.  What a rule would
let through is not let through either, so this stands for `deny all` and nothing else.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stack.cluster.files import BRIDGE

PORTS = Path("/sys/class/net") / BRIDGE / "brif"
FROM_PODS = ["INPUT", "-i", BRIDGE, "-j", "DROP"]
SECONDS = 0.01


class Enforcement:
    """On from its start; `lifted` while a test wants a cluster that enforces nothing."""

    def __init__(self) -> None:
        self._on = True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="enforcement", daemon=True)

    def start(self) -> None:
        self._node(is_closed=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        self._node(is_closed=False)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        self._on = False
        self._node(is_closed=False)
        self._set()
        try:
            yield
        finally:
            self._on = True
            self._set()
            self._node(is_closed=True)

    def _keep(self) -> None:
        while not self._over.wait(SECONDS):
            self._set()

    def _set(self) -> None:
        for port in PORTS.glob("*"):
            with contextlib.suppress(OSError):  # just going
                (port / "isolated").write_text("1" if self._on else "0")

    @staticmethod
    def _node(*, is_closed: bool) -> None:
        subprocess.run(["iptables", "-w", "-I" if is_closed else "-D", *FROM_PODS], check=True, capture_output=True)
