"""What asyncssh leaves without bounds and a hostile peer could fill; private names of asyncssh 2.24.1, as in raw.py.

asyncssh writes what a channel's window allows whether or not the peer reads, and queues requests and answers for ever.
Here a channel stops when its connection's transport is full (so its source is read no more), and a peer that makes us
keep more than it could need is hung up on.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

import asyncssh
from asyncssh.channel import SSHChannel, SSHTCPChannel
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_CHANNEL_REQUEST, MSG_GLOBAL_REQUEST
from asyncssh.packet import SSHPacket

log = logging.getLogger(__name__)

MAX_UNREAD = 4 * 2**20
"""Bytes we keep for a peer that does not read.  Channel data stops far below; only answers can pile up so high."""
MAX_DEFERRED = 4096
"""Packets kept while a peer that began a key exchange does not end it."""
MAX_QUEUED_REQUESTS = 256
MAX_QUEUED_BYTES = 2**20
MIN_PACKET = 256
"""The smallest packets we send: each costs the same to encrypt, and one byte each would let one peer starve all."""
MAX_CHANNELS = 1024
"""On one connection, opening or open, whatever the permit says: what is refused takes room too until it closes."""


class Bounded(SSHConnection):
    """A connection that keeps a bounded amount for its peer."""

    _full = False

    @property
    def choked(self) -> bool:
        """Whether data sent now would only pile up here."""
        return self._full or not self._kex_complete

    @property
    def channel_count(self) -> int:
        """Channels that are opening or open."""
        return len(self._channels)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._flow()

    def _send_deferred_packets(self) -> None:
        super()._send_deferred_packets()
        self._flow()

    def _flow(self) -> None:
        for channel in list(self._channels.values()):
            if self.choked:
                return
            if isinstance(channel, Paced):
                channel.flow()

    def _send(self, data: bytes) -> None:
        super()._send(data)
        if self._full and self._transport is not None and self._transport.get_write_buffer_size() > MAX_UNREAD:
            self._drop("peer_does_not_read")

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        super().send_packet(pkttype, *args, handler=handler)
        if len(self._deferred_packets) > MAX_DEFERRED:
            self._deferred_packets.clear()
            self._drop("peer_does_not_end_key_exchange")

    def _drop(self, why: str) -> None:
        log.warning(why, extra={"peer": type(self).__name__})
        self.abort()

    def _process_global_request(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        if len(self._global_request_queue) >= MAX_QUEUED_REQUESTS:
            raise asyncssh.ProtocolError("too many unanswered requests")
        super()._process_global_request(pkttype, pktid, packet)

    _packet_handlers = {**SSHConnection._packet_handlers, MSG_GLOBAL_REQUEST: _process_global_request}


def _unknown_kind(_self: Any, _packet: SSHPacket) -> Any:
    raise asyncssh.ChannelOpenError(asyncssh.OPEN_UNKNOWN_CHANNEL_TYPE, "Unknown channel type")


# Handlers are found by name, and a channel of type "channel" would find asyncssh's own dispatcher.  The dispatcher is
# called through the table of packet handlers, so its name is free.
setattr(Bounded, "_process_channel_open", _unknown_kind)  # noqa: B010 - an assignment would be an override to mypy


class Paced(SSHChannel[bytes]):
    """A channel that sends only as fast as its connection, in packets of a sane size."""

    def flow(self) -> None:
        """The connection is free again."""
        self._flush_send_buf()

    def _flush_send_buf(self) -> None:
        if isinstance(self._conn, Bounded) and self._conn.choked:
            self._pause_resume_writing()
        else:
            super()._flush_send_buf()

    def process_open(self, send_chan: int, send_window: int, send_pktsize: int, session: Any) -> None:
        if send_pktsize < MIN_PACKET:
            if inspect.iscoroutine(session):
                session.close()
            self._loop.call_soon(self._cleanup)
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "maximum packet size too small")
        super().process_open(send_chan, send_window, send_pktsize, session)

    def process_open_confirmation(self, send_chan: int, send_window: int, send_pktsize: int, packet: SSHPacket) -> None:
        if send_pktsize < MIN_PACKET:
            raise asyncssh.ProtocolError("maximum packet size too small")
        super().process_open_confirmation(send_chan, send_window, send_pktsize, packet)

    def _process_request(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        queued = sum(len(waiting.get_full_payload()) for _, waiting, _ in self._request_queue)
        if len(self._request_queue) >= MAX_QUEUED_REQUESTS or queued > MAX_QUEUED_BYTES:
            raise asyncssh.ProtocolError("too many unanswered requests")
        super()._process_request(pkttype, pktid, packet)

    _packet_handlers = {**SSHChannel._packet_handlers, MSG_CHANNEL_REQUEST: _process_request}


class PacedTCP(Paced, SSHTCPChannel[bytes]):
    """asyncssh's own forward, paced."""
