"""`python -m bench [--quick] [--only latency,...] [--rounds N] [--strict]`: one run, one table, one JSON file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.crowded import crowded
from bench.decisions import decisions
from bench.endings import LEVELS, endings
from bench.growth import growth
from bench.kills import kills
from bench.latency import cold, second
from bench.memory import memory
from bench.podstreams import podstreams
from bench.pools import pods, pools
from bench.replay import replay
from bench.samples import Samples
from bench.stand import Stand, stand
from bench.table import Row, table
from bench.throughput import throughput
from bench.writes import writes
from gateway.embedded.tools import ToolUnavailable
from tests.stack import StackError

RESULTS = Path(__file__).parent / "results"
Measurement = Callable[[Stand, argparse.Namespace], tuple[list[Row], dict[str, Samples]]]

MEASUREMENTS: dict[str, Measurement] = {
    "memory": lambda stand, asked: memory(stand, asked.sessions),  # first: later the heap has room to spare
    "latency": lambda stand, asked: cold(stand, asked.rounds, asked.warm_up),
    "second": lambda stand, asked: second(stand, asked.rounds * 2, asked.warm_up),
    "pools": lambda stand, asked: pools(stand, asked.rounds, asked.warm_up, asked.burst),
    "pods": lambda stand, asked: pods(stand, asked.rounds, asked.warm_up, asked.burst),
    "throughput": lambda stand, asked: throughput(stand, asked.streams, asked.megabytes),
    "podstreams": lambda stand, asked: podstreams(stand, asked.streams, asked.megabytes),
    "crowded": lambda stand, asked: crowded(stand, asked.streams, asked.megabytes),
    "growth": lambda stand, asked: growth(stand, asked.logins),
    "decisions": lambda stand, asked: decisions(stand, asked.people, asked.rounds * 10),
    "writes": lambda stand, asked: writes(stand, asked.people, asked.rounds * 10),
    "replay": lambda stand, asked: replay(stand, asked.replayed),
    "kills": lambda stand, asked: kills(stand, asked.kills),
    "endings": lambda stand, asked: endings(stand.directory / "endings", asked.endings, _levels(asked.crowd)),
}
FULL = {
    "rounds": 30,
    "warm_up": 2,
    "streams": 5,
    "megabytes": 300,
    "people": 10_000,
    "kills": 50,
    "sessions": 100,
    "logins": 1000,
    "endings": 100,
    "crowd": 1000,
    "replayed": 100_000,
    "burst": 50,
}
QUICK = {
    "rounds": 3,
    "warm_up": 1,
    "streams": 1,
    "megabytes": 50,
    "people": 200,
    "kills": 5,
    "sessions": 5,
    "logins": 40,
    "endings": 3,
    "crowd": 20,
    "replayed": 2_000,
    "burst": 12,
}


def main() -> int:
    asked = _arguments()
    rows: list[Row] = []
    try:
        with stand() as running:
            result: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "machine": machine.facts(running)}
            result["asked"] = {name: getattr(asked, name) for name in FULL}
            for name in asked.only:
                rows += _measured(name, running, asked, result)
    except (StackError, ToolUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    result["rows"] = [{"what": row.what, "value": row.value, "goal": row.goal, "holds": row.holds} for row in rows]
    print(f"\n{table(rows)}\n\n{machine.described(result['machine'])}\n{_loads(result)}\n{_saved(result)}")
    return 1 if asked.strict and any(row.holds is False for row in rows) else 0


def _measured(name: str, running: Stand, asked: argparse.Namespace, result: dict[str, Any]) -> list[Row]:
    print(f"{name} ...", file=sys.stderr, flush=True)
    before, began = machine.load(), time.monotonic()
    try:
        rows, samples = MEASUREMENTS[name](running, asked)
    except StackError as error:  # the others are worth their time all the same
        rows, samples = [Row(f"{name}: could not be measured", str(error)[:100].strip(), "a measurement", False)], {}
    result[name] = {
        "samples": {kind: found.record() for kind, found in samples.items()},
        "load_before": before,
        "load_after": machine.load(),
        "seconds": round(time.monotonic() - began, 1),
    }
    return rows


def _levels(most: int) -> tuple[int, ...]:
    return (*(level for level in LEVELS if level < most), most)


def _loads(result: dict[str, Any]) -> str:
    words = [
        f"{name} {result[name]['load_before']} to {result[name]['load_after']}"
        for name in MEASUREMENTS
        if name in result
    ]
    return "load average (1 min), before and after, our own load included: " + ", ".join(words)


def _saved(result: dict[str, Any]) -> str:
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    return f"saved as {file.relative_to(RESULTS.parents[1])}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers everywhere: does it work at all?")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when a goal is missed")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=list(MEASUREMENTS), help=",".join(MEASUREMENTS)
    )
    for name, value in FULL.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default {value}, quick {QUICK[name]}")
    asked = parser.parse_args()
    for name, value in (QUICK if asked.quick else FULL).items():
        if getattr(asked, name) is None:
            setattr(asked, name, value)
    if unknown := set(asked.only) - MEASUREMENTS.keys():
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
