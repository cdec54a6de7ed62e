"""What the subcommands share: which policies and data they are about, when and where from, and their exit status."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from gateway.cli import USAGE, Command, add_config, add_json, settings_of, tell
from gateway.errors import DoorwardError
from gateway.studies.engine import Studied, studied
from gateway.studies.errors import StudyError
from gateway.studies.moments import moment
from gateway.studies.questions import ADDRESS, Circumstances
from gateway.studies.sources import live_data, live_policies, read_data, read_policies

DATA = "people, targets, grants ... (JSON or YAML); default: the live OPA's"


def add_sources(parser: argparse.ArgumentParser, *, data: str = DATA) -> None:
    parser.add_argument(
        "--policies",
        type=Path,
        metavar="DIR",
        help="a folder of Rego, or a bundle (.tar.gz); default: the live OPA's own",
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help=data)
    add_config(parser)
    add_json(parser)


def add_circumstances(parser: argparse.ArgumentParser, *, with_at: bool = True) -> None:
    if with_at:
        parser.add_argument("--at", default="now", metavar="TIME", help="RFC 3339, `now`, or from now: +2h, -1d12h")
    parser.add_argument("--from", dest="address", default=ADDRESS, metavar="ADDRESS", help="where they connect from")


def circumstances(parsed: argparse.Namespace) -> Circumstances:
    """When and where from; asked again it is the same moment.  Raises StudyError."""
    if not isinstance(parsed.at, datetime):
        parsed.at = moment(parsed.at)
    try:
        ipaddress.ip_address(parsed.address)
    except ValueError as error:
        raise StudyError(f"--from {parsed.address!r} is no address", remedy="Say for example 192.0.2.7.") from error
    instance = settings_of(parsed).instance if parsed.config else "doorward"
    return Circumstances(parsed.at, parsed.address, instance)


@asynccontextmanager
async def opened(parsed: argparse.Namespace) -> AsyncIterator[Studied]:
    """An OPA of our own on what the options name.  Raises DoorwardError."""
    live = settings_of(parsed).policy if parsed.policies is None or parsed.data is None else None
    policies = read_policies(parsed.policies) if live is None or parsed.policies else await live_policies(live)
    data = read_data(parsed.data) if live is None or parsed.data else await live_data(live)
    async with studied(policies, data) as opa:
        yield opa


def told_apart(command: Command) -> Command:
    """The command with status 2 for what it could not be asked, so that 1 is left for what it found."""

    def run(parsed: argparse.Namespace) -> int:
        try:
            return command(parsed)
        except DoorwardError as error:
            tell(error)
            return USAGE

    return run
