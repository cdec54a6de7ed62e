"""The table is whole: every row has a test on every backend, and docs/ssh.md names them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.e2e import surface
from tests.e2e.surface.runtimes import RUNTIMES

ROWS = range(1, 33)
BY_BACKEND = {"ground", "shared", "own_ground"}
DOCS = Path(__file__).parents[3] / "docs"


def functions() -> Iterator[tuple[str, Callable[..., object]]]:
    """The tests of the table, by name."""
    for found in pkgutil.iter_modules(surface.__path__):
        module = importlib.import_module(f"{surface.__name__}.{found.name}")
        for name, test in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("test_") and test.__module__ == module.__name__:
                yield name, test


def rows() -> Iterator[tuple[int, str, bool]]:
    """Row, test, and whether it runs on every backend."""
    for name, test in functions():
        fixtures = set(inspect.signature(test).parameters)
        for mark in getattr(test, "pytestmark", []):
            if mark.name == "row":
                yield mark.args[0], name, bool(fixtures & BY_BACKEND)


def not_of_hosts() -> Iterator[tuple[int, str]]:
    """Row and test of what is not asked of a host, as a whole or for one of its parameters."""
    for name, test in functions():
        marks = getattr(test, "pytestmark", [])
        parameters = [value for mark in marks if mark.name == "parametrize" for value in mark.args[1]]
        marked = [*marks, *(mark for value in parameters for mark in getattr(value, "marks", ()))]
        if any(mark.name == "no_host" for mark in marked):
            yield next(mark.args[0] for mark in marks if mark.name == "row"), name


def test_every_row_has_a_test_on_every_backend() -> None:
    assert {"docker", "kubernetes", "sandbox", "sshproxy"} <= RUNTIMES.keys()
    assert {row for row, _, everywhere in rows() if everywhere} == set(ROWS)
    assert [name for _, name, everywhere in rows() if not everywhere] == []


def test_the_documents_table_names_each_row_and_tests_that_exist() -> None:
    behaviours = (DOCS / "ssh.md").read_text().partition("## Behaviours")[2].partition("\n## ")[0]
    told = re.findall(r"^\| (\d+) \|.*\| `(test_\w+)`[^|]*\|$", behaviours, re.MULTILINE)
    assert [int(row) for row, _ in told] == list(ROWS)
    assert [named for row, named in told if (int(row), named) not in {(r, name) for r, name, _ in rows()}] == []


def test_the_documents_name_each_row_that_a_host_cannot_have() -> None:
    told = re.findall(r"^\| (\d+) \|.*\| `(test_\w+)`[^|]*\|$", (DOCS / "hosts.md").read_text(), re.MULTILINE)
    assert sorted((int(row), name) for row, name in told) == sorted(not_of_hosts())
