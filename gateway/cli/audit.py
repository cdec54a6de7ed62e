"""`doorward audit verify`: is the record whole?"""

from __future__ import annotations

import argparse
from pathlib import Path

from gateway.audit.chain import verify
from gateway.cli import FAILED, add_config, add_json, settings_of, show
from gateway.errors import SettingsError

SHOWN = 20


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    audit = commands.add_parser("audit", help="the audit log").add_subparsers(required=True, metavar="COMMAND")
    check = audit.add_parser("verify", help="find changed, removed or reordered records; exit 1 if there are any")
    check.add_argument("file", nargs="?", type=Path, help="default: the one in the settings")
    add_config(check)
    add_json(check)
    check.set_defaults(command=_verify)


def _verify(parsed: argparse.Namespace) -> int:
    file: Path = parsed.file or settings_of(parsed).audit_file
    try:
        faults = list(verify(file))
        records = sum(1 for _ in file.open("rb"))
    except OSError as error:
        raise SettingsError(f"the audit log cannot be read: {error}") from error
    lines = [f"{file}: {records} records, {'whole' if not faults else f'{len(faults)} faults'}"]
    lines += faults[:SHOWN] + ([f"... and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else [])
    show(parsed, {"file": str(file), "records": records, "faults": faults}, "\n".join(lines))
    return FAILED if faults else 0
