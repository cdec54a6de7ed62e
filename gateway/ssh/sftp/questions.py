"""What the agent was asked and has not answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import WorkspaceUnavailable
from gateway.ssh.sftp import replies
from gateway.ssh.sftp.handles import Handle
from gateway.ssh.sftp.operations import Request, resolving
from gateway.ssh.sftp.packets import Broken, Packet


@dataclass(slots=True)
class Asked:
    """A request that the agent has not answered."""

    request: Request
    handle: Handle | None = None
    path: str = ""
    to: str = ""
    resolved: asyncio.Future[bytes] | None = None


class Questions:
    """Under numbers of our own: what a client calls its requests is nothing to the agent."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._open: dict[int, Asked] = {}
        self._next = 0
        self._ended = False

    def ask(self, entry: Asked, *, paths: tuple[bytes, ...] | None = None) -> None:
        inner = entry.handle.inner if entry.handle is not None else b""
        encoded = entry.request.encoded(self._next, paths=paths, handle=inner)
        self._open[self._next] = entry
        self._next = (self._next + 1) % 2**32
        self._send(encoded)

    async def resolve(self, path: bytes, follows: bool) -> bytes:
        """The canonical name of `path`, or nothing where there is none.  Raises WorkspaceUnavailable after `end`."""
        if self._ended:
            raise WorkspaceUnavailable("the channel is closed")
        resolved: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.ask(Asked(resolving(path, follows=follows), resolved=resolved))
        return await resolved

    def answered(self, received: Packet) -> tuple[Asked, replies.Reply] | None:
        """What `received` answers; None for what was asked by `resolve`.  Raises Broken."""
        entry = self._open.get(received.id)
        if entry is None:
            raise Broken("an answer that nobody asked for")
        reply = replies.reply(received, entry.request)
        del self._open[received.id]  # not before: one that breaks the protocol is still waited for, until the end
        if entry.resolved is None:
            return entry, reply
        if not entry.resolved.done():
            entry.resolved.set_result(reply.names[0] if reply.ok else b"")
        return None

    def end(self) -> None:
        self._ended = True
        for entry in self._open.values():
            if entry.resolved is not None and not entry.resolved.done():
                entry.resolved.set_exception(WorkspaceUnavailable("the channel is closed"))
                entry.resolved.exception()  # nobody may be waiting any more
        self._open.clear()
