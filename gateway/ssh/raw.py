"""What stands on private names of asyncssh 2.24.1, with those of its neighbours that say so, and nothing else.

asyncssh's public API decides requests in synchronous callbacks, decodes what it should carry and answers on its own.
A gateway has to ask policy first and pass payloads on byte for byte, so channels here are raw: every channel request
and every channel open is handed over as (name, payload).  The version is pinned exactly; `tests/ssh/` guards each of
these behaviours.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, cast

import asyncssh
from asyncssh.connection import (
    SSHConnection,
    SSHServerConnectionOptions,
)
from asyncssh.constants import MSG_CHANNEL_FAILURE, MSG_CHANNEL_SUCCESS, MSG_GLOBAL_REQUEST
from asyncssh.misc import map_handler_name
from asyncssh.packet import SSHPacket
from asyncssh.session import SSHSession

from gateway.authn import Ask
from gateway.ssh.bounds import MAX_CHANNELS
from gateway.ssh.fair import Fair
from gateway.ssh.hosted import Hosted
from gateway.ssh.limits import Limited, Limits
from gateway.ssh.rekeying import Rekeying
from gateway.ssh.swift import Prompt, Swift
from gateway.ssh.unproven import Unproven
from gateway.ssh.userauth import Offer, Reply, Userauth

log = logging.getLogger(__name__)

WINDOW = 2 * 2**20
PACKET = 32768
STDERR = 1
"""The one extended data type there is (RFC 4254 section 5.2)."""

RequestHandler = Callable[[str, bytes, bool], Awaitable[bool] | bool]


class RawChannel(Limited):
    """A channel that judges nothing: `on_request(name, payload, want_reply)` answers each request, one at a time and
    in order.  A handler that returns a plain bool is answered in the same turn, so that what follows cannot overtake.
    """

    _read_datatypes = {STDERR}
    _write_datatypes = {STDERR}

    def __init__(self, connection: SSHConnection, on_request: RequestHandler) -> None:
        super().__init__(connection, connection._loop, None, "strict", WINDOW, PACKET)
        self._on_request = on_request

    @property
    def gone(self) -> bool:
        """Whether the channel, or its connection, has closed."""
        return self.is_over or self._close_event.is_set() or self._conn is None

    @property
    def is_open(self) -> bool:
        """Whether requests can still be sent on it."""
        return self._send_state in {"open", "eof_pending", "eof"}

    @property
    def is_writable(self) -> bool:
        """Whether data can still be sent on it: not after its EOF."""
        return self._send_state == "open"

    async def open(self, kind: str, payload: bytes, session: SSHSession[bytes]) -> None:
        """Open this channel towards the other side with exactly `payload`.  Raises asyncssh.ChannelOpenError."""
        await self._open(kind.encode("ascii"), payload)
        self._session = session
        session.connection_made(self)

    async def request(self, name: str, payload: bytes, want_reply: bool) -> bool:
        """Send a channel request with exactly `payload`; without `want_reply` it counts as granted.

        A connection that is lost meanwhile does not grant, however it was lost.
        """
        if not self.is_open:
            return False
        if want_reply:
            try:
                return bool(await self._make_request(name.encode("ascii"), payload))
            except (asyncssh.Error, OSError, ValueError) as error:
                log.info("request_lost", extra={"request": name, "error": repr(error)})
                return False
        self._send_request(name.encode("ascii"), payload)
        return True

    def send_request(self, name: str, payload: bytes) -> None:
        """Send a channel request that wants no reply, in this turn."""
        if self.is_open:
            self._send_request(name.encode("ascii"), payload)

    def _service_next_request(self) -> None:
        if self._is_early():
            return
        name, packet, want_reply = self._request_queue[0]
        answer = self._on_request(name, packet.get_remaining_payload(), want_reply)
        if isinstance(answer, bool):
            self._report_response(answer)
        else:
            assert self._conn is not None
            self._conn.create_task(self._answer_later(answer))

    async def _answer_later(self, answer: Awaitable[bool]) -> None:
        self._report_response(await answer)

    def _report_response(self, result: bool) -> None:
        _, _, want_reply = self._request_queue.pop(0)
        if want_reply and self._send_state not in {"close_pending", "closed"}:
            self.send_packet(MSG_CHANNEL_SUCCESS if result else MSG_CHANNEL_FAILURE)
        if self._request_queue and self._conn is not None:
            self._service_next_request()


class Gate(Protocol):
    """What a `GateConnection` asks about; `ssh/server.py` answers."""

    async def authenticate(self, offer: Offer, ask: Ask) -> Reply | None: ...

    def open_channel(self, kind: str, payload: bytes) -> tuple[RawChannel, Awaitable[SSHSession[bytes]]]: ...

    async def global_request(self, name: str, payload: bytes) -> bool | bytes: ...

    def no_more_sessions(self) -> None: ...


class GateConnection(Fair, Unproven, Hosted, Rekeying, Prompt, Swift, Userauth):
    """The engineer's side: no channel, request or proof is judged by asyncssh itself."""

    limits: Limits | None = None
    """What all its channels share, once there is a permit (limits.py)."""

    @property
    def gate(self) -> Gate:
        if self._owner is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "connection closed")
        return cast(Gate, self._owner)  # `listen` is given owners that are one

    @property
    def client_software(self) -> str:
        return self._client_version.decode("ascii", "backslashreplace")

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent any more, also where its channels do not know yet."""
        return self._transport is None

    def _process_channel_open_of(self, kind: str, packet: SSHPacket) -> tuple[RawChannel, Awaitable[SSHSession[bytes]]]:
        if not self._auth_complete:
            raise asyncssh.ProtocolError("channel open before authentication")
        if self.channel_count >= MAX_CHANNELS:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many channels")
        return self.gate.open_channel(kind, packet.get_remaining_payload())

    def _process_global_request(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """What the client gives up is given up at once, whatever waits in the queue before it."""
        name = SSHPacket(packet.get_remaining_payload()).get_string()
        if name == NO_MORE_SESSIONS and self._owner is not None:
            self.gate.no_more_sessions()
        super()._process_global_request(pkttype, pktid, packet)

    _packet_handlers = {**Unproven._packet_handlers, MSG_GLOBAL_REQUEST: _process_global_request}

    def _process_no_more_sessions_at_openssh_dot_com_global_request(self, _packet: SSHPacket) -> None:
        self._report_global_response(True)

    def _process_global_request_of(self, name: str, packet: SSHPacket) -> None:
        self.create_task(self._answer_global(name, packet.get_remaining_payload()))

    async def _answer_global(self, name: str, payload: bytes) -> None:
        granted = self._owner is not None and await self.gate.global_request(name, payload)
        if self._transport is not None:
            self._report_global_response(granted)


# asyncssh finds handlers by name, so each kind that we judge gets a method of that name.
JUDGED_CHANNELS = ("session", "direct-tcpip", "direct-streamlocal@openssh.com", "tun@openssh.com")
JUDGED_GLOBAL_REQUESTS = (
    "tcpip-forward",
    "cancel-tcpip-forward",
    "streamlocal-forward@openssh.com",
    "cancel-streamlocal-forward@openssh.com",
)
NO_MORE_SESSIONS = b"no-more-sessions@openssh.com"


def _install() -> None:
    for kind in JUDGED_CHANNELS:

        def opened(self: GateConnection, packet: SSHPacket, kind: str = kind) -> Any:
            return self._process_channel_open_of(kind, packet)

        setattr(GateConnection, f"_process_{map_handler_name(kind)}_open", opened)
    for name in JUDGED_GLOBAL_REQUESTS:

        def asked(self: GateConnection, packet: SSHPacket, name: str = name) -> None:
            self._process_global_request_of(name, packet)

        setattr(GateConnection, f"_process_{map_handler_name(name)}_global_request", asked)


_install()


async def server_options(**options: Any) -> SSHServerConnectionOptions:
    """What all connections of engineers share; owners and addresses are each connection's own."""
    built: SSHServerConnectionOptions = await SSHServerConnectionOptions.construct(
        None, config=None, server_factory=asyncssh.SSHServer, **options
    )
    built.proxy_command = None
    return built


def close_all(channels: Iterable[RawChannel]) -> None:
    for channel in channels:
        channel.close()
