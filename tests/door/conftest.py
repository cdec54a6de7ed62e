"""A grants door for each test: a gateway with OPA behind it, and no grant yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.door.running import Running, running
from tests.stack.opa import Opa


@pytest.fixture
async def door(world: Opa, tmp_path: Path) -> AsyncIterator[Running]:
    world.put("grants", {})
    async with running(tmp_path, world) as opened:
        yield opened
