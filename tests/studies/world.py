"""The fixtures' world in an OPA of a study's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.studies.engine import Studied, studied
from gateway.studies.sources import Data, Policies, read_policies
from tests.policy.world import data, question

POLICIES = Path(__file__).parents[2] / "policies"
NOON = "2030-01-31T12:00:00Z"
"""When the fixtures' grant holds."""


def ours() -> Policies:
    return read_policies(POLICIES)


@asynccontextmanager
async def study(changes: Mapping[str, Any] | None = None) -> AsyncIterator[Studied]:
    """Our own policies on the fixtures' data, with `changes` to whole roots."""
    async with studied(ours(), Data.of({**data(), **(changes or {})})) as opa:
        yield opa


def asked(decision: str, **changes: Any) -> dict[str, Any]:
    """The fixtures' question, with `changes` to its top level."""
    return {**question(decision), **changes}


def data_file(folder: Path, **changes: Any) -> Path:
    file = folder / "data.json"
    file.write_text(json.dumps({**data(), **changes}))
    return file
