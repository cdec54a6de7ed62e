"""The workspace's side of a connection, on private names of asyncssh 2.24.1 as in raw.py.

The agent is not trusted.  It may open a channel for two things only: a way out that the permit names, and a listener
that the engineer was granted; which listeners those are is not its to say, and the two lists share no address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncssh
from asyncssh.connection import SSHClientConnection, SSHClientConnectionOptions
from asyncssh.constants import MSG_REQUEST_SUCCESS
from asyncssh.misc import map_handler_name
from asyncssh.packet import SSHPacket
from asyncssh.session import SSHSession

from gateway.ssh.bounds import Bounded, PacedTCP
from gateway.ssh.fair import Fair
from gateway.ssh.raw import RawChannel
from gateway.ssh.swift import Swift

MAX_EGRESS = 100
"""Connections out of one workspace at a time: each is a descriptor of this process, which all sessions share."""

Arrived = Callable[[str, bytes], tuple[RawChannel, Awaitable[SSHSession[bytes]]]]


def not_asked_for(_kind: str, _payload: bytes) -> Any:
    """What an agent hears that opens a channel to nothing that was granted."""
    raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "not asked for")


class AgentConnection(Fair, Bounded, Swift, SSHClientConnection):
    """A connection that answers nothing that it was not asked for."""

    said_by = ""
    """Who refuses a channel, before the refusal's words, where it is not simply the workspace."""
    arrived: Arrived
    """Takes `(kind, payload)` of what comes to a listener, or raises asyncssh.ChannelOpenError."""

    def __init__(self, options: SSHClientConnectionOptions) -> None:
        super().__init__(asyncio.get_running_loop(), options, wait="auth")
        self.arrived = not_asked_for

    async def ask(self, name: str, payload: bytes) -> tuple[bool, bytes]:
        """A global request and the payload of its answer."""
        kind, packet = await self._make_global_request(name.encode("ascii"), payload)
        return kind == MSG_REQUEST_SUCCESS, packet.get_remaining_payload()

    def is_way_out(self, host: str, port: int) -> bool:
        """Whether the agent listens there for the permit's own egress."""
        return (host, port) in self._remote_listeners

    def _process_hostkeys_00_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        self._report_global_response(False)

    def create_tcp_channel(self, *args: Any, **kwargs: Any) -> Any:
        return PacedTCP(self, self._loop, *args, **kwargs)

    def _process_forwarded_tcpip_open(self, packet: SSHPacket) -> Any:
        payload = packet.get_remaining_payload()
        peek = SSHPacket(payload)
        if not self.is_way_out(peek.get_string().decode("utf-8", "replace"), peek.get_uint32()):
            return self.arrived("forwarded-tcpip", payload)
        if sum(isinstance(channel, PacedTCP) for channel in self._channels.values()) >= MAX_EGRESS:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many connections")
        return super()._process_forwarded_tcpip_open(packet)


C = TypeVar("C", bound=AgentConnection)

# asyncssh finds handlers by name, so each kind gets a method of that name.
ARRIVALS = ("x11", "auth-agent@openssh.com", "forwarded-streamlocal@openssh.com")


def _install() -> None:
    for kind in ARRIVALS:

        def opened(self: AgentConnection, packet: SSHPacket, kind: str = kind) -> Any:
            return self.arrived(kind, packet.get_remaining_payload())

        setattr(AgentConnection, f"_process_{map_handler_name(kind)}_open", opened)


_install()


async def connect(
    create_connection: Callable[[Callable[[], asyncio.Protocol]], Awaitable[tuple[Any, Any]]],
    kind: Callable[[SSHClientConnectionOptions], C],
    *,
    host: str = "workspace",
    **options: Any,
) -> C:
    """SSH over a byte stream that `create_connection(factory)` gives.  Raises asyncssh.Error or OSError.

    Cancelled or failed, the stream is closed.
    """
    built = await SSHClientConnectionOptions.construct(None, config=None, host=host, **options)
    built.waiter = asyncio.get_running_loop().create_future()
    connection = kind(built)
    try:
        await create_connection(lambda: connection)
        await built.waiter
    except BaseException as error:
        connection.abort()
        if isinstance(error, ValueError):  # asyncssh's PacketDecodeError and KeyImportError are no asyncssh.Error
            raise asyncssh.ProtocolError(f"malformed: {error}") from error
        raise
    return connection
