"""`doorward policy replay`: what a changed policy would have done to the decisions on record."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from gateway.cli import FAILED, USAGE, add_json, settings_of, show
from gateway.cli.policy.log import add_log, add_span, log_of, tell_faults
from gateway.cli.policy.progress import Bar, bar
from gateway.cli.policy.replay_report import markdown, text
from gateway.cli.policy.sources import told_apart
from gateway.studies.engine import studied
from gateway.studies.errors import StudyError
from gateway.studies.moments import since
from gateway.studies.replaying import Span, count, replay, unrecorded
from gateway.studies.sources import Data, live_data, read_data, read_policies
from gateway.studies.tally import Tally

EFFECTS = {"gains": "gains", "losses": "loses", "changes": "changes"}
LOGGED, LIVE, NOTHING = "logged", "live", "nothing"


def add_to(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "replay", help="decisions on record under a changed policy: who gains, who loses; exit 1 beyond a threshold"
    )
    parser.add_argument("--against", type=Path, metavar="DIR", required=True, help="the changed policies, or a bundle")
    add_span(parser)
    parser.add_argument(
        "--data", default=LOGGED, metavar="WHICH",
        help="logged: what each decision stood on; live: what the live OPA holds now; or a file; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--fail-on", default=",".join(EFFECTS), metavar="WHAT",
        help="which differences count for the exit status: gains,losses,changes, or nothing; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--max", type=int, default=0, metavar="N", help="how many of them are fine; default: 0")
    parser.add_argument(
        "--allow-incomplete", action="store_true", help="no exit 2 where something could not be asked again"
    )
    parser.add_argument("--markdown", action="store_true", help="print a report for a comment on the change")
    add_log(parser)
    add_json(parser)
    parser.set_defaults(command=told_apart(_replay))


def _replay(parsed: argparse.Namespace) -> int:
    effects = effects_of(parsed.fail_on)
    if parsed.max < 0:
        raise StudyError(
            f"--max {parsed.max} is below none", remedy="Say how many differences are fine, as in --max 10."
        )
    tally = asyncio.run(_tallied(parsed))
    value = {
        "against": str(parsed.against), "data": parsed.data, **tally.told(),
        "counted": tally.count(effects), "met": tally.count(effects) <= parsed.max,
    }  # fmt: skip
    show(parsed, value, markdown(value) if parsed.markdown else text(value))
    tell_faults(tally.faults)
    return status_of(value, allow_incomplete=parsed.allow_incomplete)


def status_of(found: Mapping[str, Any], *, allow_incomplete: bool) -> int:
    """More differences than are fine come first: they were found, whatever else was not."""
    if not found["met"]:
        return FAILED
    return 0 if found["whole"] or allow_incomplete else USAGE


async def _tallied(parsed: argparse.Namespace) -> Tally:
    span = Span(since(parsed.since) if parsed.since else None, since(parsed.until) if parsed.until else None)
    log = log_of(parsed)
    policies = read_policies(parsed.against)
    on_record = parsed.data == LOGGED
    data = Data.of({}) if on_record else await _data(parsed)
    shown: AbstractContextManager[Bar] = bar(count(log, span.since)) if sys.stderr.isatty() else nullcontext(_silent)
    with shown as progress:
        async with studied(policies, data) as opa:
            tally = await replay(opa, log, span, on_record=on_record, progress=progress)
    if on_record:
        tally.unrecorded = await asyncio.to_thread(unrecorded, policies, tally)
    return tally


async def _data(parsed: argparse.Namespace) -> Data:
    return await live_data(settings_of(parsed).policy) if parsed.data == LIVE else read_data(Path(parsed.data))


def effects_of(words: str) -> set[str]:
    named = [word.strip() for word in words.split(",")]
    if named == [NOTHING]:
        return set()
    if unknown := [word for word in named if word not in EFFECTS]:
        raise StudyError(f"--fail-on {unknown[0]!r} is none", remedy=f"Say some of {', '.join(EFFECTS)}, or {NOTHING}.")
    return {EFFECTS[word] for word in named}


def _silent(_: int) -> Any:
    return None
