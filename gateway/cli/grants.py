"""`doorward grants`: list them from OPA; add and remove them at the grants door, as automation would."""

from __future__ import annotations

import argparse
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.cli import add_config, add_json, settings_of, show, table
from gateway.cli.admin import door, opa
from gateway.errors import SettingsError
from gateway.policy.contract import rfc3339
from gateway.settings import SecretRef, Settings

MINUTES = 10 * 366 * 24 * 60


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    grants = commands.add_parser("grants", help="list, add or remove grants")
    actions = grants.add_subparsers(required=True, metavar="COMMAND")
    listing = actions.add_parser("list", help="all grants, or one person's")
    listing.add_argument("person", nargs="?")
    listing.set_defaults(command=_list)
    adding = actions.add_parser("add", help="give PERSON access to TARGET")
    adding.add_argument("person")
    adding.add_argument("target")
    adding.add_argument("--minutes", type=float, default=60, help="how long from now (default 60)")
    adding.add_argument("--reason", required=True, help="why, in a sentence")
    adding.add_argument("--approved-by", required=True, metavar="PERSON", help="who said yes; never PERSON")
    adding.add_argument("--id", help="the ticket's id; default: one is made up")
    adding.set_defaults(command=_add)
    removing = actions.add_parser("remove", help="take a grant away; sessions that stand on it end")
    removing.add_argument("person")
    removing.add_argument("id")
    removing.set_defaults(command=_remove)
    for action in (listing, adding, removing):
        add_config(action)
        add_json(action)
    for action in (adding, removing):
        action.add_argument("--door", metavar="URL", help="default: the door of the settings, on this machine")
        action.add_argument("--ca-file", type=Path, metavar="FILE", help="the door's own certificate authority")
        action.add_argument(
            "--token-file",
            type=Path,
            metavar="FILE",
            help="default: $DOORWARD_TOKEN_FILE, else the only client's token",
        )


def _list(parsed: argparse.Namespace) -> int:
    path = f"grants/{parsed.person}" if parsed.person else "grants"
    found = opa(settings_of(parsed), "GET", path).get("result") or {}
    by_person: dict[str, Any] = {parsed.person: found} if parsed.person else found
    rows = [
        [person, grant, *(str(held.get(key, "?")) for key in ("target", "ends_at", "approved_by", "reason"))]
        for person, grants in sorted(by_person.items())
        for grant, held in sorted(grants.items())
    ]
    heads = ["PERSON", "GRANT", "TARGET", "UNTIL", "APPROVED BY", "REASON"]
    show(parsed, by_person, table(rows, heads) if rows else "no grants")
    return 0


def _add(parsed: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    if not 0 < parsed.minutes < MINUTES:
        raise SettingsError(
            "--minutes: a number of minutes, more than 0 and less than ten years'", remedy="For example 60."
        )
    grant = {
        "target": parsed.target,
        "starts_at": rfc3339(now),
        "ends_at": rfc3339(now + timedelta(minutes=parsed.minutes)),
        "reason": parsed.reason,
        "approved_by": parsed.approved_by,
    }
    name = parsed.id or f"cli-{secrets.token_hex(4)}"
    _at_the_door(parsed, "PUT", f"grants/{parsed.person}/{name}", grant)
    show(parsed, {"id": name, **grant}, f"granted: {parsed.person} may reach {parsed.target} until {grant['ends_at']}\n"
         f"take it away again: doorward grants remove {parsed.person} {name}")  # fmt: skip
    return 0


def _remove(parsed: argparse.Namespace) -> int:
    _at_the_door(parsed, "DELETE", f"grants/{parsed.person}/{parsed.id}")
    show(parsed, {"removed": parsed.id}, f"removed: {parsed.person} {parsed.id}")
    return 0


def _at_the_door(parsed: argparse.Namespace, method: str, path: str, value: Any = None) -> Any:
    settings = settings_of(parsed)
    url, token = parsed.door or _door_of(settings), _token(parsed, settings)
    return door(url, token, method, path, value, ca_file=parsed.ca_file)


def _door_of(settings: Settings) -> str:
    if settings.door.listen is None:
        raise SettingsError("door.listen: this gateway has no grants door", remedy="Set it, or name one with --door.")
    return f"{'https' if settings.door.tls_certificate else 'http'}://{settings.door.listen}"


def _token(parsed: argparse.Namespace, settings: Settings) -> str:
    named = parsed.token_file or os.environ.get("DOORWARD_TOKEN_FILE")
    if named:
        return SecretRef(file=Path(named)).read().get_secret_value()
    if len(settings.door.clients) != 1:
        raise SettingsError("which automation's token is meant?", remedy="Name its file with --token-file.")
    return next(iter(settings.door.clients.values())).token.read().get_secret_value()
