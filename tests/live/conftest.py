"""A house for each test that wants one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live.world import House, Judge, housed
from tests.policy.servers import serving


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    judge = Judge()
    async with serving(judge.answer) as url, housed(tmp_path, judge, url) as opened:
        yield opened
