"""The example data of the demo stack: one person, one target, and what the gateway needs to serve them."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

from gateway.settings import to_toml as settings_toml
from tests.stack.opa import Opa
from tests.stack.postgres import Postgres
from tests.stack.process import write_secret

PERSON = "alice"
TARGET = "orders-db"
ROLE = "orders-readonly"


def orders_target(image: str, postgres: Postgres) -> dict[str, object]:
    """A debug container beside the orders database, read-only."""
    return {
        "description": "A read-only look at the orders database",
        "backend": "docker",
        "image": image,
        "limits": {"memory_bytes": 512 * 2**20, "cpus": 1.0, "pids": 256, "tmpfs_bytes": 64 * 2**20},
        "network": {
            "egress": [{"host": TARGET, "port": 5432, "address": {"host": postgres.host, "port": postgres.port}}]
        },
        "env": {"LANG": "C.UTF-8"},
        "credentials": [
            {
                "name": "orders",
                "issuer": "vault",
                "role": ROLE,
                "ttl_seconds": 60,
                "deliver": {"kind": "postgres", "host": TARGET, "port": 5432, "dbname": postgres.database},
            }
        ],
        "session": {
            "idle_seconds": 1800,
            "max_seconds": 28800,
            "warn_seconds": 120,
            "max_channels": 32,
            "policy_grace_seconds": 30,
        },
        "max_grant_seconds": 8 * 3600,
        "ask": "#orders-oncall",
        "approvers": "the orders team lead",
        "allow": {
            "shell": True,
            "exec": True,
            "sftp": True,
            "forwards": [{"host": TARGET, "port": 5432}],
            "env": ["LANG", "LC_*", "TERM"],
        },
    }


def load(opa: Opa, targets: Mapping[str, object], keys: Mapping[str, str]) -> None:
    """Write targets and people (name to public key) into OPA, as its administrator."""
    for name, target in targets.items():
        opa.put(f"targets/{name}", target)
    for person, key in keys.items():
        opa.put(f"people/{person}", {"keys": [key], "groups": ["oncall"]})


def ssh_key(directory: Path, person: str = PERSON) -> str:
    """Make `directory/person` and `.pub` unless there; the public key's line."""
    file = directory / person
    if not file.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", person, "-f", str(file)]
        subprocess.run(command, check=True, capture_output=True)
    return file.with_suffix(".pub").read_text().strip()


def door_token(directory: Path) -> Path:
    """The ticketing automation's token for the grants door, and beside it a header file for curl."""
    file = directory / "ticketing.token"
    if not file.exists():
        write_secret(file, secrets.token_urlsafe(32))
    write_secret(directory / "ticketing.header", f"Authorization: Bearer {file.read_text()}\n")
    return file


__all__ = ["PERSON", "ROLE", "TARGET", "door_token", "load", "orders_target", "settings_toml", "ssh_key"]
