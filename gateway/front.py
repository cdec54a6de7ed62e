"""Who listens: accepts connections, tells each one's story in a task of its own, and drains at the end."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncssh
from opentelemetry import trace

from gateway import __version__
from gateway.audit.journal import Journal
from gateway.audit.log import AuditLog
from gateway.concurrency import cancel_and_wait
from gateway.errors import AuditUnavailable, SettingsError
from gateway.live import Live
from gateway.model import Reason, SessionId
from gateway.policy import Policy
from gateway.session import Sessions
from gateway.settings import SshSettings
from gateway.ssh import raw
from gateway.ssh.server import Engineer, record_accept
from gateway.telemetry import Step

log = logging.getLogger(__name__)

SHUTDOWN = Reason(code="gateway_shutdown", message="the gateway is shutting down", remedy="Connect again in a minute.")
CLEAN_UP_SECONDS = 15


class Front:
    """The SSH port."""

    def __init__(
        self,
        settings: SshSettings,
        policy: Policy,
        sessions: Sessions,
        live: Live,
        audit: AuditLog,
        tracer: trace.Tracer,
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._sessions = sessions
        self._live = live
        self._audit = audit
        self._tracer = tracer
        self._connections: dict[asyncio.Task[None], SessionId] = {}
        self.address = ("", 0)

    @asynccontextmanager
    async def open(self, host_keys: list[asyncssh.SSHKey]) -> AsyncIterator[None]:
        """Listen while the body runs; on exit accept no more, drain, and wait until all is gone."""
        host, _, port = self._settings.listen.rpartition(":")
        try:
            server = await raw.listen(
                host.strip("[]"),
                int(port),
                self._accept,
                self._settings.max_auth_tries,
                server_host_keys=host_keys,
                # OpenSSH's client sends eow and no-more-sessions only to a server whose name starts like this, and
                # without eow `ssh door yes | head -1` never ends.
                server_version=f"OpenSSH_9.9 Doorward_{__version__}",
                login_timeout=self._settings.login_grace_seconds,
                keepalive_interval=self._settings.keepalive_seconds,
                keepalive_count_max=self._settings.keepalive_count,
                kex_algs="-*sha1*",  # asyncssh's own order otherwise: post-quantum hybrids first
                encryption_algs=["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"],
                compression_algs=None,
                agent_forwarding=False,
                x11_forwarding=False,
                gss_host=None,
            )
        except OSError as error:
            raise SettingsError(f"ssh.listen: cannot listen on {self._settings.listen}: {error}") from error
        self.address = server.sockets[0].getsockname()[:2]
        try:
            yield
        finally:
            server.close()
            await self._drain()

    def _accept(self) -> Engineer:
        session = SessionId(secrets.token_hex(8))
        return Engineer(self._policy, Journal(self._audit, self._tracer, session=session), session, self._begin)

    def _begin(self, engineer: Engineer) -> None:
        """A connection was made: tell its story."""
        if len(self._connections) >= self._settings.max_connections:
            log.warning("too_many_connections", extra={"client_address": engineer.peer[0]})
            engineer.connection.abort()
            return
        task = asyncio.ensure_future(self._serve(engineer))
        self._connections[task] = engineer.session
        task.add_done_callback(self._connections.pop)

    async def _serve(self, engineer: Engineer) -> None:
        with engineer.journal.rooted(Step.CONNECTION):
            try:
                await record_accept(engineer)
                await self._sessions.handle(engineer.session, engineer, engineer.journal)
                await engineer.wait_gone()
                await engineer.journal.record(Step.GONE, "ok", of=Step.CONNECTION)
            except AuditUnavailable as error:
                log.error("connection_unrecorded", extra={"session": engineer.session})
                engineer.end(error)
                engineer.accepted.set()  # to be told why: whoever authenticates now is turned away
                await engineer.wait_gone()
            finally:
                engineer.connection.abort()

    async def _drain(self) -> None:
        """Let live sessions go on for `drain_seconds`, then end them with a message; wait until all is gone."""
        live = set(self._live.ids())
        for task, session in list(self._connections.items()):
            if session not in live:
                task.cancel()
        if live and self._settings.drain_seconds:
            seconds = f"{self._settings.drain_seconds:g} s"
            self._live.say(f"doorward: the gateway is shutting down; this session ends in {seconds}")
            await asyncio.wait(self._connections, timeout=self._settings.drain_seconds)
        self._live.end_all(SHUTDOWN)
        if self._connections:
            await asyncio.wait(self._connections, timeout=CLEAN_UP_SECONDS)
        await cancel_and_wait(list(self._connections))
