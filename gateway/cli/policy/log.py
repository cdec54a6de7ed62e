"""`doorward policy log`: decisions on record."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.cli import FAILED, USAGE, add_config, add_json, settings_of, show, table
from gateway.cli.policy.sources import told_apart
from gateway.studies.errors import StudyError
from gateway.studies.moments import since
from gateway.studies.search import Search, search
from gateway.words import printable

HEADS = ("TIME", "DECISION", "PERSON", "TARGET", "REQUEST", "OUTCOME", "REASONS", "ID")
KINDS = ("authn", "config", "authz", "live", "admission", "admin")


def add_to(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser("log", help="decisions on record, newest last; exit 1 if there are none")
    parser.add_argument("--person", default="", help="whom it is about; at the grants door the client")
    parser.add_argument("--target", default="", help="what it is about; at the grants door the path")
    parser.add_argument("--reason", default="", metavar="CODE", help="why it was refused, as no_grant")
    parser.add_argument("--outcome", default="", help="allow, deny, accept, continue, reject, keep, warn, end, failed")
    parser.add_argument("--decision", default="", choices=KINDS, help="which decision it was")
    add_span(parser)
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="the newest N; default: %(default)s")
    add_log(parser)
    add_json(parser)
    parser.set_defaults(command=told_apart(_log))


def add_span(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="TIME", help="7d, 12h, or RFC 3339 with a zone; default: all there is")
    parser.add_argument("--until", metavar="TIME", help="likewise; default: now")


def add_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", type=Path, metavar="FILE", help="the audit log; default: the one in the settings")
    add_config(parser)


def log_of(parsed: argparse.Namespace) -> Path:
    return parsed.log or settings_of(parsed).audit_file


def tell_faults(faults: list[str], shown: int = 20) -> None:
    """What could not be read, on standard error."""
    for fault in faults[:shown]:
        print(printable(f"doorward: log_damaged: {fault}"), file=sys.stderr)
    if faults:
        more = f"{len(faults) - shown} more; " if len(faults) > shown else ""
        print(f"doorward: what to do: {more}`doorward audit verify` says what else is wrong.", file=sys.stderr)


def _log(parsed: argparse.Namespace) -> int:
    if parsed.limit < 1:
        raise StudyError(f"--limit {parsed.limit} shows nothing", remedy="Say how many, as in --limit 100.")
    wanted = Search(
        parsed.person, parsed.target, parsed.reason, parsed.outcome, parsed.decision,
        since(parsed.since) if parsed.since else None, since(parsed.until) if parsed.until else None,
    )  # fmt: skip
    found = search(log_of(parsed), wanted, parsed.limit)
    rows = [_row(one) for one in found.decisions]
    lines = [table(rows, HEADS) if rows else "no decision"]
    if found.count > len(rows):
        lines.append(f"not shown: {found.count - len(rows)} older ones; --limit shows more, --until others")
    value = {"decisions": found.decisions, "count": found.count, "faults": found.faults}
    show(parsed, value, "\n".join(lines))
    tell_faults(found.faults)
    return USAGE if found.faults else 0 if found.count else FAILED


def _row(one: Mapping[str, Any]) -> list[str]:
    names = ("time", "decision", "person", "target", "request", "outcome")
    return [*(str(one[name]) or "-" for name in names), ", ".join(one["reasons"]) or "-", one["id"] or "-"]
