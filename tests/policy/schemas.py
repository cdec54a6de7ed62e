"""The JSON Schemas of `schemas/` that have another source: `python -m tests.policy.schemas` writes them anew.

Answers come from the gateway's pydantic models, `data.targets` from the shape that the policies themselves check with.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.embedded.tools import find_or_build
from gateway.model import Value
from gateway.policy.contract import AdmissionAnswer, AuthnAnswer, AuthzAnswer, ConfigAnswer, Decision, LiveAnswer

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "schemas"
POLICIES = ROOT / "policies"

ANSWERS: Mapping[str, tuple[type[Value], Decision]] = {
    "authn": (AuthnAnswer, Decision.AUTHN),
    "config": (ConfigAnswer, Decision.CONFIG),
    "authz": (AuthzAnswer, Decision.AUTHZ),
    "live": (LiveAnswer, Decision.LIVE),
    "admission": (AdmissionAnswer, Decision.ADMISSION),
}


def answer(name: str) -> dict[str, Any]:
    """What a decision may answer, as the gateway reads it."""
    model, decision = ANSWERS[name]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Answer of data.{decision.value.replace('/', '.')}",
        **_without_titles(model.model_json_schema()),
    }


def targets() -> dict[str, Any]:
    """What a target is, as the policies read it."""
    command: list[str | Path] = [find_or_build(), "eval", "-f", "raw", "-d", POLICIES, "data.gateway.targets.shape"]
    shape = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "data.targets: what a grant can be for, by name",
        "type": "object",
        "propertyNames": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
        "additionalProperties": json.loads(shape),
    }


def generated() -> dict[Path, str]:
    """The files as they have to be."""
    found = {SCHEMAS / f"answer.{name}.json": answer(name) for name in ANSWERS}
    found[SCHEMAS / "data.targets.json"] = targets()
    return {path: json.dumps(schema, indent=2) + "\n" for path, schema in found.items()}


def _without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    # pydantic titles every field with its own name; its docstrings are Python's, not the contract's.
    named = {"properties", "$defs"}
    return {
        key: {name: _stripped(inner) for name, inner in value.items()} if key in named else _stripped(value)
        for key, value in schema.items()
        if key != "title"
    }


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return _without_titles(value)
    return [_stripped(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text)
