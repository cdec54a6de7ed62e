"""`doorward grants token`: a token for a new client of the grants door, and what to write into the settings for it."""

from __future__ import annotations

import argparse
import hashlib
import re
import secrets

from gateway.cli import add_json, show
from gateway.errors import SettingsError

PREFIX = "dwg_"
"""By which scanners find a token that was committed by mistake."""


def add_to(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    making = actions.add_parser("token", help="make a token for a new client of the grants door")
    making.add_argument("name", help="what the client is called on record, and in data.automations")
    add_json(making)
    making.set_defaults(command=_make)


def _make(parsed: argparse.Namespace) -> int:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", parsed.name):
        raise SettingsError(
            "NAME: 1 to 64 letters, digits, dots, underscores or hyphens", remedy="For example ticketing."
        )
    token = PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    line = (
        f'clients.{parsed.name}.token_sha256 = ["{digest}"]'
        if "." not in parsed.name
        else (f'clients."{parsed.name}".token_sha256 = ["{digest}"]')
    )
    show(
        parsed,
        {"name": parsed.name, "token": token, "token_sha256": digest},
        f"{token}\n\nIt is shown this once, for the client alone. In the settings, under [door]:\n\n  {line}\n\n"
        f"and in OPA what it may do: data.automations.{parsed.name} (docs/grants.md).",
    )
    return 0
