"""One Vault that issues for every kind of server, and keeps a secret."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.sections import SecretRef
from gateway.settings import VaultSettings
from tests.policy.test_opa import certificates
from tests.stack.mariadb import MariaDb, mariadb
from tests.stack.postgres import Postgres, postgres
from tests.stack.redis import Redis, redis
from tests.stack.vault import Vault, vault

SECRET = "stock/supplier"
"""The path, in the engine `kv`, that a session's token may read."""


@dataclass(frozen=True)
class Kinds:
    postgres: Postgres
    mariadb: MariaDb
    redis: Redis
    vault: Vault
    authority: Path
    """Who signed Redis' certificate, for its port with TLS."""

    def settings(self) -> VaultSettings:
        return VaultSettings(url=self.vault.url, token=SecretRef(file=self.vault.gateway_token_file))

    def keep(self, path: str = SECRET, **values: Any) -> int:
        """Write a new version of a secret; its number."""
        answer = self.vault.client().adapter.post(f"/v1/kv/data/{path}", json={"data": values})
        version: int = answer["data"]["version"]
        return version


@contextmanager
def all_kinds(directory: Path) -> Iterator[Kinds]:
    folders = [directory / name for name in ("postgres", "mariadb", "redis", "vault")]
    for folder in folders:
        folder.mkdir()
    authority, *pair = certificates(directory)
    with (
        postgres(folders[0]) as database,
        mariadb(folders[1]) as maria,
        redis(folders[2], pair=(pair[0], pair[1])) as cache,
        vault(folders[3], database, maria, cache) as server,
    ):
        yield Kinds(database, maria, cache, server, authority)
