"""A channel that waits for a program's last word; private names of asyncssh 2.24.1, as in raw.py.

OpenSSH's client closes a channel as soon as both directions have ended, and asyncssh answers at once: an exit status
that comes a moment after the end of the output would find the channel closed, and the engineer's script would see 255.
sshd answers a close only when the status is out; so do we, for a bounded time.
"""

from __future__ import annotations

import asyncio
from typing import Any

from asyncssh.constants import MSG_CHANNEL_CLOSE
from asyncssh.packet import SSHPacket

from gateway.ssh.bounds import Paced

LINGER_SECONDS = 2.0


class Closing(Paced):
    """With `lingers` set, a close that comes after our EOF is acted on when we close too, or after LINGER_SECONDS."""

    lingers = False
    _held_close: tuple[int, int, SSHPacket] | None = None
    _timer: asyncio.TimerHandle | None = None

    def _process_close(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        if self.lingers and self._send_state == "eof" and self._held_close is None:
            self._held_close = (pkttype, pktid, packet)
            self._timer = self._loop.call_later(LINGER_SECONDS, self._act_on_close)
        else:
            super()._process_close(pkttype, pktid, packet)

    def close(self) -> None:
        super().close()
        if self._held_close is not None:
            self._act_on_close()

    def _act_on_close(self) -> None:
        held, self._held_close, self.lingers = self._held_close, None, False
        if held is not None and self._recv_state in {"open", "eof_pending", "eof"}:
            super()._process_close(*held)

    def _cleanup(self, exc: Any = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super()._cleanup(exc)

    _packet_handlers = {**Paced._packet_handlers, MSG_CHANNEL_CLOSE: _process_close}
