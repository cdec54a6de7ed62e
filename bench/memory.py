"""What the gateway's process weighs with one idle session, and with many, and what the agent in a workspace does."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack

from bench.clients import wait_end
from bench.machine import resident
from bench.samples import Samples
from bench.stand import Stand
from bench.table import Row
from tests.stack import StackError


def memory(stand: Stand, many: int) -> tuple[list[Row], dict[str, Samples]]:
    """Idle sessions, each with a workspace, a lease and one program."""
    with _idle_session(stand):
        pass  # what is imported and made with the first session is not the second one's
    with ExitStack() as stack:
        stack.enter_context(_idle_session(stand))
        one = resident(stand.door.process.pid)
        for _ in range(many - 1):
            stack.enter_context(_idle_session(stand))
        all_ = resident(stand.door.process.pid)
        agents = Samples([resident(pid) for pid in stand.first_processes()])
    stand.settle()
    each = (all_ - one) / max(1, many - 1)
    return [
        Row("gateway's memory (RSS), 1 idle session", f"{one / 2**20:.1f} MiB"),
        Row(f"gateway's memory (RSS), {many} idle sessions", f"{all_ / 2**20:.1f} MiB"),
        Row("  per session", f"{each / 2**20:.2f} MiB"),
        Row("agent's memory (RSS) in each workspace", f"{agents.median / 2**20:.2f} MiB"),
    ], {"agents": agents, "one": Samples([one]), "many": Samples([all_]), "per session": Samples([each])}


class _idle_session:
    """`ssh host cat`, running while the context lasts."""

    def __init__(self, stand: Stand) -> None:
        self._client = subprocess.Popen(
            stand.doorward.ssh("echo ready; exec cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> None:
        assert self._client.stdout is not None
        if self._client.stdout.readline() != b"ready\n":
            raise StackError("an idle session could not be opened")

    def __exit__(self, *_: object) -> None:
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        self._client.stdin.close()
        wait_end(self._client)
        self._client.stdout.close()
