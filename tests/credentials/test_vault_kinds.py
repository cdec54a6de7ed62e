"""The Vault issuer against a real MariaDB and a real Redis: the contract, and a gateway that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.contracts.issuer import Cut, IssuerContract, Outage
from gateway.credentials import Issuer
from gateway.credentials.vault import VaultIssuer
from gateway.model import Lease
from tests.credentials.servers import MariaDatabase, RedisDatabase
from tests.stack.kinds import Kinds
from tests.waiting import eventually


@pytest.fixture
async def issuer(kinds: Kinds) -> AsyncIterator[Issuer]:
    async with VaultIssuer.open(kinds.settings()) as issuer:
        yield issuer


@pytest.fixture(params=["mariadb", "redis"])
async def database(kinds: Kinds, request: pytest.FixtureRequest) -> AsyncIterator[MariaDatabase | RedisDatabase]:
    server: MariaDatabase | RedisDatabase
    if request.param == "mariadb":
        server = MariaDatabase(kinds.vault, kinds.mariadb)
    else:
        server = RedisDatabase(kinds.vault, kinds.redis)
    yield server

    async def is_clean() -> bool:
        return await server.roles() == set()

    assert await eventually(is_clean, 30), "Vault ends what a test left"


@pytest.fixture
async def outage(kinds: Kinds, database: MariaDatabase | RedisDatabase) -> AsyncIterator[Outage]:
    """Vault hangs until the test is over."""

    async def hang() -> None:
        os.kill(kinds.vault.process.pid, signal.SIGSTOP)

    yield hang
    os.kill(kinds.vault.process.pid, signal.SIGCONT)


class TestContract(IssuerContract):
    pass


ABANDON = """
import asyncio, json, sys
from gateway.contracts.issuer import holder
from gateway.credentials.vault import VaultIssuer
from gateway.model import CredentialSpec
from gateway.settings import VaultSettings

async def main():
    spec = CredentialSpec.model_validate_json(sys.argv[2])
    async with VaultIssuer.open(VaultSettings.model_validate_json(sys.argv[1])) as issuer:
        async with issuer.lease([spec], holder()) as leases:
            lease = leases.items[0]
            print(json.dumps([lease.lease_id, lease.username, lease.password.get_secret_value()]), flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_gateway_leaves_no_user_and_no_connection_after_the_ttl(
    kinds: Kinds, database: MariaDatabase | RedisDatabase
) -> None:
    spec = database.credential()
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ABANDON, kinds.settings().model_dump_json(), spec.model_dump_json(),
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert gateway.stdout is not None
    lease_id, user, password = json.loads(await gateway.stdout.readline())
    connection = await database.connected(Lease(spec, lease_id, user, SecretStr(password), datetime.now(UTC)))
    gateway.kill()
    await gateway.wait()
    assert await database.roles() == {user}

    async def is_ended() -> bool:
        return await database.roles() == set()

    assert await eventually(is_ended, 30)
    with pytest.raises(Cut):
        await connection.read()
    await connection.close()
