"""What the documents say is there, is there; and what is there, they say."""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.cli import _parser
from gateway.door.patch import patches
from gateway.sections import SecretRef
from gateway.settings import Settings
from gateway.telemetry import Step

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FOLDERS = ("docs", "gateway", "policies", "policy-tests", "schemas", "secrets", "backends", "tests", "bench", "demo")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.md"))])
OURS = [file for file in DOCUMENTS if file.parent == ROOT or file.is_relative_to(ROOT / "docs")]

named = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))


def blocks(file: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / file).read_text(), re.M | re.S)


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


# -- settings -------------------------------------------------------------------------------------------------------


Row = tuple[str, str]
"""Type and default, as the table says them."""


def settings_that_are(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Row]]:
    for name, field in model.model_fields.items():
        kind, path = bare(field.annotation), prefix + name
        if typing.get_origin(kind) is dict:
            kind, path = typing.get_args(kind)[1], f"{path}.<name>"
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not SecretRef:
            yield from settings_that_are(kind, f"{path}.")
        else:
            yield path, (type_of(kind, field, path), default_of(field))


def bare(annotation: Any) -> Any:
    """Without `| None` and without `Annotated`."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        [annotation] = [one for one in typing.get_args(annotation) if one is not types.NoneType]
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def type_of(kind: Any, field: FieldInfo, path: str) -> str:
    if typing.get_origin(kind) is typing.Literal:
        words = [f"`{word}`" for word in typing.get_args(kind)]
        return f"{', '.join(words[:-1])} or {words[-1]}"
    if typing.get_origin(kind) is tuple:
        one = bare(typing.get_args(kind)[0])
        if typing.get_origin(one) is typing.Literal:
            return "list of words"
        return f"list of { {Path: 'paths', str: 'texts'}.get(one, 'networks') }"
    if kind is str and path.endswith("listen"):
        return "address"
    if kind is str and any("https?" in str(getattr(one, "pattern", "")) for one in field.metadata):
        return "URL"
    named = {str: "text", bool: "true or false", int: "whole number", float: "duration"}
    return {**named, Path: "path", SecretRef: "secret"}[kind]


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple) and default:
        return ", ".join(f"`{one}`" for one in default)
    return "none" if default in (None, (), {}) else f"`{default}`"


def settings_that_are_said() -> Iterator[tuple[str, Row]]:
    for line in (ROOT / "docs" / "settings.md").read_text().splitlines():
        if match := re.fullmatch(r"\| `([a-z0-9_.<>]+)` \| (.+?) \| (.+?) \| (.+) \|", line):
            yield match[1], (match[2], match[3])


def test_every_setting_is_documented_with_its_type_and_default_and_nothing_else_is() -> None:
    said = list(settings_that_are_said())

    assert dict(said) == dict(settings_that_are(Settings))
    assert len(said) == len(dict(said)), "one row each"


@pytest.mark.parametrize("text", blocks("docs/settings.md", "toml"))
def test_the_examples_of_settings_are_taken(text: str) -> None:
    Settings(**tomllib.loads(text))


# -- names ----------------------------------------------------------------------------------------------------------


@named
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(document.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        if not found.exists() or (anchor and anchor not in anchors(found)):
            dead.append(target)

    assert dead == []


def anchors(document: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", without_blocks(document.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", OURS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_that_is_named_exists_and_has_what_is_named_in_it(document: Path) -> None:
    tops = "|".join(FOLDERS)
    missing = []
    for path, _, inside in re.findall(rf"`((?:{tops})/[\w./-]+)(:([\w.]+))?`", document.read_text()):
        file = ROOT / path
        if not file.exists() or (inside and inside not in names_in(file)):
            missing.append(f"{path}:{inside}" if inside else path)

    assert missing == []


def names_in(file: Path) -> set[str]:
    """Top-level functions and classes of a Python file, and `Class.method`."""
    tree = ast.parse(file.read_text())
    tops = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    members = {
        f"{top.name}.{node.name}"
        for top in tops
        if isinstance(top, ast.ClassDef)
        for node in top.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return {top.name for top in tops} | members


# -- what people and programs may rely on -----------------------------------------------------------------------------


def commands(parser: argparse.ArgumentParser, words: str) -> Iterator[str]:
    """The leaves of the command line, in words."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield words
    for group in groups:
        for name, inner in group.choices.items():
            yield from commands(inner, f"{words} {name}")


@pytest.mark.parametrize("command", list(commands(_parser(), "doorward")))
def test_every_command_is_in_the_readme(command: str) -> None:
    assert re.search(rf"\b{command}\b", README)


def test_every_make_target_of_the_help_is_in_the_readme() -> None:
    told = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    groups = re.findall(r"\bmake ([a-z-]+(?:, [a-z-]+)*)", told)
    targets = {target for group in groups for target in group.split(", ")}

    assert targets >= {"run", "test"}
    assert [target for target in sorted(targets) if not re.search(rf"make {target}\b(?!-)", README)] == []


def test_every_audit_event_is_documented_and_nothing_else_is() -> None:
    section = (ROOT / "docs" / "audit.md").read_text().partition("## Events")[2].partition("\n## ")[0]
    said = re.findall(r"^\| `([a-z]+)` \|", section, re.M)

    assert sorted([*said, Step.CONNECTION]) == sorted(Step)


def test_the_example_of_a_grant_fits_its_schema_and_the_errors_are_json() -> None:
    [patch, grant, errors] = (json.loads(text) for text in blocks("docs/grants.md", "json"))

    jsonschema.validate({"alice": {"INC-1": grant}}, json.loads((ROOT / "schemas" / "data.grants.json").read_text()))
    assert {"code", "message", "errors"} == errors.keys()
    assert [list(found.path) for found in patches(("grants",), patch)] == [
        ["grants", person, name] for person, name in (("alice", "INC-1"), ("alice", "INC-2"), ("bob", "INC-3"))
    ]


def test_decisions_have_a_number_each_and_are_listed() -> None:
    files = sorted(file.name for file in (ROOT / "docs" / "adr").glob("0*.md"))

    assert len({name[:4] for name in files}) == len(files) > 0
    assert re.findall(r"\((0[^)]+)\)", (ROOT / "docs" / "adr" / "README.md").read_text()) == files
