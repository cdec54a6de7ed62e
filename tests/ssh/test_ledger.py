"""The ledger of listeners by itself: what stands, what may come in, and what still counts when it is gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.ssh import ledger
from gateway.ssh.ledger import Ledger, Listener
from gateway.ssh.relay import Lane

PORT = {"kind": "tcpip-forward", "host": "localhost", "port": 8080}
SOCKET = {"kind": "streamlocal-forward@openssh.com", "path": "/tmp/x"}
X11 = {"kind": "x11-req", "screen": 0}


def channel() -> Any:
    return SimpleNamespace(gone=False)


def connected(listener: Listener) -> Any:
    """A connection that came in there; its channel of the engineer's connection."""
    lane = Lane("forwarded-tcpip")
    lane.near = channel()
    listener.lanes.append(lane)
    return lane.near


def test_a_place_is_somebodys_until_it_is_released() -> None:
    book, first, second = Ledger(), Listener(dict(PORT)), Listener(dict(PORT))
    assert book.claim(first)
    assert not book.claim(second)
    assert not book.release(second)
    assert book.at(PORT) is first
    assert book.release(first)
    assert (book.at(PORT), book.holds(first)) == (None, False)
    assert book.claim(second)


def test_an_arrival_belongs_to_the_listener_of_its_address_alone() -> None:
    book, port, socket = Ledger(), Listener(dict(PORT)), Listener(dict(SOCKET))
    assert book.claim(port)
    assert book.claim(socket)
    assert book.for_arrival("forwarded-tcpip", {"host": "localhost", "port": 8080, "originator_host": "x"}) is port
    assert book.for_arrival("forwarded-streamlocal@openssh.com", {"path": "/tmp/x"}) is socket
    for said in ({"host": "127.0.0.1", "port": 8080}, {"host": "localhost", "port": 8081}):
        assert book.for_arrival("forwarded-tcpip", said) is None
    assert book.for_arrival("x11", {}) is None


def test_when_it_is_closed_nothing_comes_in_and_nothing_is_claimed() -> None:
    book, port, program = Ledger(), Listener(dict(PORT)), Listener(dict(X11), channel())
    book.claim(port)
    book.enter(program)
    assert book.holds(program)
    book.close()
    assert book.for_arrival("x11", {}) is None
    assert book.for_arrival("forwarded-tcpip", PORT) is None
    assert not book.holds(port)
    assert not book.holds(program)
    assert not book.claim(Listener(dict(SOCKET)))


def test_what_came_in_counts_also_when_its_listener_is_gone() -> None:
    book, port, program = Ledger(), Listener(dict(PORT)), Listener(dict(X11), channel(), once=True)
    book.claim(port)
    book.enter(program)
    open_one, open_two = connected(port), connected(program)
    program.used = True
    book.release(port)
    book.enter(Listener(dict(X11), channel()))
    assert [listener.facts["kind"] for listener in book] == ["x11-req"]
    assert book.channels == 2
    open_one.gone = open_two.gone = True
    assert book.channels == 0


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_LISTENERS", 2)
    monkeypatch.setattr(ledger, "MAX_PER_LISTENER", 2)
    monkeypatch.setattr(ledger, "MAX_ARRIVALS", 3)
    book, port, socket = Ledger(), Listener(dict(PORT)), Listener(dict(SOCKET))
    full = []
    for listener in (port, socket):
        book.claim(listener)
        full.append(book.is_full)
    first = connected(port)
    rooms = [(book.has_room(port), book.has_room(socket))]
    for listener in (port, socket):
        connected(listener)
        rooms.append((book.has_room(port), book.has_room(socket)))
    first.gone = True
    rooms.append((book.has_room(port), book.has_room(socket)))
    assert rooms == [(True, True), (False, True), (False, False), (True, True)]
    book.release(port)
    full.append(book.is_full)
    assert full == [False, True, False]
    assert book.has_room(socket)
