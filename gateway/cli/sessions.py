"""`doorward sessions`: who is inside, and showing them out; by the gateway's socket, or over TCP as automation."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gateway.cli import add_config, add_json, settings_of, show, table, token_of
from gateway.cli.admin import admin, remote_admin
from gateway.errors import SettingsError

Ask = Callable[..., Any]

NEEDS = {"end": "ID", "approve": "ID --by NAME", "refuse": "ID --by NAME"}
"""What has to be said beside the verb."""
TAKES = {"end": {"id", "reason"}, "reevaluate": {"person"}, "approve": {"id", "by"}, "refuse": {"id", "by"}}


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sessions = commands.add_parser("sessions", help="list live sessions, end one, or have all judged again")
    sessions.add_argument(
        "verb",
        nargs="?",
        default="list",
        choices=("list", "end", "reevaluate", "approve", "refuse"),
        help="end one, with a word on its terminal; have policy judge all of them now; answer one that waits for it",
    )
    sessions.add_argument("id", nargs="?", metavar="ID", help="which session")
    sessions.add_argument("--reason", metavar="TEXT", help="end: why; it is on the session's terminal")
    sessions.add_argument("--person", metavar="NAME", help="reevaluate: this person's sessions alone, and sooner")
    sessions.add_argument("--by", metavar="NAME", help="approve, refuse: who answers; policy says whether they may")
    sessions.add_argument("--url", metavar="URL", help="the admin API of a gateway; default: the socket of this one's")
    sessions.add_argument(
        "--token-file", type=Path, metavar="FILE", help="with --url; default: $DOORWARD_TOKEN_FILE, else the "
        "only client's token in the settings",
    )  # fmt: skip
    sessions.add_argument("--ca-file", type=Path, metavar="FILE", help="with --url: its own certificate authority")
    add_config(sessions)
    add_json(sessions)
    sessions.set_defaults(command=_sessions)


def _sessions(parsed: argparse.Namespace) -> int:
    _check(parsed)
    verbs = {"list": _list, "end": _end, "reevaluate": _reevaluate, "approve": _answer, "refuse": _answer}
    return verbs[parsed.verb](parsed, _asking(parsed))


def _check(parsed: argparse.Namespace) -> None:
    """Raises SettingsError for what does not go together."""
    said = {name for name in ("id", "reason", "person", "by") if getattr(parsed, name) is not None}
    if more := said - TAKES.get(parsed.verb, set()):
        named = ", ".join("ID" if name == "id" else f"--{name}" for name in sorted(more))
        raise SettingsError(f"{parsed.verb} takes no {named}", remedy="See `doorward sessions --help`.")
    if TAKES.get(parsed.verb, set()) - {"reason", "person"} - said:
        raise SettingsError(
            f"{parsed.verb}: something is missing", remedy=f"doorward sessions {parsed.verb} {NEEDS[parsed.verb]}"
        )
    if parsed.url is None and (parsed.token_file or parsed.ca_file):
        raise SettingsError(
            "--token-file and --ca-file are for the admin API over TCP", remedy="Name its address with --url."
        )


def _asking(parsed: argparse.Namespace) -> Ask:
    settings = settings_of(parsed)
    if parsed.url is None:
        return lambda *what: admin(settings, *what)
    token = token_of(parsed, settings)
    return lambda *what: remote_admin(parsed.url, token, *what, ca_file=parsed.ca_file)


def _list(parsed: argparse.Namespace, ask: Ask) -> int:
    found = ask("GET", "/v1/sessions")["sessions"]
    waiting = ask("GET", "/v1/approvals")["waiting"]
    rows = [
        [s["id"], s["person"], s["target"], s["grant"], s["expires_at"], f"{s['idle_seconds']:.0f} s", s["backend"]]
        for s in found
    ]
    heads = ["SESSION", "PERSON", "TARGET", "GRANT", "UNTIL", "IDLE", "BACKEND"]
    text = table(rows, heads) if rows else "no live sessions"
    if waiting:
        text += "\n\n" + _waiting(waiting)
    show(parsed, [*found, *({**one, "waiting": True} for one in waiting)], text)
    return 0


def _waiting(waiting: list[dict[str, Any]]) -> str:
    rows = [[w["id"], w["person"], w["target"], w["grant"], w["until"], w["approvers"], w["reason"]] for w in waiting]
    return table(rows, ["WAITING", "PERSON", "TARGET", "GRANT", "UNTIL", "FOR", "REASON"])


def _end(parsed: argparse.Namespace, ask: Ask) -> int:
    why = f"?reason={quote(parsed.reason, safe='')}" if parsed.reason else ""
    ask("DELETE", f"/v1/sessions/{quote(parsed.id, safe='')}{why}")
    show(parsed, {"ended": parsed.id}, f"ended {parsed.id}")
    return 0


def _reevaluate(parsed: argparse.Namespace, ask: Ask) -> int:
    whose = f"?person={quote(parsed.person, safe='')}" if parsed.person else ""
    judged = ask("POST", f"/v1/reevaluate{whose}")
    show(parsed, judged, f"judged {judged['judged']} sessions")
    return 0


def _answer(parsed: argparse.Namespace, ask: Ask) -> int:
    value = {"approve": parsed.verb == "approve", "by": parsed.by}
    told = ask("POST", f"/v1/approvals/{quote(parsed.id, safe='')}", value)
    lines = [f"session {told['session']}: {told['outcome']}"]
    lines += [f"{reason['code']}: {reason['message']} {reason.get('remedy', '')}" for reason in told["reasons"]]
    show(parsed, told, "\n".join(lines))
    return 0 if told["outcome"] == ("approved" if value["approve"] else "refused") else 1
