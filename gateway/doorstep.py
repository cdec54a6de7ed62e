"""Where every connection stands first: who is it really, and may it begin?  Not a word of SSH before that."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import cast

from gateway.admission import Admission, Refusal, Ticket
from gateway.proxy_header import BadHeader, Header, parse
from gateway.sources import Network

log = logging.getLogger(__name__)

HEADER_SECONDS = 3.0
"""How long a balancer may take for its header, which it sends first of all."""
TOLD_AGAIN_SECONDS = 60.0
MAX_TOLD = 100
MAX_WAITING = 200
"""Connections that stand here at a time.  Only listed balancers can make one stand; more are closed."""

Address = tuple[str, int]
Begin = Callable[[asyncio.Transport, Address, Address, Ticket], asyncio.Protocol]
"""Make the protocol of an admitted connection.  From then on the ticket is the protocol's to end."""
Refuse = Callable[[Refusal, str], None]

WORDS = {Refusal.PENALTY: b"Not allowed at this time\r\n"}
TOO_MANY = b"Exceeded MaxStartups\r\n"
"""What sshd says; `ssh -v` shows it."""


class Doorstep:
    """What all connections that stand here share."""

    def __init__(self, proxies: Sequence[Network], admission: Admission, begin: Begin, refuse: Refuse) -> None:
        self.proxies = proxies
        self.admission = admission
        self.begin = begin
        self.refuse = refuse
        self.waiting: set[Arrival] = set()
        self._told: dict[tuple[str, str], float] = {}

    def arrival(self) -> Arrival:
        return Arrival(self)

    def tell(self, proxy: str, why: str) -> None:
        """One line a minute for each balancer and reason, and a bounded number of those."""
        now = time.monotonic()
        if now - self._told.get((proxy, why), -TOLD_AGAIN_SECONDS) >= TOLD_AGAIN_SECONDS:
            if len(self._told) >= MAX_TOLD:
                self._told.clear()
            self._told[proxy, why] = now
            log.warning("proxy_header_refused", extra={"proxy": proxy, "why": why})

    def close(self) -> None:
        """Send away who still stands here."""
        for arrival in list(self.waiting):
            arrival.abort()


class Arrival(asyncio.Protocol):
    """A connection until it is handed over or closed.

    From a peer in `proxies` a PROXY protocol v2 header must come first, whole and in time; from any other, none is
    read: whoever sends one speaks no SSH.
    """

    def __init__(self, doorstep: Doorstep) -> None:
        self._doorstep = doorstep
        self._heard = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peer = _pair(transport.get_extra_info("peername"))
        self._local = _pair(transport.get_extra_info("sockname"))
        if not _listed(self._peer[0], self._doorstep.proxies):
            self._enter(self._peer, self._local)
        elif len(self._doorstep.waiting) >= MAX_WAITING:
            self._refuse_header("too many connections wait for their header")
        else:
            self._doorstep.waiting.add(self)
            self._timer = asyncio.get_running_loop().call_later(HEADER_SECONDS, self._too_late)

    def data_received(self, data: bytes) -> None:
        if self._timer is None:
            return  # refused, and closing
        self._heard += data
        try:
            header = parse(self._heard)
        except BadHeader as error:
            self._refuse_header(str(error))
            return
        if header is not None:
            self._believe(header)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def abort(self) -> None:
        self._leave()
        self._transport.abort()

    def _believe(self, header: Header) -> None:
        self._leave()
        self._enter(header.peer or self._peer, header.local or self._local)
        rest = self._heard[header.size :]
        if rest and not self._transport.is_closing():
            cast(asyncio.Protocol, self._transport.get_protocol()).data_received(rest)

    def _enter(self, peer: Address, local: Address) -> None:
        ticket = self._doorstep.admission.admit(peer[0])
        if isinstance(ticket, Refusal):
            self._doorstep.refuse(ticket, peer[0])
            self._transport.write(WORDS.get(ticket, TOO_MANY))
            self._transport.close()
            return
        protocol = self._doorstep.begin(self._transport, peer, local, ticket)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)

    def _too_late(self) -> None:
        self._refuse_header(f"no whole header came within {HEADER_SECONDS:g} s")

    def _refuse_header(self, why: str) -> None:
        self._leave()
        self._doorstep.tell(self._peer[0], why)
        self._doorstep.refuse(Refusal.PROXY_HEADER, self._peer[0])
        self._transport.abort()

    def _leave(self) -> None:
        self._doorstep.waiting.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _pair(name: object) -> Address:
    """An address as (host, port), without an IPv6 scope; ("unknown", 0) where the socket has none."""
    if not isinstance(name, tuple) or len(name) < 2:
        return "unknown", 0
    return _plain(str(name[0])), int(name[1])


def _plain(host: str) -> str:
    """A dual-stack socket names IPv4 peers as ::ffff:a.b.c.d; policy and logs get a.b.c.d."""
    return host.removeprefix("::ffff:") if host.startswith("::ffff:") and "." in host else host


def _listed(host: str, networks: Sequence[Network]) -> bool:
    try:
        ip = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return any(ip in network for network in networks)
