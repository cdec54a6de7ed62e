"""`doorward policy who-can | what-can | at`: who reaches what, as policy says it."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict

from gateway.cli import FAILED, show, table
from gateway.cli.policy.sources import add_circumstances, add_sources, circumstances, opened, told_apart
from gateway.studies.access import Access, Pair, Survey
from gateway.studies.requests import all_named

HEADS = ("PERSON", "TARGET", "STATE", "GRANT", "UNTIL", "MAY, OR WHY NOT", "PROOF")
Pairs = Callable[[Survey], Sequence[Pair]]


def add_to(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    who = actions.add_parser("who-can", help="everybody who may enter TARGET; exit 1 if nobody may")
    who.add_argument("target")
    who.set_defaults(command=told_apart(_who_can))
    what = actions.add_parser("what-can", help="every target that PERSON may enter; exit 1 if there is none")
    what.add_argument("person")
    what.set_defaults(command=told_apart(_what_can))
    at = actions.add_parser("at", help="who may enter what at TIME, of all that there is a grant for; exit 1 if nobody")
    at.add_argument("at", metavar="TIME", help="RFC 3339, `now`, or from now: +2h, -1d12h")
    at.add_argument("--person", default="", help="only this person's")
    at.add_argument("--target", default="", help="only for this target")
    at.set_defaults(command=told_apart(_at))
    for parser in (who, what, at):
        parser.add_argument("--all", action="store_true", help="also those who nearly may, and why not")
        parser.add_argument(
            "--request", action="append", default=[], metavar="REQUEST",
            help="ask about this in place of typical requests: `exec psql`, `sftp read /srv/x`, ...; repeatable",
        )  # fmt: skip
        add_circumstances(parser, with_at=parser is not at)
        add_sources(parser)


def _who_can(parsed: argparse.Namespace) -> int:
    return _survey(parsed, lambda survey: survey.pairs(target=parsed.target))


def _what_can(parsed: argparse.Namespace) -> int:
    return _survey(parsed, lambda survey: survey.pairs(person=parsed.person))


def _at(parsed: argparse.Namespace) -> int:
    return _survey(parsed, lambda survey: survey.granted_pairs(parsed.person, parsed.target))


def _survey(parsed: argparse.Namespace, pairs: Pairs) -> int:
    """Everything that is asked for, in one table.  Raises DoorwardError."""
    found, near = asyncio.run(_looked(parsed, pairs))
    shown = [one for one in found if one.allowed] + (near if parsed.all else [])
    others = Counter(one.state for one in found if one not in shown)
    at = circumstances(parsed).facts("")["now"]
    value = {"at": at, "access": [asdict(one) for one in shown], "others": dict(others)}
    show(parsed, value, _text(at, shown, others))
    return 0 if any(one.allowed for one in found) else FAILED


async def _looked(parsed: argparse.Namespace, pairs: Pairs) -> tuple[list[Access], list[Access]]:
    """All that was asked about, and of it the near misses."""
    requests = all_named(parsed.request) or None
    when = circumstances(parsed)
    async with opened(parsed) as opa:
        survey = await Survey.of(opa, when)
        survey.know(person=getattr(parsed, "person", ""), target=getattr(parsed, "target", ""))
        found = await survey.look(pairs(survey), requests)
    return found, [one for one in found if survey.is_near(one)]


def _text(at: str, shown: Sequence[Access], others: Counter[str]) -> str:
    lines = [f"at {at}", table([_row(one) for one in shown], HEADS) if shown else "nobody"]
    if others:
        lines.append("not shown: " + ", ".join(f"{count} with {code}" for code, count in others.most_common()))
    return "\n".join(lines)


def _row(one: Access) -> list[str]:
    why = ", ".join(one.requests) or "nothing" if one.allowed else str(one.reasons[0]["message"])
    return [one.person, one.target, one.state, one.grant or "-", one.until or "-", why, " or ".join(one.proofs) or "-"]
