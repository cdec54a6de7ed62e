"""How long `ssh host true` takes: a connection of its own, cold container and all; and in an open connection."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack

from bench.clients import wait_end
from bench.peers import Peer, master
from bench.samples import Samples
from bench.stand import Stand
from bench.steps import steps
from bench.table import Row, milliseconds, ratio
from tests.stack import StackError

OPEN, NULL = "stdin open", "/dev/null"
COLD_GOAL = 1.2
SECOND_GOAL = 0.5


def cold(stand: Stand, rounds: int, warm_up: int) -> tuple[list[Row], dict[str, Samples]]:
    """A B C D A B C D ..., each with stdin held open by nobody who writes, and at /dev/null."""
    samples = {f"{peer.name}, {stdin}": Samples() for stdin in (OPEN, NULL) for peer in stand.all_cold}
    for turn in range(warm_up + rounds):
        for stdin in (OPEN, NULL):
            for peer in stand.all_cold:
                seconds = timed(peer, stdin)
                if turn >= warm_up:
                    samples[f"{peer.name}, {stdin}"].add(seconds)
                stand.settle()
    rows = []
    for stdin in (OPEN, NULL):
        found = {peer.name: samples[f"{peer.name}, {stdin}"] for peer in stand.all_cold}
        rows += [
            Row(f"ssh host true, {stdin}: {peer.title}", milliseconds(found[peer.name])) for peer in stand.all_cold
        ]
        rows += [
            ratio(f"  Doorward / {peer.title}", found["doorward"], found[peer.name], goal=_goal(peer, stand))
            for peer in stand.all_cold[1:]
        ]
    own_rows, own = steps(stand)
    return rows + own_rows, {**samples, **own}


def _goal(peer: Peer, stand: Stand) -> float | None:
    return COLD_GOAL if peer == stand.peers.bare else None


def second(stand: Stand, rounds: int, warm_up: int) -> tuple[list[Row], dict[str, Samples]]:
    """One more command in a connection that is open: Doorward's running workspace beside `docker exec`."""
    measured = (stand.doorward, stand.peers.exec, stand.peers.plain)
    samples = {peer.name: Samples() for peer in measured}
    with ExitStack() as stack:
        through = {
            peer.name: stack.enter_context(master(peer, stand.directory / f"{peer.name}.mux")) for peer in measured
        }
        for turn in range(warm_up + rounds):
            for peer in measured:
                seconds = timed(peer, NULL, options=through[peer.name])
                if turn >= warm_up:
                    samples[peer.name].add(seconds)
    stand.settle()
    ours, exec_ = samples["doorward"], samples[stand.peers.exec.name]
    return [
        *(Row(f"second command, open connection: {peer.title}", milliseconds(samples[peer.name])) for peer in measured),
        ratio(f"  Doorward / {stand.peers.exec.title}", ours, exec_, goal=SECOND_GOAL),
    ], samples


def timed(peer: Peer, stdin: str, options: Sequence[str] = ()) -> float:
    """Seconds from the client's start to its end."""
    began = time.perf_counter()
    with subprocess.Popen(
        peer.ssh("true", options=options),
        stdin=subprocess.PIPE if stdin == OPEN else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as client:
        status = wait_end(client)
        seconds = time.perf_counter() - began
        assert client.stderr is not None
        if status != 0:
            raise StackError(f"{peer.title}: ssh ended with status {status}: {client.stderr.read().decode()}")
    return seconds
