"""A whole session in a warm workspace: what the engineer finds in it, what the record says, and nothing left of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.ssh.world import Site, running, target
from tests.stack.opa import Opa
from tests.stack.require import require
from tests.waiting import until

POOL = {"size": 3, "starts_at_once": 2}


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server on this machine that says back the first line that it hears; its port."""

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def site(opa_server: Opa, tmp_path: Path, echo: int) -> AsyncIterator[Site]:
    require("bwrap")
    egress = [{"host": "hello", "port": 7000, "address": {"host": "127.0.0.1", "port": echo}}]
    pooled = target(
        "sandbox", image="host", home="/home/debug", network={"egress": egress}, env={"COLOUR": "blue"},
        allow={"env": ["LANG"]},
    )  # fmt: skip
    settings: dict[str, Any] = {"backends": {"sandbox": {}}, "pools": {"sandbox": POOL}}
    async with running(opa_server, tmp_path, targets={"pooled": pooled}, **settings) as started:
        yield started


def ready(site: Site) -> int:
    return sum(kind["ready"] for kind in site.gateway.pools.describe()["sandbox"]["kinds"])


async def login(site: Site, command: str = "echo here") -> str:
    async with site.connect() as connection:
        return str((await connection.run(command)).stdout).strip()


async def test_a_warm_workspace_is_the_session_s_in_everything(site: Site) -> None:
    assert await login(site) == "here"
    await until(lambda: ready(site) == POOL["size"], 60)
    said = await login(
        site, "echo $COLOUR $USER $HOME $TRACEPARENT; exec 3<>/dev/tcp/hello/7000; echo hello >&3; cat <&3"
    )
    cold, warm = site.audit("workspace")
    assert (cold["start"], cold["why"], warm["start"]) == ("cold", "first of its kind", "warm")
    trace = warm["trace_id"]
    assert said.splitlines()[0].split()[:3] == ["blue", "debug", "/home/debug"]
    assert said.splitlines()[0].split("-")[1] == trace
    assert said.splitlines()[1] == "hello"
    [egress] = site.audit("egress")
    assert (egress["trace_id"], egress["session"]) == (trace, warm["session"])
    await until(lambda: len(site.gone("workspace")) == 2, 30)


async def test_logins_beyond_the_pool_all_come_in(site: Site) -> None:
    await login(site)
    await until(lambda: ready(site) == POOL["size"], 60)
    async with asyncio.timeout(120):
        said = await asyncio.gather(*(login(site, f"echo {number}") for number in range(15)))
    assert said == [str(number) for number in range(15)]
    starts = Counter(record["start"] for record in site.audit("workspace"))
    assert starts["warm"] >= POOL["size"]
    assert starts.total() == 16
    await until(lambda: ready(site) == POOL["size"], 60)
    await site.nothing_left(30)


async def test_a_session_whose_client_left_at_once_costs_the_pool_no_more_than_one_each(site: Site) -> None:
    await login(site)
    await until(lambda: ready(site) == POOL["size"], 60)
    for delay in (0.0, 0.01, 0.02, 0.03, 0.05):
        async with site.connect() as connection:
            opening = asyncio.ensure_future(connection.create_process("sleep 60"))
            await asyncio.wait([opening], timeout=delay)
            connection.abort()
            await asyncio.gather(opening, return_exceptions=True)
    await until(lambda: ready(site) == POOL["size"], 60)
    assert await login(site) == "here"
    await site.nothing_left(30)
