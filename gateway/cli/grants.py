"""`doorward grants`: what is granted, and its life, written at the grants door as automation would."""

from __future__ import annotations

import argparse
import secrets
from datetime import UTC, datetime

from gateway.cli import (
    add_config,
    add_json,
    grants_apply,
    grants_door,
    grants_life,
    grants_lint,
    grants_list,
    grants_token,
    show,
)
from gateway.cli.grants_door import Door, UnknownGrant, path_of
from gateway.cli.grants_times import minutes_of
from gateway.cli.manifests import read
from gateway.policy.contract import rfc3339


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    grants = commands.add_parser("grants", help="the life of a grant: request, approve, extend, end; list and show")
    actions = grants.add_subparsers(required=True, metavar="COMMAND")
    listings = grants_list.add_to(actions)
    steps = grants_life.add_to(actions)
    adding = actions.add_parser("add", help="give PERSON access to TARGET, which somebody approved")
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
    grants_token.add_to(actions)
    applying = grants_apply.add_to(actions)
    applying.set_defaults(command=_apply)
    linting = grants_lint.add_to(actions)
    for action in (*listings, *steps, adding, removing, applying, linting):
        add_config(action)
        add_json(action)
    for action in (*steps, adding, removing, applying):
        grants_door.add_to(action)


def _add(parsed: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    grant = {
        "target": parsed.target,
        "starts_at": rfc3339(now),
        "ends_at": rfc3339(now + minutes_of(parsed.minutes)),
        "reason": parsed.reason,
        "approved_by": parsed.approved_by,
    }
    name = parsed.id or f"cli-{secrets.token_hex(4)}"
    Door.of(parsed).write(path_of("grants", parsed.person, name), grant)
    show(parsed, {"id": name, **grant}, f"granted: {parsed.person} may reach {parsed.target} until {grant['ends_at']}\n"
         f"take it away again: doorward grants remove {parsed.person} {name}")  # fmt: skip
    return 0


def _remove(parsed: argparse.Namespace) -> int:
    if not Door.of(parsed).remove(path_of("grants", parsed.person, parsed.id)):
        raise UnknownGrant(parsed.person, parsed.id)  # a name that was mistyped must not be taken for access that ended
    show(parsed, {"removed": parsed.id}, f"removed: {parsed.person} {parsed.id}")
    return 0


def _apply(parsed: argparse.Namespace) -> int:
    manifests = read(parsed.file)  # what is wrong in the folder is told whether or not there is a door
    return grants_apply.apply(parsed, manifests, Door.of(parsed).ask)
