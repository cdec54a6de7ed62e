"""What asyncssh leaves without bounds and a hostile peer could fill; private names of asyncssh 2.24.1, as in raw.py.

asyncssh writes what a channel's window allows whether or not the peer reads, gives a peer its window back before what
it sent was taken, and queues requests and answers for ever.  Here a channel stops when its connection's transport is
full (so its source is read no more), and a peer that makes us keep more than it could need is hung up on.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

import asyncssh
from asyncssh.channel import SSHChannel, SSHTCPChannel
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_CHANNEL_REQUEST, MSG_CHANNEL_WINDOW_ADJUST, MSG_GLOBAL_REQUEST
from asyncssh.packet import SSHPacket, UInt32

from gateway.ssh.express import Express

log = logging.getLogger(__name__)

MAX_UNREAD = 4 * 2**20
"""Bytes we keep for a peer that does not read.  Channel data stops far below; only answers can pile up so high."""
MAX_DEFERRED = 4096
"""Packets kept while a peer that began a key exchange does not end it."""
MAX_QUEUED_REQUESTS = 256
MAX_QUEUED_BYTES = 2**20
PIECE = 32768
"""What waits for a slow reader, in pieces of about this size."""
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
        """Channels that are opening, open or being forgotten: each takes room."""
        return len(self._channels)

    @property
    def open_channels(self) -> int:
        """Channels that are opening or open.

        asyncssh forgets a closed one a turn later, and a client may send the close of one and the opening of the next
        in one packet.
        """
        return sum(not (isinstance(channel, Paced) and channel.is_over) for channel in self._channels.values())

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

    _closed_by_us = False

    @property
    def is_over(self) -> bool:
        """Whether both sides have closed it.  (One that is only opening has the same states.)"""
        return self._closed_by_us and self._recv_state == "closed"

    def _close_send(self) -> None:
        super()._close_send()
        self._closed_by_us = True

    def flow(self) -> None:
        """The connection is free again."""
        self._flush_send_buf()

    def write(self, data: bytes, datatype: int | None = None) -> None:
        """Data that fits goes out in one packet, at once."""
        fits = 0 < len(data) <= min(self._send_window, self._send_pktsize) and not self._send_buf
        if fits and datatype is None and self._send_state == "open" and self._send_at_once(data):
            self._send_window -= len(data)
        else:
            super().write(data, datatype)

    def _flush_send_buf(self) -> None:
        while self._send_window and self._send_buf and self._send_buf[0][1] is None:
            waiting, _ = self._send_buf[0]
            data = waiting[: min(self._send_window, self._send_pktsize)]
            if not self._send_at_once(data):
                break
            if len(data) == len(waiting):
                del self._send_buf[0]
            else:
                del waiting[: len(data)]
            self._send_buf_len -= len(data)
            self._send_window -= len(data)
        if isinstance(self._conn, Bounded) and self._conn.choked:
            self._pause_resume_writing()
        else:
            super()._flush_send_buf()

    def _send_at_once(self, data: bytes | bytearray) -> bool:
        to = self._conn
        if not isinstance(to, Bounded) or to.choked or not isinstance(to, Express) or self._send_chan is None:
            return False
        return to.send_data(self._send_chan, data)

    def _accept_data(self, data: bytes, datatype: int | None = None) -> None:
        """What waits is kept in pieces of a sane size: a window of single bytes would be a hundred times its size."""
        before = len(self._recv_buf)
        super()._accept_data(data, datatype)
        if len(self._recv_buf) > before > 0:
            waiting: Any
            waiting, kind = self._recv_buf[-2]
            if kind == datatype and len(waiting) < PIECE:
                # The one place that keeps a bytearray, which grows without being copied each time.
                joined: Any = waiting if isinstance(waiting, bytearray) else bytearray(waiting)
                joined += data
                self._recv_buf[-2:] = [(joined, kind)]

    def _deliver_data(self, data: bytes, datatype: int | None) -> None:
        """The peer gets back what was delivered, and no more.

        asyncssh gives the whole window back with each piece delivered, whatever still waits behind it: a peer that is
        faster than its reader then fills the memory.
        """
        waiting = sum(len(piece) for piece, _ in self._recv_buf)
        delivered = self._init_recv_window - self._recv_window - waiting
        if delivered > self._init_recv_window // 2:
            self.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(delivered))
            self._recv_window += delivered
        if self._session is not None:
            self._session.data_received(data, datatype)

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
