"""Redis over TLS, from `redis-cli` in a workspace to a server: the same is typed, and the record says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ssh.world import Site, running, target
from tests.stack.kinds import Kinds
from tests.stack.opa import Opa
from tests.stack.require import require
from tests.waiting import until


def reached(kinds: Kinds, tls_name: str) -> dict[str, Any]:
    """A target whose Redis speaks TLS."""
    address = {"host": kinds.redis.host, "port": kinds.redis.tls_port}
    return target(
        "sandbox", image="host",
        network={"egress": [{"host": "cache", "port": 6380, "address": address}]},
        credentials=[{
            "name": "cache", "issuer": "vault", "role": "cache-readonly", "ttl_seconds": 60,
            "deliver": {"kind": "redis", "host": "cache", "port": 6380, "tls_name": tls_name},
        }],
    )  # fmt: skip


async def asked(site: Site, command: str) -> str:
    async with site.connect() as alice:
        ran = await alice.run(command)
    return str(ran.stdout) + str(ran.stderr)


@pytest.mark.parametrize("name", ["server.test", "other.test"])
async def test_redis_cli_finds_a_server_that_proves_its_name_and_no_other(
    kinds: Kinds, opa_server: Opa, tmp_path: Path, name: str
) -> None:
    require("bwrap", "redis-cli")
    settings: dict[str, Any] = {
        "backends": {"sandbox": {"tools": []}},
        "credentials": {"vault": {"url": kinds.vault.url, "token": {"file": kinds.vault.gateway_token_file}}},
        "redis": {"ca_file": kinds.authority},
    }
    async with running(opa_server, tmp_path, targets={"plain": reached(kinds, name)}, **settings) as site:
        said = await asked(site, "redis-cli ping; redis-cli get stock:lamp; redis-cli -h cache -p 6380 acl whoami")
        await until(lambda: not [user for user in kinds.redis.command("ACL", "USERS").split() if "V_" in user])
        ways = site.audit("egress")
    assert len(ways) == 3
    if name == "server.test":
        assert said.splitlines()[:2] == ["PONG", "12"]
        assert said.splitlines()[2].startswith("V_")
        assert {way["outcome"] for way in ways} == {"ok"}
    else:
        assert "PONG" not in said
        assert said.count("Error: ") == 3  # closed, or reset where `redis-cli` had written already
        assert {way["outcome"] for way in ways} == {"error"}
        assert all("other.test" in way["why"] for way in ways)
