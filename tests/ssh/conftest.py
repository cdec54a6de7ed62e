"""Fixtures of the SSH side: gateways in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ssh.world import Site, running
from tests.stack.opa import Opa
from tests.stack.postgres import postgres
from tests.stack.require import require
from tests.stack.vault import Vault, vault


@pytest.fixture
async def unexpected() -> AsyncIterator[list[dict[str, Any]]]:
    """What reached the event loop's last resort: tasks lost, futures whose errors nobody read.  Must stay empty."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    yield found
    assert not found


@pytest.fixture
async def site(opa_server: Opa, tmp_path: Path, unexpected: list[dict[str, Any]]) -> AsyncIterator[Site]:
    async with running(opa_server, tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """Vault as it is set up, its SSH authorities among the rest."""
    require("postgres")
    directory = tmp_path_factory.mktemp("authority")
    with postgres(directory / "postgres") as database, vault(directory / "vault", database) as server:
        yield server
