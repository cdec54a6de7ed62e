"""Who listens: accepts connections, tells each one's story in a task of its own, and drains at the end."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncssh
from opentelemetry import trace

from gateway import __version__
from gateway.admission import Admission, Ticket
from gateway.audit.journal import Journal
from gateway.audit.log import AuditLog
from gateway.authn import Verifiers
from gateway.concurrency import background, cancel_and_wait
from gateway.doorstep import Address, Doorstep
from gateway.errors import AuditUnavailable, DoorwardError, GatewayShutdown, SettingsError
from gateway.live import Live
from gateway.model import SessionId
from gateway.policy import Policy
from gateway.refusals import Refusals
from gateway.sections import A_FREE_ADDRESS
from gateway.session import Sessions
from gateway.settings_ssh import SshSettings
from gateway.ssh import algorithms, raw
from gateway.ssh.hosted import Common, Identity
from gateway.ssh.keys import SIGNATURES
from gateway.ssh.server import Engineer
from gateway.telemetry import Step

log = logging.getLogger(__name__)

CLEAN_UP_SECONDS = 15
BACKLOG = 128


class Front:
    """The SSH port."""

    def __init__(
        self,
        settings: SshSettings,
        policy: Policy,
        verifiers: Verifiers,
        sessions: Sessions,
        live: Live,
        audit: AuditLog,
        tracer: trace.Tracer,
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._verifiers = verifiers
        self._sessions = sessions
        self._live = live
        self._audit = audit
        self._tracer = tracer
        self._connections: dict[asyncio.Task[None], SessionId] = {}
        self._persons: Counter[str] = Counter()
        self._refusals = Refusals(Journal(audit, tracer))
        self._admission = Admission(settings)
        self._doorstep = Doorstep(settings.proxy_from, self._admission, self._connection, self._refusals.note)
        self.address = ("", 0)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen while the body runs; on exit accept no more, drain, and wait until all is gone."""
        host, _, port = self._settings.listen.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._doorstep.arrival, host.strip("[]"), int(port), backlog=BACKLOG)
        except OSError as error:
            raise SettingsError(
                f"ssh.listen: cannot listen on {self._settings.listen}: {error}", remedy=A_FREE_ADDRESS
            ) from error
        self.address = server.sockets[0].getsockname()[:2]
        async with background(self._refusals.tell()):
            try:
                yield
            finally:
                server.close()
                self._doorstep.close()
                await self._drain()

    async def present(self, identity: Identity) -> None:
        """From the next connection on, be whom `identity` proves.  Once before `open`."""
        options = await raw.server_options(
            server_host_keys=list(identity.keys),
            # OpenSSH's client sends eow and no-more-sessions only to a server whose name starts like this, and
            # without eow `ssh door yes | head -1` never ends.
            server_version=f"OpenSSH_9.9 Doorward_{__version__}",
            login_timeout=self._settings.login_grace_seconds,
            keepalive_interval=self._settings.keepalive_seconds,
            keepalive_count_max=self._settings.keepalive_count,
            rekey_bytes=self._settings.rekey_bytes,
            rekey_seconds=self._settings.rekey_seconds,
            kex_algs=algorithms.KEY_EXCHANGE,
            encryption_algs=algorithms.GCM,
            mac_algs=algorithms.MAC,
            signature_algs=sorted(name.decode() for name in SIGNATURES),
            compression_algs=None,
            agent_forwarding=False,
            x11_forwarding=False,
            gss_host=None,
        )
        self._common = Common(options, identity, self._settings.max_auth_tries)

    def describe(self) -> dict[str, Any]:
        """Who is here and who was refused, in numbers."""
        return {**self._admission.describe(), "refused": dict(self._refusals.total)}

    def _connection(
        self, _transport: asyncio.Transport, peer: Address, local: Address, ticket: Ticket
    ) -> asyncio.Protocol:
        def engineer() -> Engineer:
            session = SessionId(secrets.token_hex(8))
            journal = Journal(self._audit, self._tracer, session=session)
            return Engineer(self._policy, self._verifiers, journal, session, lambda made: self._begin(made, ticket))

        return raw.GateConnection(self._common, engineer, ticket, peer, local)

    def _begin(self, engineer: Engineer, ticket: Ticket) -> None:
        """A connection was made: tell its story."""
        task = asyncio.ensure_future(self._serve(engineer, ticket))
        self._connections[task] = engineer.session
        task.add_done_callback(self._connections.pop)

    async def _serve(self, engineer: Engineer, ticket: Ticket) -> None:
        with engineer.journal.rooted(Step.CONNECTION):
            try:
                await _record_accept(engineer)
                async with background(self._watch(engineer, ticket)):
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

    async def _watch(self, engineer: Engineer, ticket: Ticket) -> None:
        """Once it is known who this is: they may hold so many connections, and have to open something on each."""
        await ticket.proven.wait()
        identity = engineer.subject.identity
        person = identity.person if identity is not None else ""
        self._persons[person] += 1
        try:
            if self._persons[person] > self._settings.max_connections_per_person:
                log.warning("too_many_connections", extra={"session": engineer.session, "person": person})
                engineer.end(_too_many(self._settings.max_connections_per_person))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.channel_grace_seconds):
                    await engineer.wait_gone()
            if not engineer.asked:
                self._hang_up(engineer)
            await engineer.wait_gone()
        finally:
            self._persons[person] -= 1
            if not self._persons[person]:
                del self._persons[person]

    def _hang_up(self, engineer: Engineer) -> None:
        """Who is authenticated and opens nothing is no session, so no clock of a permit's runs for them."""
        if engineer.connection.is_lost:
            return
        seconds = self._settings.channel_grace_seconds
        log.warning("no_channel_opened", extra={"session": engineer.session, "client_address": engineer.peer[0]})
        engineer.connection.disconnect(
            asyncssh.DISC_BY_APPLICATION, f"no_channel: nothing was opened within {seconds:g} s"
        )

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
        self._live.end_all(GatewayShutdown().reasons[0])
        if self._connections:
            await asyncio.wait(self._connections, timeout=CLEAN_UP_SECONDS)
        await cancel_and_wait(list(self._connections))


def _too_many(limit: int) -> DoorwardError:
    return DoorwardError(
        f"you have {limit} connections to this gateway already",
        code="too_many_connections",
        remedy="Close some of them; several programs can share one connection (ControlMaster in ssh_config).",
    )


async def _record_accept(engineer: Engineer) -> None:
    """Put the connection on record; only then may it authenticate."""
    await engineer.journal.record(Step.ACCEPT, "ok", client_address=engineer.peer[0], client_port=engineer.peer[1])
    engineer.accepted.set()
