"""What stands on private names of asyncssh 2.24.1, with bounds.py, closing.py and swift.py, and nothing else.

asyncssh's public API decides requests in synchronous callbacks, decodes what it should carry and answers on its own.
A gateway has to ask policy first and pass payloads on byte for byte, so channels here are raw: every channel request
and every channel open is handed over as (name, payload).  The version is pinned exactly; `tests/ssh/` guards each of
these behaviours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, cast

import asyncssh
from asyncssh.connection import (
    SSHClientConnection,
    SSHClientConnectionOptions,
    SSHConnection,
    SSHServerConnection,
    SSHServerConnectionOptions,
)
from asyncssh.constants import MSG_CHANNEL_FAILURE, MSG_CHANNEL_SUCCESS, MSG_REQUEST_SUCCESS
from asyncssh.misc import map_handler_name
from asyncssh.packet import PacketDecodeError, SSHPacket, String
from asyncssh.public_key import KeyImportError, SSHKey, decode_ssh_public_key
from asyncssh.session import SSHSession

from gateway.ssh.bounds import MAX_CHANNELS, Bounded, PacedTCP
from gateway.ssh.closing import Closing
from gateway.ssh.swift import Prompt, Swift

log = logging.getLogger(__name__)

WINDOW = 2 * 2**20
PACKET = 32768
MAX_EGRESS = 100
"""Connections out of one workspace at a time: each is a descriptor of this process, which all sessions share."""
STDERR = 1
"""The one extended data type there is (RFC 4254 section 5.2)."""

SIGNATURES = frozenset(
    {
        b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp521",
        b"rsa-sha2-256", b"rsa-sha2-512",
        b"sk-ssh-ed25519@openssh.com", b"sk-ecdsa-sha2-nistp256@openssh.com",
    }
)  # fmt: skip
"""What OpenSSH takes by default.  asyncssh also verifies `ssh-rsa` and `rsa1024-sha1`, which sign with SHA-1."""

RequestHandler = Callable[[str, bytes, bool], Awaitable[bool] | bool]


class RawChannel(Closing):
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
        return self._close_event.is_set() or self._conn is None

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

    async def authenticate(self, login: str, key: SSHKey, proven: bool) -> bool: ...

    def open_channel(self, kind: str, payload: bytes) -> tuple[RawChannel, Awaitable[SSHSession[bytes]]]: ...

    async def global_request(self, name: str, payload: bytes) -> bool: ...


class GateConnection(Bounded, Prompt, Swift, SSHServerConnection):
    """The engineer's side: no channel, request or proof is judged by asyncssh itself."""

    _tries = 0
    _asked = 0

    def __init__(self, options: SSHServerConnectionOptions, max_auth_tries: int) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self._max_auth_tries = max_auth_tries

    @property
    def gate(self) -> Gate:
        if self._owner is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "connection closed")
        return cast(Gate, self._owner)  # `listen` is given owners that are one

    @property
    def client_software(self) -> str:
        return self._client_version.decode("ascii", "backslashreplace")

    async def reload_config(self) -> None:
        """No OpenSSH config files are read, so there is nothing to match again."""

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """An empty `msg` is a key that is only offered (RFC 4252 section 7); with one, its signature decides."""
        self._asked += 1
        if self._asked > 2 * self._max_auth_tries:
            # Offers that are welcome, and attempts given up for the next one, do not count as failures.
            self.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication attempts")
            return False
        try:
            key = decode_ssh_public_key(key_data)
        except KeyImportError:
            return False
        if msg and (
            _algorithm(signature) not in SIGNATURES or not key.verify(String(self._session_id) + msg, signature)
        ):
            return False
        return self._owner is not None and await self.gate.authenticate(username, key, proven=bool(msg))

    def send_userauth_failure(self, partial_success: bool) -> None:
        self._tries += 1
        if self._tries > self._max_auth_tries:
            self.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures")
            return
        super().send_userauth_failure(partial_success)

    def _process_channel_open_of(self, kind: str, packet: SSHPacket) -> tuple[RawChannel, Awaitable[SSHSession[bytes]]]:
        if not self._auth_complete:
            raise asyncssh.ProtocolError("channel open before authentication")
        if self.channel_count >= MAX_CHANNELS:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many channels")
        return self.gate.open_channel(kind, packet.get_remaining_payload())

    def _process_global_request_of(self, name: str, packet: SSHPacket) -> None:
        self.create_task(self._answer_global(name, packet.get_remaining_payload()))

    async def _answer_global(self, name: str, payload: bytes) -> None:
        granted = self._owner is not None and await self.gate.global_request(name, payload)
        if self._transport is not None:
            self._report_global_response(granted)


def _algorithm(signature: bytes) -> bytes:
    try:
        return SSHPacket(signature).get_string()
    except PacketDecodeError:
        return b""


class AgentConnection(Bounded, Swift, SSHClientConnection):
    """The workspace's side.  The agent is not trusted: it is answered nothing that it was not asked for."""

    def __init__(self, options: SSHClientConnectionOptions) -> None:
        super().__init__(asyncio.get_running_loop(), options, wait="auth")

    async def ask(self, name: str, payload: bytes) -> tuple[bool, bytes]:
        """A global request and the payload of its answer."""
        kind, packet = await self._make_global_request(name.encode("ascii"), payload)
        return kind == MSG_REQUEST_SUCCESS, packet.get_remaining_payload()

    def _process_hostkeys_00_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        self._report_global_response(False)

    def create_tcp_channel(self, *args: Any, **kwargs: Any) -> Any:
        return PacedTCP(self, self._loop, *args, **kwargs)

    def _process_forwarded_tcpip_open(self, packet: SSHPacket) -> Any:
        if sum(isinstance(channel, PacedTCP) for channel in self._channels.values()) >= MAX_EGRESS:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many connections")
        return super()._process_forwarded_tcpip_open(packet)

    def refuse_open(self, _packet: SSHPacket) -> Any:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "not asked for")


# asyncssh finds handlers by name, so each kind that we judge gets a method of that name.
JUDGED_CHANNELS = ("session", "direct-tcpip", "direct-streamlocal@openssh.com", "tun@openssh.com")
JUDGED_GLOBAL_REQUESTS = (
    "tcpip-forward",
    "cancel-tcpip-forward",
    "streamlocal-forward@openssh.com",
    "cancel-streamlocal-forward@openssh.com",
)
REFUSED_FROM_AGENT = ("x11", "auth-agent@openssh.com", "forwarded-streamlocal@openssh.com")


def _install() -> None:
    for kind in JUDGED_CHANNELS:

        def opened(self: GateConnection, packet: SSHPacket, kind: str = kind) -> Any:
            return self._process_channel_open_of(kind, packet)

        setattr(GateConnection, f"_process_{map_handler_name(kind)}_open", opened)
    for name in JUDGED_GLOBAL_REQUESTS:

        def asked(self: GateConnection, packet: SSHPacket, name: str = name) -> None:
            self._process_global_request_of(name, packet)

        setattr(GateConnection, f"_process_{map_handler_name(name)}_global_request", asked)
    for kind in REFUSED_FROM_AGENT:
        setattr(AgentConnection, f"_process_{map_handler_name(kind)}_open", AgentConnection.refuse_open)


_install()


async def listen(
    host: str, port: int, owner: Callable[[], asyncssh.SSHServer], max_auth_tries: int, **options: Any
) -> asyncio.Server:
    """Listen for engineers; each connection is a GateConnection owned by `owner()`, which also is its Gate."""
    built = await SSHServerConnectionOptions.construct(None, config=None, server_factory=owner, **options)
    built.proxy_command = None
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: GateConnection(built, max_auth_tries), host, port, backlog=128)


async def connect(
    create_connection: Callable[[Callable[[], asyncio.Protocol]], Awaitable[tuple[Any, Any]]], **options: Any
) -> AgentConnection:
    """SSH over a byte stream that `create_connection(factory)` gives.  Raises asyncssh.Error or OSError.

    Cancelled or failed, the stream is closed.
    """
    built = await SSHClientConnectionOptions.construct(None, config=None, host="workspace", **options)
    built.waiter = asyncio.get_running_loop().create_future()
    connection = AgentConnection(built)
    try:
        await create_connection(lambda: connection)
        await built.waiter
    except BaseException:
        connection.abort()
        raise
    return connection


def close_all(channels: Iterable[RawChannel]) -> None:
    for channel in channels:
        channel.close()
