"""Several kinds of credentials in one session: stock clients find each without an argument, and none outlives it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import OpenDoor
from tests.e2e.world import Door, Site, until
from tests.stack.kinds import SECRET, Kinds
from tests.stack.mariadb import MariaDb
from tests.stack.postgres import Postgres
from tests.stack.redis import Redis
from tests.stack.require import require

LONG, SHORT = 300, 8
"""Seconds: what ends long before the first was revoked; a gateway that is killed leaves leases of the second."""
HOLD = "redis-cli XREAD BLOCK 0 STREAMS 'stock:stream' '$' & mysql -e 'select sleep(300)'"


def side_by_side(kinds: Kinds, ttl: int) -> dict[str, Any]:
    """Of a target: ways out to one server of each kind, and credentials for them."""
    servers: list[tuple[str, int, Postgres | MariaDb | Redis]] = [
        ("orders-db", 5432, kinds.postgres), ("stock-db", 3306, kinds.mariadb), ("cache", 6380, kinds.redis),
    ]  # fmt: skip
    of_vault = {"issuer": "vault", "ttl_seconds": ttl}
    kept = {"kind": "file", "files": [{"path": "supplier.json"}, {"path": "keys/api", "key": "api", "mode": "0400"}]}
    return {
        "network": {
            "egress": [
                {"host": name, "port": port, "address": {"host": server.host, "port": server.port}}
                for name, port, server in servers
            ]
        },
        "credentials": [
            {
                **of_vault, "name": "orders", "role": "orders-readonly",
                "deliver": {"host": "orders-db", "port": 5432, "dbname": "orders"},
            },
            {
                **of_vault, "name": "stock", "role": "stock-readonly",
                "deliver": {"kind": "mysql", "host": "stock-db", "port": 3306, "dbname": "stock"},
            },
            {
                **of_vault, "name": "cache", "role": "cache-readonly",
                "deliver": {"kind": "redis", "host": "cache", "port": 6380},
            },
            {**of_vault, "name": "supplier", "secret": {"mount": "kv", "path": SECRET}, "deliver": kept},
        ],
    }  # fmt: skip


@pytest.fixture(params=["docker", "sandbox"])
def several(request: pytest.FixtureRequest, open_door: OpenDoor, site: Site, kinds: Kinds) -> Iterator[Door]:
    place = {"backend": "docker", "image": site.images.debug}
    if request.param == "sandbox":
        require("bwrap")
        place = {"backend": "sandbox", "image": "host"}
    with opened(open_door, site, kinds, place) as door:
        yield door


@contextmanager
def opened(
    open_door: OpenDoor, site: Site, kinds: Kinds, changes: Mapping[str, Any], ttl: int = LONG
) -> Iterator[Door]:
    vault = {"url": kinds.vault.url, "token": {"file": str(kinds.vault.gateway_token_file)}}
    target = site.target(**side_by_side(kinds, ttl), **changes)
    with open_door(target=target, credentials={"vault": vault}, backends={"sandbox": {"tools": []}}) as door:
        door.grant()
        yield door


def users(kinds: Kinds) -> list[str]:
    """What Vault has made and not ended, of the two servers that are not PostgreSQL."""
    return [*kinds.mariadb.sql("SELECT user FROM mysql.user WHERE user LIKE 'v-%'").split(), *redis_users(kinds)]


def redis_users(kinds: Kinds) -> list[str]:
    return [user for user in kinds.redis.command("ACL", "USERS").split() if user.startswith("V_")]


def connections(kinds: Kinds) -> list[str]:
    """Of those users, how they are connected now."""
    query = "SELECT info FROM information_schema.processlist WHERE user LIKE 'v-%' AND info IS NOT NULL"
    clients = kinds.redis.command("CLIENT", "LIST").splitlines()
    return [*kinds.mariadb.sql(query).splitlines(), *(line for line in clients if "user=V_" in line)]


def printed(door: Door, command: str) -> list[str]:
    ran = door.ssh(command)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.decode().splitlines()


def test_each_client_finds_its_credential_without_an_argument(several: Door, kinds: Kinds) -> None:
    version = kinds.keep(api="s3cret-of-the-supplier", port=8443)
    lines = printed(
        several,
        "psql -qAtc 'select count(*) > 0 from orders'; mysql -BNe 'select database(), count(*) from items';"
        "mysqldump stock | grep -c 'INSERT INTO `items`'; mysql --defaults-group-suffix=_stock -BNe 'select 7';"
        "redis-cli ping; redis-cli get stock:lamp; redis-cli -h cache -p 6380 acl whoami; redis-cli set stock:lamp 1;"
        "cat /run/doorward/supplier.json; echo; cat /run/doorward/keys/api; echo; stat -c %a /run/doorward/keys/api;"
        "mysql -BNe 'select current_user()'",
    )
    whoami, user = lines.pop(6), lines.pop()
    assert lines[:4] == ["t", "stock\t3", "1", "7"]
    assert lines[4:6] == ["PONG", "12"]
    assert lines[6].startswith("NOPERM")
    assert json.loads(lines[-3]) == {"api": "s3cret-of-the-supplier", "port": 8443}
    assert lines[-2:] == ["s3cret-of-the-supplier", "400"]
    until(lambda: not users(kinds), 30)

    [record] = [record for record in several.audit("lease") if record["outcome"] == "ok"]
    facts = {lease["name"]: lease for lease in record["leases"]}
    assert facts["cache"]["username"] == whoami
    assert f"{facts['stock']['username']}@%" == user
    assert facts["supplier"] == {"name": "supplier", "lease_id": "", "mount": "kv", "path": SECRET, "version": version}
    used = {(record["host"], record.get("credential")) for record in several.audit("egress")}
    assert used == {("orders-db", None), ("stock-db", None), ("cache", "cache")}


def test_no_secret_is_anywhere_but_in_the_tmpfs_and_that_of_redis_not_even_there(
    several: Door, site: Site, kinds: Kinds
) -> None:
    kinds.keep(api="s3cret-of-the-supplier")
    lines = printed(
        several,
        "find /run/doorward -type f | sort; env;"
        "sed -n 's/^password=\"\\(.*\\)\"/the password: \\1/p' $MYSQL_HOME/my.cnf;"
        "redis-cli ping; grep -rl V_ /run/doorward /proc/*/environ /proc/*/cmdline 2>/dev/null | grep -v self; true",
    )
    assert [line for line in lines if line.startswith("/run/")] == [
        f"/run/doorward/{name}" for name in ("keys/api", "my.cnf", "pg_service.conf", "supplier.json")
    ]
    passwords = {line.removeprefix("the password: ") for line in lines if line.startswith("the password: ")}
    [password] = passwords
    written = [
        *(line for line in lines if not line.startswith("the password")),
        several.log.read_text(),
        (several.directory / "state" / "audit.jsonl").read_text(),
        site.opa.decision_log.read_text(),
    ]
    for secret in (password, "s3cret-of-the-supplier"):
        assert len(secret) > 15
        assert not [text for text in written if secret in text]


def test_deleting_the_grant_cuts_the_connections_in_every_server(several: Door, kinds: Kinds) -> None:
    kinds.keep(api="x")
    with several.terminal(HOLD) as terminal:
        until(lambda: len(connections(kinds)) == 2, 60)
        several.revoke()
        assert terminal.wait_end(30) == 254
        until(lambda: not users(kinds) and not connections(kinds), 30)
    assert "doorward: grant_deleted:" in terminal.seen


def test_a_gateway_that_is_killed_leaves_no_connection_beyond_the_ttl(
    open_door: OpenDoor, site: Site, kinds: Kinds
) -> None:
    kinds.keep(api="x")
    with opened(open_door, site, kinds, {}, SHORT) as door, door.terminal(HOLD) as terminal:
        until(lambda: len(connections(kinds)) == 2, 60)
        door.process.kill()
        assert terminal.wait_end(30) != 0
        until(lambda: not users(kinds) and not connections(kinds), SHORT + 30)


def test_a_secret_that_is_not_there_is_a_refusal_that_names_it_and_leaves_nothing(
    open_door: OpenDoor, site: Site, kinds: Kinds
) -> None:
    kinds.keep(other="x")
    with opened(open_door, site, kinds, {}) as door:
        ran = door.ssh("true", options=("-o", "LogLevel=INFO"))
        assert ran.returncode == 254
        assert b"doorward: credential_unfit: the secret of the credential 'supplier' has no key 'api'" in ran.stderr
    until(lambda: not users(kinds), 30)
