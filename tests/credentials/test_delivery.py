"""What leases become in a workspace: files that the stock clients understand, and none that could not be one."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from gateway.credentials.delivery import MAX_BYTES, delivery
from gateway.deliveries import CredentialSpec, clashes
from gateway.errors import CredentialsUnavailable
from gateway.model import Lease
from tests.stack.kinds import Kinds

REDIS = {"kind": "redis", "host": "cache", "port": 6379}
POSTGRES = {"host": "db", "port": 5432, "dbname": "orders"}
MYSQL = {"kind": "mysql", "host": "db", "port": 3306, "dbname": "stock"}


def spec(name: str = "one", **deliver: Any) -> CredentialSpec:
    what = {"secret": {"mount": "kv", "path": "a/b"}} if deliver.get("kind") == "file" else {"role": "r"}
    body = {"name": name, "issuer": "vault", "ttl_seconds": 60, "deliver": deliver, **what}
    return CredentialSpec.model_validate_json(json.dumps(body))


def lease(of: CredentialSpec, password: str = "", **secret: Any) -> Lease:
    return Lease(of, "id", "alice", SecretStr(password), datetime.now(UTC), secret=secret)


def files(*paths: str, **more: Any) -> dict[str, Any]:
    return {"kind": "file", "files": [{"path": path, **more} for path in paths]}


def test_nothing_is_nothing() -> None:
    made = delivery([], "/run/doorward")
    assert (made.env, made.files, made.logins) == ({}, [], {})


def test_each_kind_has_its_own_and_the_environment_holds_names_only() -> None:
    leases = [
        lease(spec("a", **POSTGRES), "pw-a"), lease(spec("b", **MYSQL), "pw-b"), lease(spec("c", **REDIS), "pw-c"),
        lease(spec("d", **files("x/y", key="k", mode="0400")), k="value"),
    ]  # fmt: skip
    made = delivery(leases, "/run/doorward")

    assert made.env == {
        "PGSERVICEFILE": "/run/doorward/pg_service.conf", "PGSERVICE": "a", "MYSQL_HOME": "/run/doorward",
    }  # fmt: skip
    assert [(file.path.removeprefix("/run/doorward/"), file.mode) for file in made.files] == [
        ("pg_service.conf", 0o600), ("my.cnf", 0o600), ("x/y", 0o400),
    ]  # fmt: skip
    assert made.files[2].data == b"value"
    assert b"pw-c" not in b"".join(file.data for file in made.files)
    assert made.logins == {("cache", 6379): leases[2]}
    assert "value" not in repr(leases)


def test_mysql_reads_any_password_and_the_second_lease_by_its_suffix(kinds: Kinds, tmp_path: Path) -> None:
    odd = r"""a#b"c'd\e\n;f g=[h]$"""
    quoted = odd.replace("\\", "\\\\").replace("'", "\\'")
    where = {"kind": "mysql", "host": kinds.mariadb.host, "port": kinds.mariadb.port, "dbname": "stock"}
    kinds.mariadb.sql(f"CREATE USER alice@'%' IDENTIFIED BY '{quoted}'; GRANT SELECT ON stock.* TO alice@'%'")
    try:
        made = delivery(
            [lease(spec("first", **where), "not this"), lease(spec("odd.one", **where), odd)], str(tmp_path)
        )
        (tmp_path / "my.cnf").write_bytes(made.files[0].data)
        (tmp_path / "my.cnf").chmod(0o600)

        def asked(*options: str) -> subprocess.CompletedProcess[str]:
            command = ["mysql", *options, "-BNe", "select current_user(), database()"]
            return subprocess.run(command, env={**os.environ, **made.env}, text=True, capture_output=True, timeout=30)

        assert asked("--defaults-group-suffix=_odd.one").stdout == "alice@%\tstock\n"
        assert "Access denied" in asked().stderr
    finally:
        kinds.mariadb.sql("DROP USER alice@'%'")


@pytest.mark.parametrize("deliver", [POSTGRES, MYSQL])
def test_a_password_that_would_be_two_lines_is_refused_unquoted(deliver: dict[str, Any]) -> None:
    with pytest.raises(CredentialsUnavailable) as refused:
        delivery([lease(spec(**deliver), "good\nhost=evil")], "/run/doorward")
    assert refused.value.reasons[0].code == "credential_unfit"
    assert "evil" not in str(refused.value)


@pytest.mark.parametrize("deliver", [POSTGRES, MYSQL])
@pytest.mark.parametrize("field", ["host", "dbname"])
def test_a_place_that_would_be_two_lines_is_refused(deliver: dict[str, Any], field: str) -> None:
    with pytest.raises(CredentialsUnavailable) as refused:
        delivery([lease(spec(**deliver | {field: "db\nhost=evil"}), "good")], "/run/doorward")
    assert refused.value.reasons[0].code == "credential_unfit"


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ({}, "has no key 'k'"),
        ({"k": 7}, "has no text at the key 'k'"),
        ({"k": "x" * (MAX_BYTES + 1)}, f"larger than {MAX_BYTES} bytes"),
    ],
)
def test_a_secret_that_does_not_fit_is_refused_by_name(secret: dict[str, Any], said: str) -> None:
    with pytest.raises(CredentialsUnavailable, match=said):
        delivery([lease(spec(**files("x", key="k")), **secret)], "/run/doorward")


@pytest.mark.parametrize("path", ["../x", "/etc/x", ".ssh/x", "a/../b", "a//b", "a/", "", "a\n", "a b", "~/x"])
def test_a_file_stays_below_the_folder(path: str) -> None:
    with pytest.raises(ValidationError):
        spec(**files(path))


@pytest.mark.parametrize(
    "change",
    [
        {"role": "r", "secret": {"mount": "kv", "path": "a"}},
        {"role": ""},
        {"secret": {"mount": "kv", "path": "a"}},
        {"role": "r", "deliver": files("x")},
        {"secret": {"mount": "../sys", "path": "a"}, "deliver": files("x")},
        {"role": "r", "deliver": {**MYSQL, "kind": "oracle"}},
        {"secret": {"mount": "kv", "path": "a", "version": 0}, "deliver": files("x")},
        {"secret": {"mount": "kv", "path": "a"}, "deliver": files("x", mode="0644")},
    ],
)
def test_a_credential_is_of_one_kind_and_whole(change: dict[str, Any]) -> None:
    body = {"name": "one", "issuer": "vault", "ttl_seconds": 60, "deliver": MYSQL, **change}
    with pytest.raises(ValidationError):
        CredentialSpec.model_validate_json(json.dumps(body))


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ([spec("a", **POSTGRES), spec("a", **MYSQL)], "credentials.1.name: 'a' is there already"),
        ([spec("a", **REDIS), spec("b", **REDIS)], "credentials.1.deliver: there is another credential"),
        ([spec("a", kind="redis", host="else", port=1)], "credentials.0.deliver: else:1 is not in network.egress"),
        ([spec("a", **files("x")), spec("b", **files("y", "x"))], "credentials.1.deliver.files.1.path: 'x' is there"),
        ([spec("a", **files("x/y", "x"))], "credentials.0.deliver.files.1.path: 'x' is there already"),
        ([spec("a", **files("my.cnf"))], "credentials.0.deliver.files.0.path: 'my.cnf' is there already"),
        ([spec("a", **files("pg_service.conf/x"))], "files.0.path: 'pg_service.conf/x' is there already"),
    ],
)
def test_what_clashes_is_named_by_field(specs: list[CredentialSpec], said: str) -> None:
    [found] = clashes(specs, {("cache", 6379)})
    assert said in found
