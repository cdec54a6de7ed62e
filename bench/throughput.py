"""One stream as fast as it goes, each way.  Clocked from the remote program's first word, so start-up is left out."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Mapping

from bench.machine import grown_most
from bench.peers import Peer
from bench.samples import Samples
from bench.stand import Stand
from bench.table import Row
from tests.stack import StackError

GO = b"go\n"
CHUNK = 2**20
MEGA = 1e6
GOAL = 0.5
DOWN, UP = "from the workspace", "to the workspace"


def throughput(stand: Stand, rounds: int, megabytes: int) -> tuple[list[Row], dict[str, Samples]]:
    """Both directions through everyone, in turn; values are MB/s."""
    size = megabytes * 10**6
    stock = (stand.doorward.as_negotiated(), stand.sandboxed.as_negotiated(), stand.peers.plain.as_negotiated())
    measured = (*stand.all_cold, stand.sandboxed, *stock)
    samples = {f"{peer.name}, {way}": Samples() for way in (DOWN, UP) for peer in measured}
    grown = Samples()
    for _ in range(rounds):
        for way, measure in ((DOWN, down), (UP, up)):
            for peer in measured:
                with grown_most(stand.door.process.pid) as most:
                    samples[f"{peer.name}, {way}"].add(size / measure(peer, size) / MEGA)
                grown.add(most() / 2**20)
                stand.settle()
    rows = []
    for way in (DOWN, UP):
        found = {peer.name: samples[f"{peer.name}, {way}"] for peer in measured}
        rows += [Row(f"one stream {way}: {peer.title}", f"{found[peer.name].median:.0f} MB/s") for peer in measured]
        for ours in (stand.doorward, stand.sandboxed):
            for theirs in (stand.peers.plain, stand.peers.bare):
                rows.append(_ratio(ours, theirs, found))
            rows.append(_ratio(ours.as_negotiated(), stand.peers.plain.as_negotiated(), found, GOAL))
    rows.append(Row(f"  gateway's memory over one stream of {megabytes} MB, most", f"+{max(grown.values):.1f} MiB"))
    return rows, {**samples, "MiB more": grown}


def _ratio(ours: Peer, theirs: Peer, found: Mapping[str, Samples], goal: float | None = None) -> Row:
    value = found[ours.name].median / found[theirs.name].median
    return Row(
        f"  {ours.title} / {theirs.title}",
        f"{value:.2f} x",
        f">= {goal:g} x" if goal else "",
        value >= goal if goal else None,
    )


def down(peer: Peer, size: int) -> float:
    """Seconds in which `size` bytes came."""
    with _started(peer, f"echo go; exec head -c {size} /dev/zero", subprocess.DEVNULL) as client:
        source = _out(client)
        began = time.perf_counter()
        received = 0
        while data := os.read(source, CHUNK):
            received += len(data)
        seconds = time.perf_counter() - began
    if received != size:
        raise StackError(f"{peer.name}: {received} bytes came of {size}")
    return seconds


def up(peer: Peer, size: int) -> float:
    """Seconds in which `size` bytes went, and were counted at the other end."""
    with _started(peer, "echo go; exec wc -c", subprocess.PIPE) as client:
        source = _out(client)
        assert client.stdin is not None
        sink = client.stdin.fileno()
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, CHUNK)
        zeros = memoryview(bytes(CHUNK))
        began = time.perf_counter()
        left = size
        while left:
            left -= os.write(sink, zeros[: min(left, CHUNK)])
        client.stdin.close()
        counted = os.read(source, 100)
        seconds = time.perf_counter() - began
    if int(counted) != size:
        raise StackError(f"{peer.name}: {counted!r} bytes arrived of {size}")
    return seconds


def _started(peer: Peer, command: str, stdin: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(peer.ssh(command), stdin=stdin, stdout=subprocess.PIPE, bufsize=0)


def _out(client: subprocess.Popen[bytes]) -> int:
    """The client's output, once the remote program has said its first word."""
    assert client.stdout is not None
    source = client.stdout.fileno()
    fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, CHUNK)
    said = b""
    while len(said) < len(GO):
        data = os.read(source, len(GO) - len(said))
        if not data:
            raise StackError(f"{client.args!r}: ended before it began")
        said += data
    return source
