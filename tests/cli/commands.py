"""`doorward` as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stack.example import settings_toml


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


COMMAND = (sys.executable, "-m", "gateway")


async def doorward(*words: str | Path, env: Mapping[str, str] | None = None, stdin: str = "") -> Ran:
    """Run it to its end, in this loop's time, so that a gateway in this process can answer."""
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith("DOORWARD_") or name.endswith("_CACHE")
    }
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *map(str, words),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**ours, **(env or {})}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    out, err = await process.communicate(stdin.encode())
    ran = Ran(process.returncode or 0, out.decode(), err.decode())
    assert "Traceback" not in ran.err, ran.err
    return ran


def written(directory: Path, settings: Mapping[str, Any]) -> Path:
    """The settings as a file."""
    file = directory / "doorward.toml"
    file.write_text(settings_toml(settings))
    return file
