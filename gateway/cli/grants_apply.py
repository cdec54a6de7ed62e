"""`doorward grants apply`: make the grants door hold what a folder says, all of it at once or nothing."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx

from gateway.cli import show, table
from gateway.cli.admin import refusal
from gateway.cli.manifests import Manifest
from gateway.cli.plan import Action, Step, plan
from gateway.errors import DoorwardError
from gateway.model import Reason

TO_DO = 2
"""Exit status of a dry run that found something to do, as of `terraform plan -detailed-exitcode`."""
LIMIT = 1000

Ask = Callable[..., httpx.Response]


def add_to(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    applying = actions.add_parser("apply", help="make the door hold what a folder of YAML or JSON files says")
    applying.add_argument("--file", "-f", type=Path, required=True, metavar="DIR", help="the folder")
    applying.add_argument("--prune", action="store_true", help="remove what this client wrote and the folder lacks")
    applying.add_argument(
        "--dry-run", action="store_true", help="show the plan, ask policy, and write nothing; exit status 2: to do"
    )
    return applying


def apply(parsed: argparse.Namespace, manifests: Sequence[Manifest], ask: Ask) -> int:
    """`ask(method, path, value)` asks the door."""
    paths = (
        ["grants"]
        if parsed.prune
        else [f"grants/{quote(name, safe='')}" for name in sorted({held.person for held in manifests})]
    )
    answers = {path: _good(ask("GET", path)) for path in paths}
    if not answers:
        show(parsed, {"steps": [], "written": False}, "nothing to do")
        return 0
    client = next(iter(answers.values())).headers.get("doorward-client", "")
    stored: dict[str, Any] = {}
    for path, answer in answers.items():
        found = _body(answer).get("result") or {}
        stored |= found if path == "grants" else {unquote(path.partition("/")[2]): found}
    steps = plan(manifests, stored, client, prune=parsed.prune)
    todo = [step for step in steps if step.action is not Action.UNCHANGED]
    _write(todo, ask, dry_run=parsed.dry_run)
    _show(parsed, steps)
    return TO_DO if parsed.dry_run and todo else 0


def _write(steps: Sequence[Step], ask: Ask, *, dry_run: bool) -> None:
    if len(steps) > LIMIT:
        raise DoorwardError(
            f"the plan changes {len(steps)} grants; at once, and so all or none, it can be {LIMIT}",
            code="too_many", remedy="Apply a part of the folder first.",
        )  # fmt: skip
    operations, owners = [], []
    for step in steps:
        operations += step.operations()
        owners += [step] * 2
    if not operations:
        return
    answer = ask("PATCH", "grants?dry-run=true" if dry_run else "grants", operations)
    if answer.is_error:
        raise _refusal(answer, owners)


def _refusal(answer: httpx.Response, owners: Sequence[Step]) -> DoorwardError:
    body = _body(answer)
    errors = [error for error in body.get("errors", []) if isinstance(error, dict)]
    return refusal(answer, body, [_reason(error, owners) for error in errors])


def _reason(error: dict[str, Any], owners: Sequence[Step]) -> Reason:
    index = error.get("index")
    step = owners[index] if isinstance(index, int) and 0 <= index < len(owners) else None
    where = f"{step.file or 'pruned'}: {step.person}/{step.id}: " if step else ""
    field = f"{error['field']}: " if error.get("field") else ""
    remedy = str(error.get("remedy", ""))
    code = str(error.get("code", "refused"))
    if code == "precondition_failed":
        code, remedy = "conflict", "Run it again: it reads what is there now, and shows what would become of it."
    return Reason(code=code, message=f"{where}{field}{error.get('message', '')}"[:500], remedy=remedy[:500])


def _good(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise _refusal(answer, [])
    return answer


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError as error:
        raise DoorwardError(f"{answer.url.host} answered with no JSON: is it the right address?") from error
    return body if isinstance(body, dict) else {}


def _show(parsed: argparse.Namespace, steps: Sequence[Step]) -> None:
    rows = [[step.action, step.person, step.id, step.file or "-", step.fields()] for step in steps]
    count = Counter(step.action for step in steps)
    verbs = {Action.CREATE: "to create", Action.CHANGE: "to change", Action.DELETE: "to delete"}
    if not parsed.dry_run:
        verbs = {Action.CREATE: "created", Action.CHANGE: "changed", Action.DELETE: "deleted"}
    summary = ", ".join(f"{count[action]} {verb}" for action, verb in verbs.items())
    lines = table(rows, ["ACTION", "PERSON", "GRANT", "FILE", "WHAT"]) if rows else "no grants"
    value = {
        "steps": [
            {"action": step.action, "person": step.person, "id": step.id, "file": step.file, "what": step.fields()}
            for step in steps
        ],
        "written": not parsed.dry_run,
    }
    show(parsed, value, f"{lines}\n\n{summary}, {count[Action.UNCHANGED]} unchanged")
