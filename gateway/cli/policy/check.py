"""`doorward policy check`: may these policies go to production?"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.assets import folder
from gateway.cli import FAILED, add_json, show
from gateway.cli.policy.sources import told_apart
from gateway.studies.checking import check
from gateway.studies.errors import StudyError
from gateway.words import printable


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("check", help="what is wrong with policies, tests and data; exit 1 if anything is")
    parser.add_argument("--policies", type=Path, metavar="DIR", help="default: those that came with us")
    parser.add_argument("--tests", type=Path, metavar="DIR", help="Rego tests to run, with coverage")
    parser.add_argument("--data", type=Path, metavar="FILE", nargs="+", default=[], help="base documents (JSON)")
    parser.add_argument("--threshold", type=float, default=100.0, metavar="PERCENT", help="of coverage; default: 100")
    add_json(parser)
    parser.set_defaults(command=told_apart(_check))


def _check(parsed: argparse.Namespace) -> int:
    policies = parsed.policies or folder("policies")
    data = {file: _tree(file) for file in parsed.data}
    found = asyncio.run(check(policies, parsed.tests, data, parsed.threshold))
    lines = []
    for finding in found:
        lines.append(f"{finding.file}:{finding.line}: {finding.code}: {finding.message}")
        lines.append(f"    what to do: {finding.remedy}")
    lines.append(f"{len(found)} findings" if found else "nothing found")
    show(parsed, [finding.told() for finding in found], "\n".join(map(printable, lines)))
    return FAILED if found else 0


def _tree(file: Path) -> Mapping[str, Any]:
    try:
        tree = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise StudyError(f"--data {file}: cannot be read: {error}", remedy="Name a file of JSON.") from error
    if not isinstance(tree, dict):
        raise StudyError(f"--data {file}: it is no object", remedy="Name a file that holds people, targets, grants.")
    # What the fixtures of tests hold beside the documents is for the tests.
    return {root: document for root, document in tree.items() if root != "fixtures"}
