"""New keys in time, whichever way the bytes go; private names of asyncssh 2.24.1, as in raw.py."""

from __future__ import annotations

import time
from typing import Any

from asyncssh.connection import SSHConnection


class Rekeying(SSHConnection):
    """asyncssh counts what it sends, and looks at the clock when it sends; here what is received counts as well."""

    _received = 0

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        super().data_received(data, datatype)
        self._received += len(data)
        if self._auth_complete and self._kex_complete and self._transport is not None and self._due():
            self._send_kexinit()
            self._kexinit_sent = True

    def _due(self) -> bool:
        late = bool(self._rekey_seconds) and time.monotonic() >= self._rekey_time
        return late or self._received >= self._rekey_bytes

    def _send_kexinit(self) -> None:
        self._received = 0
        super()._send_kexinit()
