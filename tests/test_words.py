"""How an error reads at a terminal."""

from __future__ import annotations

import unicodedata

import pytest

from gateway.errors import Denied, DoorwardError, SessionEnded
from gateway.model import Reason
from gateway.words import explained, printable

REASONS = [
    Reason(code="no_grant", message="You have no grant at this time.", remedy="Ask at #orders-oncall."),
    Reason(code="other", message="Something else."),
]


def test_each_reason_has_its_code_its_sentence_and_its_remedy() -> None:
    assert explained(Denied(REASONS, decision_id="d-1"), "s-1").splitlines() == [
        "doorward: no_grant: You have no grant at this time.",
        "doorward: what to do: Ask at #orders-oncall.",
        "doorward: other: Something else.",
        "doorward: decision d-1, session s-1",
    ]


def test_where_there_is_room_for_one_line_it_is_one_line() -> None:
    said = explained(SessionEnded(REASONS), "s-1", lines=False)

    assert said == (
        "no_grant: You have no grant at this time. | what to do: Ask at #orders-oncall. | "
        "other: Something else. | session s-1"
    )


def test_an_error_that_no_policy_decided_names_the_session_alone() -> None:
    assert explained(DoorwardError("it broke"), "s-1").splitlines()[-1] == "doorward: session s-1"


NASTY = [
    "\x1b[2J", "\x07", "\r", "\n", "\x9b31m", "\x00", "\x7f", "\u202e", "\u200b", "\U000e0041", "\ue000",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_nothing_that_a_terminal_would_obey_is_printed(text: str) -> None:
    reason = Reason(code="no_grant", message=f"for {text}alice", remedy=f"ask {text}bob")
    for lines in (True, False):
        said = explained(Denied([reason], decision_id=f"d{text}"), f"s{text}", lines=lines)
        assert [char for char in said if char != "\n" and unicodedata.category(char)[0] == "C"] == []
        assert "?" in said
        assert len(said.splitlines()) == (3 if lines else 1)


def test_what_people_write_stays_as_it_is() -> None:
    assert printable("Zoë · 東京 #orders-oncall: 5 € — «ok»") == "Zoë · 東京 #orders-oncall: 5 € — «ok»"
