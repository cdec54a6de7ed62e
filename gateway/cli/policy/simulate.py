"""`doorward policy simulate`: one connection's whole story, without connecting."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from gateway.cli import FAILED, show
from gateway.cli.policy.sources import add_circumstances, add_sources, circumstances, opened, told_apart
from gateway.studies.proofs import WORDS as PROOFS
from gateway.studies.requests import all_named
from gateway.studies.simulation import Step, Story, expected, meets, simulate
from gateway.words import printable


def add_to(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser("simulate", help="what would happen if PERSON connected; exit 1 if it is refused")
    parser.add_argument("--person", required=True)
    parser.add_argument("--target", default="", help="the one that is named in the login; default: none is")
    parser.add_argument(
        "--proof", action="append", default=[], metavar="PROOF",
        help=f"what is shown: {PROOFS}; repeatable, in order; default: the shortest way in that there is",
    )  # fmt: skip
    parser.add_argument(
        "--request", action="append", default=[], metavar="REQUEST",
        help="what has to be allowed: shell, `exec psql`, `sftp read /srv/x`, ...; repeatable; default: typical ones"
        " are told, and none has to be",
    )  # fmt: skip
    parser.add_argument("--expect", metavar="OUTCOME", help="allow, deny or deny:CODE: exit 0 if it comes so, 1 if not")
    add_circumstances(parser)
    add_sources(parser)
    parser.set_defaults(command=told_apart(_simulate))


def _simulate(parsed: argparse.Namespace) -> int:
    expectation = expected(parsed.expect) if parsed.expect else ""
    story = asyncio.run(_told(parsed))
    is_met = meets(story.outcome, expectation or "allow")
    value = {**asdict(story), "outcome": story.outcome, "expected": expectation, "met": is_met}
    show(parsed, value, "\n".join(map(printable, _lines(story, expectation))))
    return 0 if is_met else FAILED


async def _told(parsed: argparse.Namespace) -> Story:
    when, requests = circumstances(parsed), all_named(parsed.request) or None
    async with opened(parsed) as opa:
        return await simulate(opa, when, parsed.person, parsed.target, proofs=parsed.proof, requests=requests)


def _lines(story: Story, expectation: str) -> Iterator[str]:
    yield f"{story.login.name} at {story.at}"
    yield from (f"note: {note}" for note in story.notes)
    yield ""
    for tried in story.login.tried:
        yield f"  {tried.proof}: {tried.outcome}   (assumed: {tried.assumed})"
    for step in story.steps:
        yield from _step(step)
        if step.step == "authn" and story.login.identity is not None:
            groups = ", ".join(story.login.identity.get("groups") or ()) or "none"
            yield f"      as {story.login.identity.get('person')}, proven by {story.login.chain}; groups: {groups}"
    if story.permit is not None:
        yield from (f"      {line}" for line in _permit(story.permit))
    for step in story.requests:
        yield from _step(step)
    yield ""
    yield f"outcome: {story.outcome}" + (f", expected: {expectation}" if expectation else "")


def _step(step: Step) -> Iterator[str]:
    obligations = [str(one.get("kind")) for one in (step.answer or {}).get("obligations") or ()]
    on = f"   on condition: {', '.join(obligations)}" if obligations else ""
    yield f"  {'allowed' if step.allowed else 'DENIED '}  {step.step}{on}"
    for reason in step.reasons:
        yield f"      {reason['code']}: {reason.get('message', '')}"
        if reason.get("remedy"):
            yield f"      what to do: {reason['remedy']}"


def _permit(permit: Mapping[str, Any]) -> Iterator[str]:
    """The permit in short."""
    workspace = permit.get("workspace") or {}
    yield f"grant {permit.get('grant')} for {permit.get('target')}, until {permit.get('expires_at')}"
    yield f"workspace: {workspace.get('backend')}, {workspace.get('image')}"
    ways = [f"{way.get('host')}:{way.get('port')}" for way in (workspace.get("network") or {}).get("egress") or ()]
    yield f"reaches: {', '.join(ways) or 'nothing'}"
    names = [
        f"{one.get('name')} ({one.get('issuer')}, role {one.get('role')})" for one in permit.get("credentials") or ()
    ]
    yield f"credentials: {', '.join(names) or 'none'}"
    if workspace.get("force_command"):
        yield f"runs only: {workspace['force_command']}"
