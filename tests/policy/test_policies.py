"""The policies read like a book, as far as a test can hold it: what is public says what it is, and tests mirror it.

Regal's rules that are held here: directory-package-mismatch, missing-metadata, no-defined-entrypoint, line-length, and
the names and packages of tests (file-missing-test-suffix, test-outside-test-package).
`opa check --strict` and `opa fmt` hold theirs.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.policy.contract import Decision
from tests.policy.reference import pages
from tests.policy.schemas import POLICIES, ROOT

TESTS = ROOT / "policy-tests"
FILES = sorted(POLICIES.rglob("*.rego"))
TEST_FILES = sorted(TESTS.rglob("*.rego"))
HEAD = re.compile(r"^(?:default )?([a-z]\w*)(?=[ (\[.])", re.M)
"""A rule with a public name, at the start of a line."""

named = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(POLICIES)))


def package_of(file: Path) -> str:
    [package] = re.findall(r"^package (\S+)$", file.read_text(), re.M)
    return str(package)


@named
def test_the_package_is_the_folder(file: Path) -> None:
    assert package_of(file).split(".") == list(file.parent.relative_to(POLICIES).parts)


@named
def test_every_public_rule_says_what_it_is(file: Path) -> None:
    text = file.read_text()
    said = set(re.findall(r"^# METADATA\n(?:# .*\n|#\n)+(?:default )?([a-z]\w*)", text, re.M))
    public = set(HEAD.findall(text)) - {"package", "import", "else", "default"}

    assert public - said == set()


@named
def test_no_line_is_too_long(file: Path) -> None:
    assert [
        number for number, line in enumerate(file.read_text().splitlines(), 1) if len(line.expandtabs(4)) > 132
    ] == []


def test_every_package_says_what_it_is_once() -> None:
    said: dict[str, int] = {}
    for file in FILES:
        described = re.search(r"^# METADATA\n# title: .+\n(?:#.*\n)*package ", file.read_text(), re.M)
        said[package_of(file)] = said.get(package_of(file), 0) + bool(described)

    assert {package: count for package, count in said.items() if count != 1} == {}


def test_every_decision_is_an_entrypoint() -> None:
    texts = "".join(file.read_text() for file in FILES)
    marked = set(re.findall(r"^# entrypoint: true\n(?:#.*\n)*(\w+)", texts, re.M))

    assert {decision.value.rpartition("/")[2] for decision in Decision} <= marked


@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: str(file.relative_to(TESTS)))
def test_tests_mirror_the_policies(file: Path) -> None:
    assert file.name.endswith("_test.rego")
    assert (POLICIES / file.parent.relative_to(TESTS)).is_dir(), "nothing there to test"
    assert package_of(file).endswith("_test")


def test_every_package_has_tests() -> None:
    tested = {file.parent.relative_to(TESTS) for file in TEST_FILES}

    assert {file.parent.relative_to(POLICIES) for file in FILES} - tested == set()


def test_the_reference_pages_are_as_the_schemas_say() -> None:
    assert [path.name for path, text in pages().items() if not path.exists() or path.read_text() != text] == [], (
        "run scripts/schemas"
    )
