"""Leases as what the stock clients look for: files, and the names of files in the environment; never a secret there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.deliveries import OPTIONS, SERVICES, FileDelivery, MysqlDelivery, PostgresDelivery, RedisDelivery
from gateway.errors import CredentialsUnavailable
from gateway.model import DeliveredFile, Lease, Logins

MAX_BYTES = 128 * 1024
"""Of all files together: the agent is told of them in one SSH packet, and takes 256 KiB of those."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one session's leases become."""

    env: dict[str, str]
    files: list[DeliveredFile]
    logins: Logins


def delivery(leases: Sequence[Lease], directory: str) -> Delivery:
    """What lets the clients find `leases` with no argument, with files in `directory`.

    Of each kind the first lease is its default; the others go by their names.  Names and paths do not clash: a permit
    where they do is none.  Raises CredentialsUnavailable, which quotes no secret.
    """
    postgres = [lease for lease in leases if isinstance(lease.spec.deliver, PostgresDelivery)]
    mysql = [lease for lease in leases if isinstance(lease.spec.deliver, MysqlDelivery)]
    env: dict[str, str] = {}
    files: list[DeliveredFile] = []
    if postgres:
        path = f"{directory}/{SERVICES}"
        env |= {"PGSERVICEFILE": path, "PGSERVICE": postgres[0].spec.name}
        files.append(_private(path, "\n".join(map(_service, postgres))))
    if mysql:
        env |= {"MYSQL_HOME": directory}
        groups = [_group(lease, "") for lease in mysql[:1]] + [_group(lease, f"_{lease.spec.name}") for lease in mysql]
        files.append(_private(f"{directory}/{OPTIONS}", f"{DUMP}\n" + "\n".join(groups)))
    for lease in leases:
        files += _made_of(lease, directory)
    if sum(len(file.data) for file in files) > MAX_BYTES:
        raise _unfit(f"the credentials' files are larger than {MAX_BYTES} bytes together")
    logins = {
        (where.host, where.port): lease for lease in leases if isinstance(where := lease.spec.deliver, RedisDelivery)
    }
    return Delivery(env, files, logins)


def _private(path: str, text: str) -> DeliveredFile:
    return DeliveredFile(path=path, mode=0o600, data=text.encode())


def _unfit(what: str) -> CredentialsUnavailable:
    return CredentialsUnavailable(
        what,
        code="credential_unfit",
        remedy="Nothing is wrong with your grant. Platform team: the secret and the target's `deliver` do not fit.",
    )


# --- libpq


def _service(lease: Lease) -> str:
    """A section of a service file, where a value is the rest of its line."""
    where = lease.spec.deliver
    assert isinstance(where, PostgresDelivery)
    return (
        f"[{lease.spec.name}]\nhost={_line(lease, where.host)}\nport={where.port}\n"
        f"dbname={_line(lease, where.dbname)}\n"
        f"user={_line(lease, lease.username)}\npassword={_line(lease, lease.password.get_secret_value())}\n"
        f"application_name=doorward\n"
    )


def _line(lease: Lease, value: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise _unfit(f"the credential {lease.spec.name!r} holds a control character, which its file cannot")
    return value


# --- MySQL and MariaDB

DUMP = "[mysqldump]\nsingle-transaction\nno-tablespaces\n"
"""So that a dump takes no lock, which a reader's role may not."""


def _group(lease: Lease, suffix: str) -> str:
    """Options of every client, and of `mysql` alone: others know no default database, and refuse it."""
    where = lease.spec.deliver
    assert isinstance(where, MysqlDelivery)
    user, password = (_quoted(lease, value) for value in (lease.username, lease.password.get_secret_value()))
    return (
        f"[client{suffix}]\nprotocol=tcp\nhost={_quoted(lease, where.host)}\nport={where.port}\nuser={user}\n"
        f"password={password}\n[mysql{suffix}]\ndatabase={_quoted(lease, where.dbname)}\n"
    )


def _quoted(lease: Lease, value: str) -> str:
    """As an option file has it: in quotes, within which a backslash stands for itself only when doubled."""
    return '"' + _line(lease, value).replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- files of a static secret


def _made_of(lease: Lease, directory: str) -> Iterable[DeliveredFile]:
    where = lease.spec.deliver
    if not isinstance(where, FileDelivery):
        return
    for file in where.files:
        data = _text(lease, file.key).encode()
        yield DeliveredFile(path=f"{directory}/{file.path}", mode=int(file.mode, 8), data=data)


def _text(lease: Lease, key: str) -> str:
    if not key:
        return json.dumps(lease.secret)
    value = lease.secret.get(key)
    if not isinstance(value, str):
        lacks = "no text at the key" if key in lease.secret else "no key"
        raise _unfit(f"the secret of the credential {lease.spec.name!r} has {lacks} {key!r}")
    return value
