"""Where Doorward's own time goes: what its audit log says each step took."""

from __future__ import annotations

from bench.samples import Samples
from bench.stand import Stand
from bench.table import Row, milliseconds


def steps(stand: Stand) -> tuple[list[Row], dict[str, Samples]]:
    """Of all records so far.  Lease and workspace are had at the same time; `gone` comes when the engineer has left."""
    samples: dict[str, Samples] = {}
    for record in stand.door.audit():
        if "milliseconds" in record and record["event"] not in ("relay", "live", "admission", "grant"):
            name = f"{record['event']} of {record['of']}" if "of" in record else str(record["event"])
            samples.setdefault(name, Samples()).add(record["milliseconds"] / 1000)
    return [Row(f"  step {name}", milliseconds(found)) for name, found in samples.items()], samples
