"""The count of open sessions, and the last word on a limit."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from gateway.model import Holder, SessionCounts, SessionId
from gateway.policy.census import Census, NoRoom


class Client:
    is_gone = False


def holder(session: str, person: str = "alice", grant: str = "g1", target: str = "orders") -> Holder:
    return Holder(SessionId(session), person, grant, target, "")


@pytest.fixture
def places() -> ExitStack:
    return ExitStack()


@pytest.mark.parametrize(
    ("most", "other", "fits"),
    [
        (SessionCounts(), holder("s1"), True),
        (SessionCounts(grant=1), holder("s1"), False),
        (SessionCounts(grant=2), holder("s1"), True),
        (SessionCounts(grant=1), holder("s1", grant="g2"), True),
        (SessionCounts(grant=1), holder("s1", person="bob"), True),  # another's grant of the same id
        (SessionCounts(person=1), holder("s1", grant="g2", target="till"), False),
        (SessionCounts(person=1), holder("s1", person="bob"), True),
        (SessionCounts(target=1), holder("s1", person="bob", grant="g2"), False),
        (SessionCounts(target=1), holder("s1", target="till"), True),
    ],
)
def test_a_place_is_taken_where_every_limit_has_room(
    places: ExitStack, most: SessionCounts, other: Holder, fits: bool
) -> None:
    census = Census()
    with places:
        places.enter_context(census.take(other, SessionCounts(), Client()))
        if fits:
            places.enter_context(census.take(holder("s2"), most, Client()))
            assert census.counted("alice", "")["open_at"] == {
                other.target: 1,
                "orders": 2 if other.target == "orders" else 1,
            }
        else:
            with pytest.raises(NoRoom):
                census.take(holder("s2"), most, Client())
            assert sum(census.counted("alice", "")["open_at"].values()) == 1, "and none is left taken"
    assert census.counted("alice", "") == {"open": [], "open_at": {}}


def test_who_is_gone_or_asks_is_not_counted() -> None:
    census, leaving = Census(), Client()
    one = SessionCounts(person=1, target=1)
    with census.take(holder("s1"), one, leaving):
        [told] = census.counted("alice", besides="s9")["open"]
        assert (told["id"], told["grant"], told["target"], told["started_at"][-1]) == ("s1", "g1", "orders", "Z")
        assert census.counted("alice", besides="s1") == {"open": [], "open_at": {}}
        assert census.counted("bob", besides="") == {"open": [], "open_at": {"orders": 1}}
        leaving.is_gone = True
        with census.take(holder("s2"), one, Client()):
            assert census.counted("alice", besides="s9")["open_at"] == {"orders": 1}
