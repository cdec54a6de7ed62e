"""Admission: who may begin while how many others have not proven anything."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.admission import Admission, Refusal, Ticket
from gateway.penalties import Fault
from gateway.settings_ssh import SshSettings

LAN: dict[str, Any] = {"penalties": {"exempt": ["10.0.0.0/8"]}}


def admission(dice: float = 0.0, **settings: Any) -> Admission:
    return Admission(SshSettings.model_validate(settings), dice=lambda: dice)


def enter(door: Admission, address: str = "192.0.2.1") -> Ticket:
    ticket = door.admit(address)
    assert isinstance(ticket, Ticket)
    return ticket


def fill(door: Admission, count: int) -> list[Ticket]:
    return [enter(door, f"198.51.{number // 250}.{number % 250}") for number in range(count)]


@pytest.mark.parametrize(
    ("inside", "dice", "refused"),
    [(9, 0.0, False), (10, 0.29, True), (10, 0.31, False), (55, 0.64, True), (55, 0.66, False), (100, 0.999, True)],
)
def test_new_ones_are_dropped_early_and_at_random(inside: int, dice: float, refused: bool) -> None:
    rolled = [1.0]
    door = Admission(SshSettings(), dice=lambda: rolled[0])
    fill(door, inside)
    rolled[0] = dice

    assert (door.admit("192.0.2.1") is Refusal.STARTUPS) is refused


def test_who_is_authenticated_or_gone_is_no_startup_any_more() -> None:
    door = admission(max_startups="2:100:2")
    first, second = fill(door, 2)
    assert door.admit("192.0.2.1") is Refusal.STARTUPS
    first.prove()
    third = enter(door)
    assert door.admit("192.0.2.1") is Refusal.STARTUPS
    second.end()
    enter(door)
    third.prove()
    third.prove()
    third.end()
    third.end()
    assert door.describe() == {"connections": 2, "unauthenticated": 1}


def test_one_source_cannot_bring_the_others_to_the_dice() -> None:
    door = admission()
    tickets = [door.admit("192.0.2.1") for _ in range(50)]
    assert sum(isinstance(one, Ticket) for one in tickets) == 8
    assert set(tickets[8:]) == {Refusal.PER_SOURCE}
    enter(door, "192.0.2.2")
    enter(door, "192.0.2.3")


def test_addresses_of_one_ipv6_network_are_one_source() -> None:
    door = admission(max_startups_per_source=2)
    enter(door, "2001:db8::1")
    enter(door, "2001:db8::2")
    assert door.admit("2001:db8::3") is Refusal.PER_SOURCE
    enter(door, "2001:db8:0:1::1")


def test_the_exempt_are_limited_by_no_source_but_by_all_else() -> None:
    door = admission(max_connections=20, max_startups="30:100:30", **LAN)
    for _ in range(20):
        enter(door, "10.0.0.1")
    assert door.admit("10.0.0.1") is Refusal.CONNECTIONS


def test_a_fault_is_charged_to_its_source_and_a_good_end_is_not() -> None:
    door = admission(**LAN)
    for _ in range(3):
        enter(door).end()
        enter(door, "10.0.0.1").end(Fault.CRASH)
    enter(door).end(Fault.CRASH)
    assert door.admit("192.0.2.1") is Refusal.PENALTY
    enter(door, "10.0.0.1")
    enter(door, "192.0.2.2")


def test_nothing_is_counted_for_ever() -> None:
    door = admission(max_startups="1000:30:1000", max_connections=1000)
    tickets = fill(door, 1000)
    for number, ticket in enumerate(tickets):
        if number % 2:
            ticket.prove()
        ticket.end(Fault.NO_AUTH if number % 3 else None)
    assert door.describe() == {"connections": 0, "unauthenticated": 0}
    assert not door._by_source
