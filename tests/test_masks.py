"""What is hidden in records, and what is never touched."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from gateway.masks import HIDDEN, WITHHELD, BadPattern, Masks, compiled, withholding
from gateway.obligations import Mask

PASSWORD = r"password=\S+"


def masks(*patterns: str, env: tuple[str, ...] = ()) -> Masks:
    made = Masks()
    made.add([Mask(kind="mask", patterns=patterns, env=env)])
    return made


TABLE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("command", {"kind": "exec", "command": "x password=s3 y"}, {"kind": "exec", "command": f"x {HIDDEN} y"}),
    ("nested", {"input": {"request": {"command": "password=s3"}}}, {"input": {"request": {"command": HIDDEN}}}),
    ("in a list", {"operations": [{"path": "/password=s3"}]}, {"operations": [{"path": f"/{HIDDEN}"}]}),
    ("twice", {"to": "password=a password=b"}, {"to": f"{HIDDEN} {HIDDEN}"}),
    ("a number stays", {"port": 5432}, {"port": 5432}),
    ("ids stay", {"session": "password=x", "decision_id": "password=x"}, None),  # type: ignore[list-item]
    ("masks stay", {"obligations": [{"patterns": [PASSWORD]}]}, None),  # type: ignore[list-item]
    (
        "variable",
        {"kind": "env", "name": "DB_TOKEN", "value": "s3"},
        {"kind": "env", "name": "DB_TOKEN", "value": HIDDEN},
    ),
    ("another", {"kind": "env", "name": "LANG", "value": "C"}, None),  # type: ignore[list-item]
    ("only of env", {"kind": "exec", "name": "DB_TOKEN", "value": "s3"}, None),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("note", "facts", "shown"), TABLE, ids=[note for note, *_ in TABLE])
def test_facts_are_masked(note: str, facts: dict[str, Any], shown: dict[str, Any] | None) -> None:
    assert masks(PASSWORD, env=("*_TOKEN",)).facts(facts) == (facts if shown is None else shown)


def test_bytes_that_are_no_text_do_not_tell_what_the_text_hides() -> None:
    def facts(command: bytes) -> dict[str, Any]:
        return {
            "command": command.decode("utf-8", "backslashreplace"),
            "command_base64": base64.b64encode(command).decode(),
        }

    hidden, plain = facts(b"\xff password=s3"), facts(b"\xff nothing")
    assert masks(PASSWORD).facts(hidden) == {"command": "\\xff " + HIDDEN, "command_base64": HIDDEN}
    assert masks(PASSWORD).facts(plain) == plain
    assert masks(PASSWORD).facts({"command_base64": "no base64!"})["command_base64"] == HIDDEN


def test_masks_add_up_and_one_that_is_broken_adds_nothing() -> None:
    made = masks("one")
    made.add([Mask(kind="mask", patterns=("two",))])
    with pytest.raises(BadPattern):
        made.add([Mask(kind="mask", patterns=("three", "("))])

    assert made.text("one two three") == f"{HIDDEN} {HIDDEN} three"


@pytest.mark.parametrize("pattern", ["(", "[a", "x{1001}", "x*", "a|", "^", r"(?=x)", r"\1"])
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str) -> None:
    with pytest.raises(BadPattern):
        compiled(pattern)


def test_no_pattern_takes_for_ever() -> None:
    made = masks("(a*)*b", "(a|aa)+$x", "(.*)(.*)(.*)(.*)=")
    started = time.monotonic()

    made.text("a" * 200_000)

    assert time.monotonic() - started < 20, "a backtracking engine needs years"


def test_what_nobody_knows_how_to_mask_is_withheld_but_for_its_kind() -> None:
    facts = {
        "decision": "d",
        "input": {"login": {"user": "alice"}, "request": {"kind": "exec", "command": "s3", "port": 1}},
    }

    assert withholding(facts) == {
        "decision": "d",
        "input": {"login": {"user": "alice"}, "request": {"kind": "exec", "command": WITHHELD, "port": 1}},
    }
