"""Reading what others write meanwhile: a file's last line may be half there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def whole_lines(file: Path) -> list[str]:
    whole, _, _ = file.read_text().rpartition("\n")
    return whole.splitlines()


def records(file: Path, event: str = "") -> list[dict[str, Any]]:
    """What is in a file of JSON lines, or in an audit log of one event."""
    return [record for record in map(json.loads, whole_lines(file)) if not event or record["event"] == event]
