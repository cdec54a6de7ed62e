"""A workspace's way out, from the gateway on: the connection to where the permit says, logged in where that is ours.

asyncssh's own `forward_connection` (2.24.1) loses what a server says before the workspace's side of the channel is
there, and MySQL's speaks first.  So here that is kept, and not more read, until then.

Redis: `redis-cli` takes a password from its arguments, its environment or a terminal only, which are for others to see
or for a person to type.  So the secret stays in this process (docs/adr/0036; RESP2, redis.io/docs/reference).
Where the permit names whose certificate it must be, all of that is within TLS.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

import asyncssh

from gateway.deliveries import RedisDelivery
from gateway.model import Address, Lease

LOGIN_SECONDS = 5.0
MAX_ANSWER = 512


async def dialled(where: Address, login: Lease | None, tls: ssl.SSLContext | None = None) -> asyncssh.SSHForwarder:
    """What a channel of the workspace's is to be joined to.  Raises asyncssh.ChannelOpenError.

    `tls`: for a login whose delivery names a certificate's name.

    Cancelled or failed, the connection is closed.
    """
    loop = asyncio.get_running_loop()
    far = _Far()
    try:
        if login is None:
            transport, _ = await loop.create_connection(lambda: far, where.host, where.port)
            transport.pause_reading()  # in connection_made: without effect (Python 3.11)
        else:
            transport = await _logged_in(where, login, tls)
            transport.set_protocol(far)
            far.connection_made(transport)
    except (OSError, ValueError) as error:  # of a name that is none, UnicodeError
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, str(error)) from None
    return _Near(far)


class _Far(asyncssh.SSHForwarder):
    """The server's side, which keeps what it hears before it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self._early: bytes | None = b""

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        if self._early is None:
            super().data_received(data, datatype)
        else:
            self._early += data

    def go_on(self, near: asyncssh.SSHForwarder) -> None:
        early, self._early = self._early, None
        if early:
            near.write(early)
        if self._transport is None:  # lost meanwhile
            near.close()
            return
        if self.was_eof_received():
            near.write_eof()
        self.resume_reading()

    def eof_received(self) -> bool:
        return super().eof_received() and self._can_half_close()  # within TLS the answer would be nothing but a warning

    def write_eof(self) -> None:
        """Within TLS asyncio has no half-close: what was written still goes out, and then it is hung up."""
        if self._can_half_close():
            super().write_eof()
        elif self._transport is not None:
            self._transport.close()

    def _can_half_close(self) -> bool:
        return self._transport is not None and self._transport.can_write_eof()


class _Near(asyncssh.SSHForwarder):
    """The workspace's side."""

    def __init__(self, far: _Far) -> None:
        super().__init__(far)
        self._far = far

    def session_started(self) -> None:
        self._far.go_on(self)


async def _logged_in(where: Address, login: Lease, tls: ssl.SSLContext | None) -> asyncio.Transport:
    """A connection after AUTH, not reading.  Raises OSError."""
    assert isinstance(login.spec.deliver, RedisDelivery), "nobody else is logged in"
    loop, name = asyncio.get_running_loop(), login.spec.deliver.tls_name
    if name is not None and tls is None:
        raise OSError("this gateway speaks no TLS")
    within = tls if name is not None else None
    asking = _Login(_command("AUTH", login.username, login.password.get_secret_value()))
    try:
        async with asyncio.timeout(LOGIN_SECONDS):  # its TimeoutError is an OSError
            transport, _ = await loop.create_connection(
                lambda: asking, where.host, where.port, ssl=within, server_hostname=name
            )
            await asking.answered
    except BaseException:
        asking.abort()
        raise
    return transport


def _command(*words: str) -> bytes:
    """An array of bulk strings, which can hold any byte."""
    parts = [word.encode() for word in words]
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)])


class _Login(asyncio.Protocol):
    """Sends one command and hears whether it was granted; from the answer on it reads no further."""

    def __init__(self, command: bytes) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._command = command
        self._heard = b""
        self._transport: asyncio.Transport | None = None

    def abort(self) -> None:
        """Hang up; nobody waits for the answer any more."""
        if not self.answered.cancel() and not self.answered.cancelled():
            self.answered.exception()  # looked at, so that asyncio does not report it
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of no such class
        self._transport.write(self._command)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if b"\n" not in self._heard and len(self._heard) < MAX_ANSWER:
            return
        assert self._transport is not None
        self._transport.pause_reading()
        # What the server says is not passed on: it may quote what it was told.
        self._end(None if self._heard == b"+OK\r\n" else OSError("Redis refused the login"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(OSError("Redis hung up on the login"))

    def _end(self, error: OSError | None) -> None:
        if self.answered.done():
            return
        if error is None:
            self.answered.set_result(None)
        else:
            self.answered.set_exception(error)
