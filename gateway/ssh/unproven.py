"""A server's connection before anybody is authenticated on it; private names of asyncssh 2.24.1, as in raw.py.

Until then it may send a bounded amount, in packets of a bounded size, in one key exchange; asyncssh itself bounds none
of these.  How it ends is told to its `Guest`, since a source pays for connections that come to nothing.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import asyncssh
from asyncssh.constants import DISC_SERVICE_NOT_AVAILABLE, MSG_KEXINIT
from asyncssh.packet import SSHPacket

from gateway.penalties import Fault
from gateway.ssh.algorithms import ciphers_for
from gateway.ssh.bounds import Bounded
from gateway.ssh.hosted import Common, Hosted

log = logging.getLogger(__name__)

Address = tuple[str, int]

MAX_UNPROVEN_BYTES = 256 * 1024
"""All that a client may send before it is authenticated.  OpenSSH's sends 5 KB; with six certificates, 40."""
MAX_UNPROVEN_PACKET = 35000
"""What every implementation must be able to take (RFC 4253 section 6.1)."""


class Guest(Protocol):
    """Who is told of it: `gateway/admission.py`'s ticket."""

    def prove(self) -> None: ...

    def end(self, fault: Fault | None = None) -> None: ...


class Unproven(Bounded, Hosted):
    """Bounded more tightly until it is authenticated.  Its owner is what `owner()` gives when it begins.

    `peer` and `local` are the connection's true ends, which a balancer may have named.
    """

    _heard = 0
    _method = b"none"
    _fault = Fault.NO_AUTH
    _ours = False
    """Whether it ended because of us, so that nobody pays for what they had no time to try."""

    def __init__(
        self,
        common: Common,
        owner: Callable[[], asyncssh.SSHServer],
        guest: Guest,
        peer: Address,
        local: Address,
    ) -> None:
        super().__init__(asyncio.get_running_loop(), common.options)
        self.appear_as(common.identity)
        self._max_auth_tries = common.max_auth_tries
        self._protocol_factory = owner
        self._guest = guest
        self.set_extra_info(peername=peer, sockname=local)
        self._proven_packet, self._max_recv_pktlen = self._max_recv_pktlen, MAX_UNPROVEN_PACKET

    def _connection_made(self) -> None:
        self._peer_addr, self._peer_port = self.get_extra_info("peername")
        self._local_addr, self._local_port = self.get_extra_info("sockname")

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        if not self._auth_complete:
            self._heard += len(data)
            if self._heard > MAX_UNPROVEN_BYTES:
                self._drop("too_much_before_authentication")
                return
        super().data_received(data, datatype)

    def _send_kexinit(self) -> None:
        self._enc_algs = ciphers_for(self._client_version)
        super()._send_kexinit()

    def _process_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        if self._session_id and not self._auth_complete:
            # Each costs us more than the client, and no client needs a second one so early.
            raise asyncssh.ProtocolError("key exchange before authentication")
        return super()._process_kexinit(pkttype, pktid, packet)

    async def _finish_userauth(self, begin_auth: bool, method: bytes, packet: SSHPacket) -> None:
        self._method = method
        await super()._finish_userauth(begin_auth, method, packet)

    def send_userauth_failure(self, partial_success: bool) -> None:
        if self._method != b"none" and not partial_success and self._fault is Fault.NO_AUTH:
            self._fault = Fault.AUTH_FAIL
        if self._transport is not None:
            super().send_userauth_failure(partial_success)

    async def send_userauth_success(self) -> None:
        self._max_recv_pktlen = self._proven_packet
        self._guest.prove()
        await super().send_userauth_success()

    def disconnect(self, code: int, reason: str, lang: str = "en-US") -> None:
        self._ours = code == DISC_SERVICE_NOT_AVAILABLE
        super().disconnect(code, reason, lang)

    def _login_timer_callback(self) -> None:
        self._fault = Fault.GRACE_EXCEEDED
        super()._login_timer_callback()

    def internal_error(self, exc_info: Any = None, error_logger: Any = None) -> None:
        """An error that asyncssh did not expect.  Its text may quote what was sent, so only its place is told."""
        self._fault = Fault.CRASH
        kind, _, where = exc_info or sys.exc_info()
        frame = traceback.extract_tb(where)[-1:]
        at = f"{frame[0].filename.rpartition('/')[2]}:{frame[0].lineno}" if frame else ""
        log.warning("connection_crashed", extra={"error": getattr(kind, "__name__", ""), "at": at})
        super().internal_error(exc_info, error_logger)

    def _cleanup(self, exc: Exception | None) -> None:
        super()._cleanup(exc)
        is_free = self._auth_complete or (self._ours and self._fault is Fault.NO_AUTH)
        self._guest.end(None if is_free else self._fault)

    _packet_handlers = {**Bounded._packet_handlers, MSG_KEXINIT: _process_kexinit}
