"""Whether a folder of policies may go to production: what `doorward policy check` finds.

Compiling and reading (`reading.py`) look at every rule.  Running looks at as many questions as are made up here (those
of the schemas, each with every field once missing and once of another type) under the data that is given: what they
show is so, and that they show nothing proves nothing about other questions.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.assets import folder
from gateway.embedded.tools import find_or_build
from gateway.model import Value
from gateway.policy.contract import (
    AdminAnswer,
    AdmissionAnswer,
    AuthnAnswer,
    AuthzAnswer,
    ConfigAnswer,
    Decision,
    LiveAnswer,
)
from gateway.studies.engine import Studied, studied
from gateway.studies.errors import StudyError
from gateway.studies.findings import Finding
from gateway.studies.reading import read
from gateway.studies.sources import Data, read_policies

DECISIONS: Mapping[Decision, tuple[str, type[Value]]] = {
    Decision.AUTHN: ("authn", AuthnAnswer),
    Decision.CONFIG: ("config", ConfigAnswer),
    Decision.AUTHZ: ("authz", AuthzAnswer),
    Decision.LIVE: ("live", LiveAnswer),
    Decision.ADMISSION: ("admission", AdmissionAnswer),
    Decision.ADMIN: ("admin", AdminAnswer),
}
OTHERS: tuple[Any, ...] = (None, 7, "x", [], {})
WORDS: Mapping[str, Any] = {
    "integer": 1,
    "number": 1,
    "string": "x",
    "boolean": False,
    "null": None,
    "array": [],
    "object": {},
}
TEST_TIMEOUT = "2m"
"""For each test.  OPA's own five seconds are short on a busy machine, and measuring coverage makes it slower."""
_MISFITS = "package studies.check\n\nmisfits := json.match_schema(input.document, input.schema)[1]\n"


async def check(policies: Path, tests: Path | None, data: Mapping[Path, Any], threshold: float) -> list[Finding]:
    """Everything that is found, by file and line.  Raises StudyError when there is nothing to check."""
    if not policies.is_dir():
        raise StudyError(f"--policies {policies}: it is no folder", remedy="Name the folder that OPA loads.")
    if tests is not None and not tests.is_dir():
        raise StudyError(f"--tests {tests}: it is no folder", remedy="Name the folder that the Rego tests are in.")
    opa, schemas = find_or_build(), folder("schemas")
    files = [Path(name) for name in read_policies(policies).files]
    found = [*_compiled(opa, policies, schemas), *read(opa, files, policies / "README.md")]
    if not any(finding.code in ("does_not_compile", "unknown_builtin", "recursive") for finding in found):
        merged = {root: value for tree in data.values() for root, value in tree.items()}
        async with studied(read_policies(policies), Data.of(merged)) as running:
            found += [finding async for finding in _misfits(running, data, schemas)]
            for decision in DECISIONS:
                if (policies / decision.value).parent.is_dir():
                    found += await _asked(running, decision, files, schemas)
        if tests is not None:
            found += _tested(opa, policies, tests, threshold)
    return sorted(set(found))


def _compiled(opa: Path, policies: Path, schemas: Path) -> Iterator[Finding]:
    command = [str(opa), "check", "--strict", "--format", "json", "--schema", str(schemas), str(policies)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode == 0:
        return
    try:
        errors = json.loads(told.stdout or told.stderr)["errors"]
    except (ValueError, KeyError) as fault:
        raise StudyError(f"opa check failed: {told.stderr.strip()}", remedy="Look at what it says.") from fault
    for error in errors:
        place = error.get("location") or {}
        message = str(error["message"])
        wanted = (error.get("details") or {}).get("one_of") or (error.get("details") or {}).get("OneOf") or []
        if wanted:
            message += f"; there are {', '.join(map(str, wanted))}"
        yield Finding(str(place.get("file", policies)), int(place.get("row", 0)), _kind(message), message)


def _kind(message: str) -> str:
    if message.startswith("undefined ref: "):
        return "misspelt_field"
    if message.startswith("undefined function "):
        return "unknown_builtin"
    return "recursive" if "is recursive" in message else "does_not_compile"


async def _misfits(opa: Studied, data: Mapping[Path, Any], schemas: Path) -> Any:
    await opa.teach("studies/check", _MISFITS)
    for file, tree in data.items():
        for root, document in tree.items():
            schema = schemas / f"data.{root}.json"
            if not schema.is_file():
                yield Finding(str(file), 0, "data_misfit", f"{root}: no decision reads a document of this name")
                continue
            if not isinstance(document, dict):
                yield Finding(str(file), 0, "data_misfit", f"{root}: it is no object")
                continue
            question = {"document": document, "schema": json.loads(schema.read_text())}
            for misfit in await opa.evaluate("studies/check/misfits", question):
                yield Finding(str(file), 0, "data_misfit", f"{root}: {misfit['error']}")


async def _asked(opa: Studied, decision: Decision, files: list[Path], schemas: Path) -> list[Finding]:
    name, shape = DECISIONS[decision]
    schema = json.loads((schemas / f"input.{name}.json").read_text())
    file = next((str(file) for file in files if _has(file, decision)), decision.value)
    found: dict[str, Finding] = {}
    for what, question in _questions(schema):
        try:
            answer = await opa.ask(decision.value, question)
        except StudyError as error:
            found.setdefault("fails", Finding(file, 0, "fails", f"{what}: {error}"))
            continue
        if not answer.defined:
            found.setdefault("undefined", Finding(file, 0, "undefined", f"{what}: {decision} has no answer"))
            continue
        try:
            shape.model_validate_json(json.dumps(answer.result))
        except ValidationError as error:
            fault = error.errors(include_input=False)[0]
            where = ".".join(map(str, fault["loc"]))
            told = Finding(file, 0, "outside_contract", f"{what}: {where}: {fault['msg']}")
            found.setdefault("outside_contract", told)
    return list(found.values())


def _has(file: Path, decision: Decision) -> bool:
    package, _, rule = decision.value.rpartition("/")
    text = file.read_text()
    return f"package {package.replace('/', '.')}\n" in text and (f"\n{rule} " in text or f"default {rule} " in text)


def _questions(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Made up by the schema: nothing at all, a whole one, and that with each field missing and of another type."""
    yield "asked nothing", {}
    whole = _made_up(schema)
    yield "asked by the schema", whole
    for field in schema["properties"]:
        yield f"asked without {field}", {key: value for key, value in whole.items() if key != field}
        for other in OTHERS:
            yield f"asked with {field} = {json.dumps(other)}", {**whole, field: other}


def _made_up(schema: Mapping[str, Any]) -> Any:
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type", "null")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: _made_up(schema["properties"][name]) for name in schema.get("required", [])}
    return "2030-01-31T12:00:00Z" if schema.get("format") == "date-time" else WORDS[kind]


def _tested(opa: Path, policies: Path, tests: Path, threshold: float) -> Iterator[Finding]:
    command = [str(opa), "test", "--timeout", TEST_TIMEOUT, "--format", "json", str(policies), str(tests)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        results = json.loads(told.stdout)
    except ValueError:
        yield Finding(str(tests), 0, "test_fails", (told.stderr or told.stdout).strip()[:1000])
        return
    failed = [test for test in results or [] if test.get("fail") or test.get("error")]
    for test in failed:
        place = test["location"]
        yield Finding(place["file"], place["row"], "test_fails", f"{test['package']}.{test['name']}")
    if not results:
        yield Finding(str(tests), 0, "test_fails", "there are no tests")
    if results and not failed:
        yield from _uncovered([*command[:2], "--coverage", *command[2:]], policies, threshold)


def _uncovered(command: list[str], policies: Path, threshold: float) -> Iterator[Finding]:
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    for file, lines in report["files"].items():
        if Path(file).is_relative_to(policies) and lines.get("coverage", 0) < threshold:
            for span in lines.get("not_covered", []):
                message = f"no test comes to lines {span['start']['row']} to {span['end']['row']}"
                yield Finding(file, span["start"]["row"], "untested", message)
