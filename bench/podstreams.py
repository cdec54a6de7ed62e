"""One stream each way through a pod, beside Docker and sshd, as a stock client agrees on it with each."""

from __future__ import annotations

from bench.machine import grown_most
from bench.pools import podded
from bench.samples import Samples
from bench.stand import Stand
from bench.table import Row
from bench.throughput import DOWN, GOAL, MEGA, UP, down, up


def podstreams(stand: Stand, rounds: int, megabytes: int) -> tuple[list[Row], dict[str, Samples]]:
    """In turn, in a cluster of one node that is started for it; values are MB/s."""
    size = megabytes * 10**6
    grown = Samples()
    with podded(stand) as (pod, gateway):
        pod, sshd = pod.as_negotiated(), stand.peers.plain.as_negotiated()
        measured = (pod, stand.doorward.as_negotiated(), sshd)
        samples = {f"{peer.name}, {way}": Samples() for way in (DOWN, UP) for peer in measured}
        for _ in range(rounds):
            for way, measure in ((DOWN, down), (UP, up)):
                for peer in measured:
                    with grown_most(gateway) as most:
                        samples[f"{peer.name}, {way}"].add(size / measure(peer, size) / MEGA)
                    grown.add(most() / 2**20)
                    stand.settle()
    rows = []
    for way in (DOWN, UP):
        found = {peer.name: samples[f"{peer.name}, {way}"].median for peer in measured}
        rows += [Row(f"one stream {way}: {peer.title}", f"{found[peer.name]:.0f} MB/s") for peer in measured]
        value = found[pod.name] / found[sshd.name]
        rows.append(Row(f"  {pod.title} / {sshd.title}", f"{value:.2f} x", f">= {GOAL:g} x", value >= GOAL))
    rows.append(Row(f"  gateway's memory over one stream of {megabytes} MB, most", f"+{max(grown.values):.1f} MiB"))
    return rows, {**samples, "MiB more": grown}
