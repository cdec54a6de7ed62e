"""What the Rego tests ask is what the gateway asks: no test makes up a field that no question has.

Each decision gets one more definition, that never holds and prints its input; OPA's own runner then shows every input.
Tests ask incomplete and mistyped questions on purpose, so those are not held to the schema; a field that is misspelt in
a test would pass for one that is missing.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gateway.embedded.tools import find_or_build
from tests.policy.schemas import ANSWERS, POLICIES, ROOT, SCHEMAS

PROBE = "package {package}\n\n{rule} := null if {{\n\tprint(`asked {name}`, json.marshal(input))\n\tfalse\n}}\n"
FOREIGN = "basis_test"
"""Asks every decision the questions of all."""

Question = tuple[str, str, Any]
"""The test that asks it, the decision's name, and what is asked."""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    probes = tmp_path_factory.mktemp("probes")
    for name, (_, decision) in ANSWERS.items():
        package, _, rule = decision.value.replace("/", ".").rpartition(".")
        (probes / f"{name}.rego").write_text(PROBE.format(package=package, rule=rule, name=name))
    command: list[str | Path] = [
        find_or_build(),
        "test",
        "--timeout",
        "2m",
        "--format",
        "json",
        POLICIES,
        ROOT / "policy-tests",
        probes,
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return [question for test in json.loads(told.stdout) for question in _printed(test)]


def _printed(test: dict[str, Any]) -> Iterator[Question]:
    if test["package"].endswith(FOREIGN):
        return
    for line in base64.b64decode(test.get("output", "")).decode().splitlines():
        if line.startswith("asked "):
            _, name, question = line.split(" ", 2)
            yield f"{test['package']}.{test['name']}", name, json.loads(question)


def test_no_test_makes_up_a_field_that_no_question_has(asked: list[Question]) -> None:
    unknown = [
        f"{test}: {error.message}"
        for test, name, question in asked
        for error in _errors(name, question)
        if error.validator == "additionalProperties"
    ]

    assert unknown == []


def test_every_decision_is_asked_whole_questions_by_the_tests(asked: list[Question]) -> None:
    whole = Counter(name for _, name, question in asked if not list(_errors(name, question)))

    assert {name: whole[name] > 5 for name in ANSWERS} == dict.fromkeys(ANSWERS, True)


def _errors(name: str, question: Any) -> Iterator[jsonschema.ValidationError]:
    schema = json.loads((SCHEMAS / f"input.{name}.json").read_text())
    yield from jsonschema.Draft7Validator(schema).iter_errors(question)
