"""Eight streams at once, each of a client and connection of its own, and what the gateway's memory does meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench.machine import grown_most
from bench.peers import Peer
from bench.samples import Samples
from bench.stand import Stand
from bench.table import Row
from bench.throughput import DOWN, GOAL, MEGA, UP, down, up

AT_ONCE = 8


def crowded(stand: Stand, rounds: int, megabytes: int) -> tuple[list[Row], dict[str, Samples]]:
    """What all of them have together, as a stock client agrees on it with each server; values are MB/s."""
    size = megabytes * 10**6
    ours = (stand.doorward.as_negotiated(), stand.sandboxed.as_negotiated())
    sshd = stand.peers.plain.as_negotiated()
    samples = {f"{peer.name}, {AT_ONCE} {way}": Samples() for way in (DOWN, UP) for peer in (*ours, sshd)}
    grown = Samples()
    for _ in range(rounds):
        for way, measure in ((DOWN, down), (UP, up)):
            for peer in (*ours, sshd):
                with grown_most(stand.door.process.pid) as most:
                    seconds = _together(measure, peer, size)
                samples[f"{peer.name}, {AT_ONCE} {way}"].add(AT_ONCE * size / seconds / MEGA)
                if peer in ours:
                    grown.add(most() / 2**20)
                stand.settle()
    rows = []
    for way in (DOWN, UP):
        found = {peer.name: samples[f"{peer.name}, {AT_ONCE} {way}"].median for peer in (*ours, sshd)}
        for peer in ours:
            value = found[peer.name] / found[sshd.name]
            together = f"{found[peer.name]:.0f} of {found[sshd.name]:.0f} MB/s: {value:.2f} x"
            rows.append(Row(f"{AT_ONCE} streams {way}: {peer.title} / sshd", together, f">= {GOAL:g} x", value >= GOAL))
    rows.append(Row(f"  gateway's memory over {AT_ONCE} streams, most", f"+{max(grown.values):.1f} MiB"))
    return rows, {**samples, "MiB more": grown}


def _together(measure: Callable[[Peer, int], float], peer: Peer, size: int) -> float:
    """Seconds from the first to begin to the last to end, start-up included."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        began = time.perf_counter()
        for done in [threads.submit(measure, peer, size) for _ in range(AT_ONCE)]:
            done.result()
        return time.perf_counter() - began
