"""`doorward sessions`: who is inside, and showing them out."""

from __future__ import annotations

import argparse

from gateway.cli import add_config, add_json, settings_of, show, table
from gateway.cli.admin import admin


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sessions = commands.add_parser("sessions", help="list live sessions, end one, or have all judged again")
    sessions.add_argument("--end", metavar="ID", help="end this session, with a word on its terminal")
    sessions.add_argument("--reevaluate", action="store_true", help="ask policy about all live sessions now")
    add_config(sessions)
    add_json(sessions)
    sessions.set_defaults(command=_sessions)


def _sessions(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    if parsed.end:
        admin(settings, "DELETE", f"/v1/sessions/{parsed.end}")
        show(parsed, {"ended": parsed.end}, f"ended {parsed.end}")
        return 0
    if parsed.reevaluate:
        judged = admin(settings, "POST", "/v1/reevaluate")
        show(parsed, judged, f"judged {judged['judged']} sessions")
        return 0
    found = admin(settings, "GET", "/v1/sessions")["sessions"]
    rows = [
        [s["id"], s["person"], s["target"], s["grant"], s["expires_at"], f"{s['idle_seconds']:.0f} s", s["backend"]]
        for s in found
    ]
    heads = ["SESSION", "PERSON", "TARGET", "GRANT", "UNTIL", "IDLE", "BACKEND"]
    show(parsed, found, table(rows, heads) if rows else "no live sessions")
    return 0
