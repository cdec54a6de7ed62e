"""Penalties: what adds up, who is refused and until when, and a table that cannot be filled."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from gateway.penalties import Fault, Penalties
from gateway.settings_ssh import PenaltySettings
from gateway.sources import Source, Sources

HERE, THERE = Source("192.0.2.1", 4), Source("192.0.2.2", 4)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Book:
    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.penalties = Penalties(PenaltySettings(**settings), self.clock)

    def fail(self, source: Source = HERE, fault: Fault = Fault.AUTH_FAIL, times: int = 1) -> None:
        for _ in range(times):
            self.penalties.charge(source, fault)

    def refused_for(self, source: Source = HERE) -> int:
        """Whole seconds until it is let in again."""
        began, seconds = self.clock.now, 0
        while self.penalties.refuses(source):
            seconds += 1
            self.clock.now = began + seconds
        self.clock.now = began
        return seconds


def test_faults_add_up_and_only_what_reaches_the_minimum_refuses() -> None:
    book = Book()
    book.fail(times=2)
    assert book.refused_for() == 0
    book.fail()
    assert book.refused_for() == 15
    assert book.refused_for(THERE) == 0


@pytest.mark.parametrize(
    ("fault", "times", "seconds"),
    [(Fault.CRASH, 1, 90), (Fault.GRACE_EXCEEDED, 2, 20), (Fault.NO_AUTH, 15, 15), (Fault.NO_AUTH, 14, 0)],
)
def test_each_fault_has_its_price(fault: Fault, times: int, seconds: int) -> None:
    book = Book()
    book.fail(fault=fault, times=times)
    assert book.refused_for() == seconds


def test_a_debt_passes_with_time() -> None:
    book = Book()
    book.fail(times=2)
    book.clock.now += 10
    book.fail(times=2)
    assert book.refused_for() == 0


def test_nobody_owes_more_than_the_most() -> None:
    book = Book()
    book.fail(fault=Fault.CRASH, times=50)
    assert book.refused_for() == 600


def test_without_a_most_there_are_no_penalties() -> None:
    book = Book(max_seconds=0)
    book.fail(fault=Fault.CRASH, times=50)
    assert book.refused_for() == 0


def test_a_refusal_is_one_line_however_often_it_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    book = Book()
    book.fail(fault=Fault.CRASH)
    with caplog.at_level(logging.WARNING):
        assert all(book.penalties.refuses(HERE) for _ in range(100))
    assert [record.message for record in caplog.records] == ["source_penalised", "source_refused"]


def test_a_full_table_forgets_who_owes_least() -> None:
    book = Book(max_sources=10)
    book.fail(fault=Fault.CRASH, times=2)
    for number in range(1000):
        book.fail(Source(f"198.51.100.{number}", 4), Fault.CRASH)
    assert book.refused_for() == 180
    assert book.refused_for(Source("198.51.100.999", 4)) == 90
    assert book.refused_for(Source("198.51.100.0", 4)) == 0


def test_a_full_table_can_refuse_everybody_of_its_family_until_there_is_room() -> None:
    book = Book(max_sources=10, overflow="deny_all")
    for number in range(11):
        book.fail(Source(f"198.51.100.{number}", 4), Fault.AUTH_FAIL)
    assert book.refused_for() == 5
    assert book.refused_for(Source("2001:db8::/64", 6)) == 0


@pytest.mark.parametrize("overflow", ["permissive", "deny_all"])
def test_a_flood_of_sources_takes_a_bounded_room(overflow: Any) -> None:
    book = Book(max_sources=100, overflow=overflow)
    for number in range(20_000):
        book.fail(Source(str(number % 5000), 4), Fault.NO_AUTH)
        book.clock.now += 0.001
    table = book.penalties._tables[4]
    assert len(table._debts) <= 100
    assert len(table._ends) <= 264


def test_a_forgotten_debt_does_not_take_the_new_one_along() -> None:
    book = Book(max_sources=2)
    book.fail(times=1)
    book.fail(fault=Fault.CRASH)  # its first entry in the heap is outdated
    book.clock.now += 6
    for number in range(5):
        book.fail(Source(str(number), 4), Fault.NO_AUTH)
    assert book.refused_for() == 89


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", Source("192.0.2.7", 4)),
        ("::ffff:192.0.2.7", Source("192.0.2.7", 4)),
        ("2001:db8:1:2:3::9", Source("2001:db8:1:2::/64", 6)),
        ("fe80::1%eth0", Source("fe80::/64", 6)),
        ("10.1.2.3", None),
        ("::ffff:10.1.2.3", None),
        ("2001:db8:ffff::1", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_an_address_counts_by_its_prefix_unless_it_is_exempt(address: str, source: Source | None) -> None:
    exempt = PenaltySettings.model_validate({"exempt": ["10.0.0.0/8", "2001:db8:ffff::/48"]}).exempt
    assert Sources(32, 64, exempt).of(address) == source


def test_a_wider_prefix_makes_one_source_of_many() -> None:
    sources = Sources(24, 56, ())
    assert sources.of("192.0.2.7") == sources.of("192.0.2.200") == Source("192.0.2.0/24", 4)
    assert Sources(0, 0, ()).of("192.0.2.7") == Source("0.0.0.0/0", 4)
