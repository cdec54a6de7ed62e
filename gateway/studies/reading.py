"""What is found by reading Rego, without running it: OPA parses, and its syntax tree is walked.

No proof: a rule can walk everything in ways that are not seen here.  What is found is so.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.studies.findings import Finding

CLOCKS = {"time.now_ns"}
WORLD = {"http.send", "rand.intn", "uuid.rfc4122", "opa.runtime", "net.lookup_ip_addr"}
LARGE = {"grants", "people", "approvals", "reviews"}
"""Documents that grow with the company."""
REPORTS = {"malformed"}
"""Rules that are for reports, and may walk: no decision asks for them."""
ASIDE = {"gateway.copies": {"time.now_ns", "data"}, "system.authz": {"opa.runtime"}}
"""What packages may read that is no part of a decision of the gateway's: a copy is all data, and taken at a time."""
_REASON = re.compile(r"^(reason|field_reason)$")
_CODE = re.compile(r"`([a-z0-9_]+)`")


def read(opa: Path, files: list[Path], catalogue: Path) -> list[Finding]:
    """Everything that reading shows, in files that parse."""
    found: list[Finding] = []
    literals: set[str] = set()
    given: dict[str, Finding] = {}
    for file in files:
        for package, rule in _rules(opa, file):
            aside = ASIDE.get(package, set())
            name = rule["head"].get("name") or str(rule["head"]["ref"][0]["value"])
            loose = _declared(rule)
            for node in _nodes(rule):
                found += _at(file, node, name, loose, aside)
                if node.get("type") == "string":
                    literals.add(node["value"])
                for code in _codes(node):
                    line = _line(node)
                    given.setdefault(code, Finding(str(file), line, "code_undocumented", f"{code} is in no catalogue"))
    return found + _catalogued(catalogue, literals, given)


def _catalogued(catalogue: Path, literals: set[str], given: dict[str, Finding]) -> list[Finding]:
    if not catalogue.is_file():
        return []
    said: dict[str, int] = {}
    within = False
    for number, line in enumerate(catalogue.read_text().splitlines(), 1):
        within = line == "## Codes" or (within and not line.startswith("## "))
        if within and line.startswith("| "):
            said |= dict.fromkeys(_CODE.findall(line.partition("|")[2].partition("|")[2]), number)
    if not said:
        return []
    unreachable = [
        Finding(str(catalogue), number, "code_unreachable", f"no rule gives the code {code}")
        for code, number in said.items()
        if code not in literals and "_" in code
    ]
    return unreachable + [finding for code, finding in given.items() if code not in said]


def _rules(opa: Path, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each with the package that it is in."""
    command = [str(opa), "parse", "--format", "json", "--json-include", "locations", str(file)]
    parsed = subprocess.run(command, capture_output=True, text=True, check=False)
    if parsed.returncode != 0:
        return  # the compiler says why
    module = json.loads(parsed.stdout)
    package = ".".join(str(part["value"]) for part in module["package"]["path"][1:])
    for rule in module.get("rules", []):
        while rule:
            yield package, {key: value for key, value in rule.items() if key not in ("else", "annotations")}
            rule = rule.get("else")


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _at(file: Path, node: dict[str, Any], rule: str, loose: set[str], aside: set[str]) -> Iterator[Finding]:
    if node.get("type") != "ref":
        return
    path = node["value"]
    name = ".".join(str(part["value"]) for part in path if part["type"] in ("var", "string"))
    line = _line(node)
    if name in CLOCKS - aside:
        yield Finding(str(file), line, "own_clock", f"{rule} asks OPA's clock by {name}")
    if name in WORLD - aside:
        yield Finding(str(file), line, "outside_world", f"{rule} asks the world outside by {name}")
    if _is_whole(path, loose) and rule not in REPORTS and "data" not in aside:
        root = path[1]["value"]
        yield Finding(str(file), line, "walks_everything", f"{rule} goes through all of data.{root}")


def _is_whole(path: list[dict[str, Any]], loose: set[str]) -> bool:
    if len(path) < 2 or path[0]["value"] != "data" or path[1]["value"] not in LARGE or path[1]["type"] != "string":
        return False
    key = path[2] if len(path) > 2 else None
    return key is None or (key["type"] == "var" and (key["value"].startswith("$") or key["value"] in loose))


def _declared(rule: dict[str, Any]) -> set[str]:
    """Variables of a `some` that says nothing of where they come from."""
    symbols = [symbol for node in _nodes(rule) for symbol in node.get("symbols", []) if isinstance(symbol, dict)]
    return {symbol["value"] for symbol in symbols if symbol.get("type") == "var"}


def _codes(node: dict[str, Any]) -> Iterator[str]:
    """The reason codes that are given at this place, as far as they are written out."""
    terms: Any = node.get("value") if node.get("type") == "call" else node.get("terms")
    called = isinstance(terms, list) and len(terms) > 1 and terms[0].get("type") == "ref"
    if called and _REASON.match(str(terms[0]["value"][-1]["value"])) and terms[1].get("type") == "string":
        yield terms[1]["value"]
    if node.get("type") == "object":
        keys = {key["value"]: value for key, value in node["value"] if key.get("type") == "string"}
        if {"code", "message"} <= keys.keys() and keys["code"].get("type") == "string":
            yield keys["code"]["value"]


def _line(node: dict[str, Any]) -> int:
    return int(node.get("location", {}).get("row", 0))
