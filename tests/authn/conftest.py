"""What several verifiers' tests ask."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.authn.provider import StandIn


@pytest.fixture
async def provider() -> AsyncIterator[StandIn]:
    async with StandIn().open() as opened:
        yield opened
