"""`doorward audit verify`: is the record whole?"""

from __future__ import annotations

import argparse
from pathlib import Path

from gateway.audit.chain import Tally, verify
from gateway.cli import FAILED, add_config, add_json, settings_of, show
from gateway.errors import SettingsError
from gateway.words import printable

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
        tally = Tally()
        faults = list(verify(file, tally))
    except OSError as error:
        raise SettingsError(f"the audit log cannot be read: {error}") from error
    counted = f"{tally.records} records" + (f" in {tally.files} files" if tally.files > 1 else "")
    lines = [f"{file}: {counted}, {'whole' if not faults else f'{len(faults)} faults'}"]
    lines += faults[:SHOWN] + ([f"... and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else [])
    shown = {"file": str(file), "files": tally.files, "records": tally.records, "faults": faults}
    show(parsed, shown, "\n".join(map(printable, lines)))
    return FAILED if faults else 0
