"""The example data of the demo stack: one person, one target, and what the gateway needs to serve them."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.model import Address
from gateway.settings import to_toml as settings_toml
from gateway.standalone import AUTOMATION, AUTOMATION_RIGHTS, PERSON, ROLE, TARGET, example_target
from tests.stack.opa import Opa
from tests.stack.postgres import Postgres
from tests.stack.process import write_secret

OPEN: dict[str, Any] = {
    "max_startups": "1000:30:1000",
    "max_startups_per_source": 1000,
    "penalties": {"exempt": ["127.0.0.0/8", "::1/128"]},
}
"""Settings of `[ssh]` for a gateway whose engineers, good and bad, all come from this machine at once."""


def orders_target(image: str, postgres: Postgres) -> dict[str, object]:
    """The example's target on real parts: a debug container, credentials from Vault."""
    return example_target(Address(host=postgres.host, port=postgres.port), "docker", image, "vault")


def load(opa: Opa, targets: Mapping[str, object], keys: Mapping[str, str]) -> None:
    """Write targets and people (name to public key) into OPA, as its administrator; and what ticketing may do."""
    opa.put(f"automations/{AUTOMATION}", AUTOMATION_RIGHTS)
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
