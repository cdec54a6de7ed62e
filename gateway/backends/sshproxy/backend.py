"""The sshproxy backend: a workspace that is a real SSH host, reached by TCP.

Nothing is started there and nothing of ours is on it, so nothing is limited, walled or removed either: a session's
connection ends, and what it left running is the host's.  What the host must prove itself by comes with the permit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType

from gateway.backends import Login, Order, ProtocolFactory, Workspace
from gateway.backends.sshproxy.login import Signer, login, pinned, private_key, unreachable
from gateway.errors import WorkspaceUnavailable
from gateway.model import Host, SessionId, WorkspaceSpec
from gateway.settings_sshproxy import SshProxySettings

CLOSED = "the workspace was closed"


class SshProxyBackend:
    """Sessions on real hosts.  `open` makes one."""

    name = "sshproxy"

    def __init__(self, settings: SshProxySettings, signer: Signer | None) -> None:
        self._settings = settings
        self._signer = signer
        self._open: set[_Host] = set()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: SshProxySettings, signer: AbstractAsyncContextManager[Signer | None]
    ) -> AsyncIterator[SshProxyBackend]:
        """`signer` signs certificates; without one a permit can name keys alone."""
        async with signer as opened:
            yield cls(settings, opened)

    def workspace(self, order: Order) -> AbstractAsyncContextManager[Workspace]:
        return _Host(self._settings, self._signer, order, self._open)

    async def reap(self, live: Collection[SessionId]) -> list[SessionId]:
        """Connections of ours alone: what still runs on a host is not looked for."""
        dead = [one for one in self._open if one.session not in live]
        for one in dead:
            one.end()
        return [one.session for one in dead]

    async def check(self, spec: WorkspaceSpec | None = None) -> None:
        """That the settings' keys can be used.  Whether a host takes them, only a login tells: `doorward check` does
        one for each target.
        """
        for name, path in self._settings.keys.items():
            await asyncio.to_thread(private_key, name, path)
        if spec is not None:
            pinned(required(spec))


def required(spec: WorkspaceSpec) -> Host:
    """The host that a permit has to name.  Raises WorkspaceUnavailable."""
    if spec.host is None:
        raise WorkspaceUnavailable(
            "the permit names the backend 'sshproxy' and no host",
            remedy="Nothing is wrong with your grant. Security team: give the target a `host`.",
        )
    return spec.host


class _Host:
    """One session's connection to a host, and the context that it lives in."""

    host: Host
    login: Login

    def __init__(self, settings: SshProxySettings, signer: Signer | None, order: Order, among: set[_Host]) -> None:
        self.id = ""
        self.session = order.holder.session
        self._settings = settings
        self._signer = signer
        self._order = order
        self._among = among
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Workspace:
        self.host = host = required(self._order.spec)
        self.id = str(host)
        self.login = await login(self._order, host, self._settings, self._signer)
        self._among.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Returns when the connection is closed, which a host cannot delay."""
        self.end()
        if self._transport is not None:
            await self._closed.wait()

    def describe(self) -> dict[str, str]:
        """For the record."""
        host = self.host
        by = f"key {host.key}" if host.vault is None else f"certificate of {host.vault.role}"
        return {"id": self.id, "user": host.user, "login": by}

    def end(self) -> None:
        """Close the connection.  Ending twice is fine."""
        self._among.discard(self)
        self._tell(CLOSED)
        if self._transport is not None:
            self._transport.abort()

    async def create_connection(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.Protocol]:
        if self._ended.done():
            raise WorkspaceUnavailable("the workspace has ended")
        protocol, host = factory(), self.host
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: _Watched(protocol, self._lost), host.address, host.port
            )
        except OSError as error:
            raise unreachable(self.id) from error
        self._transport = transport
        if self._ended.done():  # left meanwhile
            transport.abort()
        return transport, protocol

    def _lost(self, protocol: asyncio.Protocol) -> None:
        self._closed.set()
        why = getattr(protocol, "why_lost", "")
        self._tell(why or f"the workspace ended: the host {self.id} closed the connection")

    def _tell(self, why: str) -> None:
        if not self._ended.done():
            self._ended.set_result(why)

    async def wait_gone(self) -> str:
        return await asyncio.shield(self._ended)


class _Watched(asyncio.Protocol):
    """Stands before a protocol on its transport, so that its loss is heard of here too."""

    def __init__(self, protocol: asyncio.Protocol, lost: Callable[[asyncio.Protocol], None]) -> None:
        self._protocol = protocol
        self._lost = lost
        # Taken as they are, so that not one call is added to what each packet costs.
        for name in ("data_received", "eof_received", "pause_writing", "resume_writing"):
            setattr(self, name, getattr(protocol, name))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._protocol.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
        self._lost(self._protocol)
