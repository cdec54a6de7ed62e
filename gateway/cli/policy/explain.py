"""`doorward policy explain`: why one decision fell as it did, and what would turn it."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.cli import FAILED, settings_of, show
from gateway.cli.policy.sources import add_sources, told_apart
from gateway.studies.asked import Asked, of_file, of_log
from gateway.studies.engine import studied
from gateway.studies.errors import StudyError
from gateway.studies.explaining import explain
from gateway.studies.proposals import is_refused, outcome_of
from gateway.studies.simulation import expected, meets
from gateway.studies.sources import Data, Policies, live_data, live_policies, read_data, read_policies, tree_of
from gateway.words import printable

THEN, NOW = "then", "now"
WIDE = 110


def add_to(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser("explain", help="why a decision fell as it did, what would turn it; exit 1 if denied")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--decision", metavar="ID", help="one on record, by the id that was shown with it")
    what.add_argument("--input", type=Path, metavar="FILE", help="a question, as JSON (docs/reference/input.md)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="the audit log; default: the one of the settings")
    parser.add_argument("--session", default="", metavar="ID", help="of a question about live sessions: this one")
    parser.add_argument("--expect", metavar="OUTCOME", help="allow, deny or deny:CODE: exit 0 if it comes so, 1 if not")
    add_sources(
        parser,
        data="base documents (JSON or YAML); `then`: as the decision on record read them; `now`: the live OPA's;"
        " default: then, and for --input now",
    )
    parser.set_defaults(command=told_apart(_explain))


def _explain(parsed: argparse.Namespace) -> int:
    expectation = expected(parsed.expect) if parsed.expect else ""
    told = asyncio.run(_told(parsed))
    is_met = meets(told["outcome"], expectation) if expectation else not told["outcome"].startswith("deny:")
    told |= {"expected": expectation, "met": is_met}
    show(parsed, told, "\n".join(map(printable, _lines(told))))
    return 0 if is_met else FAILED


async def _told(parsed: argparse.Namespace) -> dict[str, Any]:
    asked = of_log(_log(parsed), parsed.decision) if parsed.decision else of_file(parsed.input)
    policies, which_policies = await _policies(parsed, asked)
    data, which_data = await _data(parsed, asked)
    tree = await asyncio.to_thread(tree_of, data)
    async with studied(policies, data) as opa:
        explanation, veil = await explain(opa, tree, asked.decision, asked.question, parsed.session)
    told: dict[str, Any] = asdict(explanation)
    notes = [*asked.notes, *told.pop("notes")]
    told |= {"policies": which_policies, "data": which_data, "decision_id": asked.record.get("decision_id")}
    if asked.record:
        was, _ = outcome_of(asked.decision, asked.answer)
        told["recorded"] = was
        if was != told["outcome"]:
            notes.append(f"the answer on record is {was}: other policies, or other data, answered then")
    shown: dict[str, Any] = veil.value({**told, "notes": notes, "input": asked.question})
    return shown


def _log(parsed: argparse.Namespace) -> Path:
    return parsed.log or settings_of(parsed).audit_file


async def _policies(parsed: argparse.Namespace, asked: Asked) -> tuple[Policies, str]:
    revision = asked.record.get("policy_revision")
    then = f"; those of then were {revision}" if revision else ""
    if parsed.policies:
        return read_policies(parsed.policies), f"{parsed.policies}{then}"
    return await live_policies(settings_of(parsed).policy), f"of now, the live OPA's{then}"


async def _data(parsed: argparse.Namespace, asked: Asked) -> tuple[Data, str]:
    which = str(parsed.data) if parsed.data else THEN if parsed.decision else NOW
    if which == THEN and asked.basis is None:
        why = "no record says what this decision read" if parsed.decision else "it goes with --decision"
        raise StudyError(f"--data then: {why}", remedy="Say --data now, or name a file with --data.")
    if which == THEN:
        return Data.of(asked.basis or {}), "of then, as the decision on record read them, and nothing else"
    if which == NOW:
        return await live_data(settings_of(parsed).policy), "of now, the live OPA's"
    return read_data(parsed.data), f"of the file {parsed.data}"


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"{told['decision']} of {told['about']} at {told['at']}"
    yield f"policies: {told['policies']}"
    yield f"data: {told['data']}"
    yield from (f"note: {note}" for note in told["notes"])
    yield ""
    yield f"outcome: {told['outcome']}" + (f", expected: {told['expected']}" if told["expected"] else "")
    for reason in told["reasons"]:
        yield f"  {reason.get('code')}: {reason.get('message', '')}"
        if reason.get("remedy"):
            yield f"  what to do: {reason['remedy']}"
    if told["relied_on"]:
        yield f"  relied on: {', '.join(f'{name} {_short(value)}' for name, value in told['relied_on'].items())}"
    if told["fired"]:
        yield from ("", "the rules that made it")
        for rule in told["fired"]:
            yield _cut(f"  {rule['file']}:{rule['line']}: {rule['text']}")
    if told["failed"]:
        yield from ("", "the conditions that failed, each with what it needed")
        for condition in told["failed"]:
            yield from _condition(condition)
    yield from _proposals(told)


def _condition(condition: Mapping[str, Any]) -> Iterator[str]:
    margin = "  " * (condition["depth"] + 1)
    held = "held: " if condition["held"] else ""
    yield _cut(f"{margin}{condition['file']}:{condition['line']}: {held}{condition['text']}")
    values = [f"{name} is {_short(value)}" for name, value in condition["values"].items()]
    values += [f"{name} is undefined" for name in condition["undefined"]]
    if values:
        yield _cut(f"{margin}    {'; '.join(values)}", 2 * WIDE)


def _proposals(told: Mapping[str, Any]) -> Iterator[str]:
    found = told["proposals"]["found"]
    if found:
        yield from ("", "the shortest change that would allow it; tried, and it does")
    for number, one in enumerate(found, 1):
        yield f"  {number}. {'; and '.join(one['steps'])}"
        yield from (f"     {note}" for note in one["notes"])
        yield from (f"     {command}" for command in one["commands"])
        if one["question"]:
            yield f"     asked then: {json.dumps(one['question'], ensure_ascii=False)}"
    if is_refused(told["outcome"]) and not found:
        yield from ("", "no change is known that would allow it")
        if told["proposals"]["why_none"]:
            yield f"  {told['proposals']['why_none']}"
        yield from (f"  tried: {tried}" for tried in told["proposals"]["tried"])


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _cut(text: str, most: int = 2 * WIDE) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
