"""The `doorward` command.  One file for each group of commands; every one that prints data knows `--json`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.errors import DoorwardError, SettingsError
from gateway.sections import SecretRef
from gateway.settings import Settings, load
from gateway.words import printable

USAGE = 2
FAILED = 1

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0 done, 1 failed or found a fault, 2 used wrongly."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    try:
        command: Command = parsed.command
        return command(parsed)
    except DoorwardError as error:
        tell(error)
        return FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def tell(error: DoorwardError) -> None:
    """What went wrong and what to do, on standard error."""
    for reason in error.reasons:
        print(printable(f"doorward: {reason.code}: {reason.message}"), file=sys.stderr)
        if reason.remedy:
            print(printable(f"doorward: what to do: {reason.remedy}"), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    from gateway.cli import audit, checks, grants, policy, run, secrets, sessions

    parser = argparse.ArgumentParser(prog="doorward", description="The door to production for people on call.")
    parser.add_argument("--version", action="version", version=f"doorward {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (run, checks, sessions, grants, policy, audit, secrets):
        module.add_to(commands)
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=os.environ.get("DOORWARD_CONFIG"),
        help="settings (TOML); default: $DOORWARD_CONFIG, else only DOORWARD_* variables",
    )  # fmt: skip


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def settings_of(parsed: argparse.Namespace) -> Settings:
    return load(Path(parsed.config) if parsed.config else None)


def token_of(parsed: argparse.Namespace, settings: Settings) -> str:
    """An automation's token: in `--token-file` or `DOORWARD_TOKEN_FILE`, else the only client's in the settings."""
    named = parsed.token_file or os.environ.get("DOORWARD_TOKEN_FILE")
    if named:
        return SecretRef(file=Path(named)).read().get_secret_value()
    tokens = [client.token for client in settings.door.clients.values() if client.token is not None]
    if len(settings.door.clients) != 1 or not tokens:
        raise SettingsError("which automation's token is meant?", remedy="Name its file with --token-file.")
    return tokens[0].read().get_secret_value()


def show(parsed: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(value, indent=2, sort_keys=True) if parsed.json else text)


def table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    """Columns as wide as they need to be."""
    shown = [[printable(cell) for cell in row] for row in [heads, *rows]]
    widths = [max(len(row[column]) for row in shown) for column in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in shown)  # fmt: skip
