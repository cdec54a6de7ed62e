"""Channel data under AES-GCM without asyncssh's detours; private names of asyncssh 2.24.1, as in raw.py.

asyncssh copies a packet some fifteen times and makes a cipher for each.  Here a packet of channel data is opened in
one call to the cipher, delivered, and sealed in one more.  Whatever is out of the ordinary (another packet, a key
exchange, a window that is too small, a wrong tag) is left where it is, for asyncssh to find: it decides and complains.
"""

from __future__ import annotations

import os
import struct
import time
from typing import Any

from asyncssh.channel import SSHChannel
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST
from asyncssh.encryption import GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TAG = 16
BLOCK = 16
HEAD = struct.Struct(">BBII")
"""Padding length, message, channel, length of the data or its room (RFC 4253 section 6, RFC 4254 section 5.2)."""
TAKEN = frozenset({MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST})
SMALL = 4096
MOST_POSTED = 8


class Express(SSHConnection):
    """A connection whose channel data takes the short way, in both directions."""

    _padding = os.urandom(2 * BLOCK)  # random, and seen by nobody: it is encrypted and authenticated
    _bulk = False
    """Whether data streams in, so that more of it can be taken in one go (see `Fair`)."""
    _outbox: list[bytearray]
    _opener: tuple[Any, AESGCM] | None = None
    _sealer: tuple[Any, AESGCM] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._outbox = []

    def _recv_pkthdr(self) -> bool:
        """The next packet: asyncssh's, after all channel data before it."""
        if self._auth_complete and isinstance(self._recv_encryption, GCMEncryption):
            whole = self._take_data()
            if not whole:
                return False
        return super()._recv_pkthdr()

    def _take_data(self) -> bool:
        """Deliver the packets of data that stand first; whether a whole packet of another kind stands there now."""
        buffer, at = self._inpbuf, 0
        view = memoryview(buffer)
        whole = True
        while self._transport is not None:
            left = len(buffer) - at
            size = int.from_bytes(view[at : at + 4], "big") + 4 + TAG if left >= 4 else 4
            if left < size and size <= self._max_recv_pktlen + 4 + TAG:
                whole = False
                break
            self._bulk = left >= size and self._deliver(view[at : at + size])
            if not self._bulk:
                break
            at += size
        if at and self._transport is not None:
            self._inpbuf = buffer[at:]
        return whole

    def _deliver(self, packet: memoryview) -> bool:
        """Act on one whole packet if it is data, or room for data, in order; else leave everything as it was."""
        cipher = self._recv_encryption._cipher  # type: ignore[union-attr]  # a GCMEncryption has one
        if self._opener is None or self._opener[0] is not cipher:
            self._opener = (cipher, AESGCM(cipher._key))
        try:
            plain = self._opener[1].decrypt(cipher._iv, packet[4:], packet[:4])
        except InvalidTag:
            return False
        if len(plain) <= HEAD.size or plain[1] not in TAKEN or self._decompressor:
            return False
        padding, message, number, size = HEAD.unpack_from(plain)
        channel = self._channels.get(number)
        if not isinstance(channel, SSHChannel) or channel._recv_state != "open":
            return False
        end = HEAD.size + (size if message == MSG_CHANNEL_DATA else 0)
        if end + padding != len(plain) or (message == MSG_CHANNEL_DATA and not 0 < size <= channel._recv_window):
            return False
        cipher._update_iv()
        self._recv_seq = (self._recv_seq + 1) & 0xFFFFFFFF
        if message == MSG_CHANNEL_DATA:
            channel._accept_data(plain[HEAD.size : end])
        else:
            channel._send_window += size
            channel._flush_send_buf()
        return True

    def send_data(self, number: int, data: bytes | bytearray) -> bool:
        """Send one packet of channel data; False, and nothing is sent, where that is asyncssh's to do."""
        encryption = self._send_encryption
        if not (self._kex_complete and self._auth_complete and isinstance(encryption, GCMEncryption)):
            return False
        if self._compressor or self._rekey_bytes_sent >= self._rekey_bytes:
            return False
        if self._rekey_seconds and time.monotonic() >= self._rekey_time:
            return False
        cipher = encryption._cipher
        if self._sealer is None or self._sealer[0] is not cipher:
            self._sealer = (cipher, AESGCM(cipher._key))
        padding = 4 + -(HEAD.size + len(data) + 4) % BLOCK
        plain = b"".join((HEAD.pack(padding, MSG_CHANNEL_DATA, number, len(data)), data, self._padding[:padding]))
        packet = bytearray(4 + len(plain) + TAG)
        packet[:4] = len(plain).to_bytes(4, "big")
        self._sealer[1].encrypt_into(cipher._iv, plain, packet[:4], memoryview(packet)[4:])
        cipher._update_iv()
        self._send_seq = (self._send_seq + 1) & 0xFFFFFFFF
        self._rekey_bytes_sent += len(plain)
        self._post(packet)
        return True

    def _post(self, packet: bytearray) -> None:
        """Large packets leave together, at the end of this turn of the loop: each call to the kernel costs as much."""
        self._outbox.append(packet)
        if len(packet) < SMALL or len(self._outbox) >= MOST_POSTED:
            self._flush_outbox()
        elif len(self._outbox) == 1:
            self._loop.call_soon(self._flush_outbox)

    def _flush_outbox(self) -> None:
        if self._outbox and self._transport is not None:
            self._transport.writelines(self._outbox)
        self._outbox = []

    def _send(self, data: bytes) -> None:
        if self._outbox:
            self._flush_outbox()
        super()._send(data)
