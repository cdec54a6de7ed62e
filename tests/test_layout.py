"""The layout that everything else relies on."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECRET = re.compile(
    r"hvs\.[A-Za-z0-9_-]{20}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|(?i:password|passwd|secret|token)\s*(?:=|:\s)\s*['\"][^'\"<{$ ]{8,}"
)


def tracked(folder: str) -> list[Path]:
    """Files of the repository, without what a tool may have left."""
    listed = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, check=True, text=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name]


@pytest.mark.parametrize("folder", ["secrets", "backends"])
def test_what_is_installed_elsewhere_holds_no_python(folder: str) -> None:
    files = tracked(folder)

    assert files
    assert [path for path in files if path.suffix in (".py", ".pyi", ".so")] == []
    assert not (ROOT / folder / "__init__.py").exists()


def test_the_folder_secrets_does_not_hide_the_module() -> None:
    """From the repository's own folder, as `python -m gateway` starts."""
    code = "import secrets; print(secrets.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True)

    assert Path(found.stdout.strip()) == Path(sysconfig.get_path("stdlib")) / "secrets.py"


def test_no_secret_value_is_in_secrets() -> None:
    assert (ROOT / "secrets" / "README.md").read_text().startswith("No secret value is ever stored here.")
    found = {path.name: SECRET.findall(path.read_text()) for path in tracked("secrets")}
    assert {name: values for name, values in found.items() if values} == {}


def test_the_pattern_for_secrets_finds_some() -> None:
    for text in ("token = 'aGVsbG8gd29ybGQ'", "hvs.CAESIJ_0123456789abcdef", "-----BEGIN OPENSSH PRIVATE KEY-----"):
        assert SECRET.search(text), text


def test_the_policies_hold_rules_and_nothing_else() -> None:
    """They are the bundle: a data file in it would own a root, and wipe what was written there."""
    files = tracked("policies")

    assert {path.name for path in files if path.suffix != ".rego"} == {".manifest", "README.md"}
    assert not [path for path in files if path.name.endswith("_test.rego")]


def test_every_policy_lies_where_its_package_says() -> None:
    for path in tracked("policies"):
        if path.suffix == ".rego":
            [package] = re.findall(r"^package (\S+)$", path.read_text(), re.MULTILINE)
            assert path.parent == ROOT / "policies" / Path(*package.split(".")), path


def test_modules_are_small() -> None:
    lines = {str(path): path.read_bytes().count(b"\n") for path in tracked("gateway") if path.suffix == ".py"}

    assert lines
    assert {path: count for path, count in lines.items() if count > 300} == {}
