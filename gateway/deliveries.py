"""The credentials that a permit can name, and the ways in which they get to the programs of a workspace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from gateway.values import Name, Value
from gateway.workspaces import Port

PATH = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$"
"""Names with slashes between, none of which begins with a dot: it leads nowhere but down."""
SERVICES, OPTIONS = "pg_service.conf", "my.cnf"
"""Files of ours in the credentials' folder: libpq's, and that of the clients of MySQL and MariaDB."""

REDIS = ("127.0.0.1", 6379)
"""Where `redis-cli` looks when it is told nothing."""


class PostgresDelivery(Value):
    """Deliver as a libpq service file, so that `psql` works with no argument."""

    kind: Literal["postgres"] = Field(default="postgres", description="this way of delivery")
    host: str = Field(description="the server, as the workspace names it")
    port: Port = Field(description="the server's port")
    dbname: str = Field(description="the database")


class MysqlDelivery(Value):
    """Deliver as an option file, so that `mysql` and `mysqldump`, of MySQL or MariaDB, work with no argument."""

    kind: Literal["mysql"] = Field(description="this way of delivery")
    host: str = Field(description="the server, as the workspace names it")
    port: Port = Field(description="the server's port")
    dbname: str = Field(description="the database that `mysql` starts in")


class RedisDelivery(Value):
    """The gateway logs in on each connection that the workspace makes there, so that `redis-cli` needs no argument.

    The secret never enters the workspace.  The permit's egress has the same host and port.
    """

    kind: Literal["redis"] = Field(description="this way of delivery")
    host: str = Field(description="the server, as the workspace names it: a host of its egress")
    port: Port = Field(description="the server's port, of the same egress")
    tls_name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,253}$",
        description="speak TLS, to a server whose certificate has this name or IPv4 address; absent: plain TCP",
    )


class SecretFile(Value):
    """One file made of a static secret."""

    path: str = Field(max_length=200, pattern=PATH, description="where, below /run/doorward")
    key: str = Field(default="", max_length=253, description="whose value it holds; empty: all, as one JSON object")
    mode: Literal["0400", "0600"] = Field(default="0600", description="its permissions, for the workspace's user")


class FileDelivery(Value):
    """Deliver as files in the workspace's tmpfs; `env` of the target can name them to a program."""

    kind: Literal["file"] = Field(description="this way of delivery")
    files: tuple[SecretFile, ...] = Field(min_length=1, max_length=20, description="what is written")


class StaticSecret(Value):
    """Something that Vault keeps (KV version 2): read, not made.  Nothing ends it with the session."""

    mount: str = Field(max_length=200, pattern=PATH, description="of the secrets engine")
    path: str = Field(max_length=500, pattern=PATH, description="of the secret in it")
    version: int | None = Field(default=None, ge=1, description="this one and no other; absent: the newest")


def _kind(value: Any) -> Any:
    """Of a delivery that names none: PostgreSQL's, which was the first."""
    return value.get("kind", "postgres") if isinstance(value, dict) else getattr(value, "kind", None)


Delivery = Annotated[
    Annotated[PostgresDelivery, Tag("postgres")]
    | Annotated[MysqlDelivery, Tag("mysql")]
    | Annotated[RedisDelivery, Tag("redis")]
    | Annotated[FileDelivery, Tag("file")],
    Discriminator(_kind),
]


class CredentialSpec(Value):
    """One credential for this session alone: issued by a role, or a static secret that is read."""

    name: Name = Field(description="what the session calls it: libpq's service, the suffix of MySQL's option group")
    issuer: Name = Field(description="which of the gateway's issuers issues it")
    role: str = Field(
        default="",
        max_length=253,
        pattern=r"^[A-Za-z0-9._-]*$",
        description="the issuer's role that says what it is good for; of a static secret: none",
    )
    secret: StaticSecret | None = Field(default=None, description="the static secret, delivered as files")
    ttl_seconds: int = Field(ge=5, le=86400, description="how long it may outlive a gateway that died")
    deliver: Delivery = Field(description="how it gets into the workspace")

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> CredentialSpec:
        if bool(self.role) is bool(self.secret):
            raise ValueError("a credential has a role or a secret, and not both")
        if (self.deliver.kind == "file") is not bool(self.secret):
            raise ValueError(f"deliver.kind: {self.deliver.kind!r} is not for a {'secret' if self.secret else 'role'}")
        return self


def clashes(credentials: Sequence[CredentialSpec], ways_out: set[tuple[str, int]]) -> Iterator[str]:
    """What keeps these from standing side by side in one workspace, by field; `ways_out` are the egress's."""
    names: set[str] = set()
    redis: set[tuple[str, int]] = set()
    files = {SERVICES, OPTIONS}
    for index, spec in enumerate(credentials):
        if spec.name in names:
            yield f"credentials.{index}.name: {spec.name!r} is there already"
        names.add(spec.name)
        if isinstance(spec.deliver, RedisDelivery):
            place = (spec.deliver.host, spec.deliver.port)
            if place not in ways_out:
                yield f"credentials.{index}.deliver: {place[0]}:{place[1]} is not in network.egress"
            if place in redis:
                yield f"credentials.{index}.deliver: there is another credential for {place[0]}:{place[1]}"
            redis.add(place)
        elif isinstance(spec.deliver, FileDelivery):
            for number, file in enumerate(spec.deliver.files):
                if any(_meet(file.path, other) for other in files):
                    yield f"credentials.{index}.deliver.files.{number}.path: {file.path!r} is there already"
                files.add(file.path)


def _meet(one: str, other: str) -> bool:
    """Whether they are one file, or one of them would be the other's folder."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
