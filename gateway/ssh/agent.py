"""The gateway's end of a workspace: an SSH connection to the agent over the runtime's byte stream.

The gateway judges, records and counts on its own side; from the agent it takes no channel that it did not ask for, and
no request on a channel but the few that end or pace a program.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncssh
from asyncssh.packet import String

from gateway.audit.journal import Journal
from gateway.backends import Workspace, hosts
from gateway.deliveries import REDIS
from gateway.errors import DoorwardError, WorkspaceUnavailable
from gateway.model import DeliveredFile, Egress, Lease, Logins, Permit
from gateway.ssh import inside
from gateway.ssh.dialling import dialled
from gateway.ssh.raw import RawChannel
from gateway.telemetry import Step

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10
SETUP_SECONDS = 5
# The stream never leaves the machine or the cluster's TLS: what counts is speed, and AES-GCM is the fastest there is.
FAST: dict[str, Any] = {
    "encryption_algs": ["aes128-gcm@openssh.com"],
    "kex_algs": ["curve25519-sha256"],
    "compression_algs": None,
    "known_hosts": None,  # the runtime vouches for the stream; the key is made at start and known to nobody
    "username": "gateway",
    "client_keys": None,
    "agent_path": None,
    "client_version": "Doorward",
    "rekey_bytes": 2**40,  # one session's stream
}


class Agent:
    """A workspace that can be asked to run things.  Valid until its context is left."""

    name = "the workspace"
    """Who it is, in a sentence about what it did not do."""
    judges_files = True
    """Whether a file is opened there by exactly the name that was judged."""

    def __init__(self, connection: inside.AgentConnection, tls: ssl.SSLContext | None = None) -> None:
        """`tls`: for those ways out that the gateway itself logs in on."""
        self.connection = connection
        self._tls = tls

    async def start(self, far: RawChannel, name: str, payload: bytes) -> bool:
        """Ask for a program on a session channel; whether it was granted."""
        return await far.request(name, payload, True)

    def refusal(self, what: str) -> WorkspaceUnavailable | None:
        """What an engineer is told of a request that it refused; an agent's own refusals speak for themselves."""
        return None

    async def setup(
        self, *, env: Mapping[str, str], home: str, shell: str, user: str, files: Iterable[DeliveredFile] = ()
    ) -> None:
        """Set the environment of what will run and put `files` in place, in one round trip.

        Raises WorkspaceUnavailable; what the agent said goes to the log, for it never holds a file's content.
        """
        order = {
            "env": dict(env),
            "home": home,
            "shell": shell,
            "user": user,
            "files": [
                {"path": file.path, "mode": file.mode, "data": base64.b64encode(file.data).decode()} for file in files
            ],
        }
        payload = String(json.dumps(order))
        try:
            async with asyncio.timeout(SETUP_SECONDS):
                granted, answer = await self.connection.ask("setup@doorward", payload)
        except TimeoutError as error:
            raise WorkspaceUnavailable("the workspace's agent did not answer in time") from error
        if not granted:
            log.error("agent_setup_refused", extra={"answer": answer[:500].decode("utf-8", "backslashreplace")})
            raise WorkspaceUnavailable("the workspace could not be set up")

    async def answers(self) -> None:
        """Return when the agent has given a sign of life: a refusal is one.  Raises WorkspaceUnavailable."""
        try:
            await self.connection.ask("keepalive@openssh.com", b"")
        except (asyncssh.Error, OSError) as error:
            raise WorkspaceUnavailable("the connection to the workspace was lost") from error
        if self.connection.is_closed():  # then what was asked was refused by asyncssh itself
            raise WorkspaceUnavailable("the connection to the workspace was lost")

    async def open_egress(self, permit: Permit, journal: Journal, logins: Logins) -> None:
        """Let the workspace reach what the permit names, and nothing else.  Raises WorkspaceUnavailable.

        The agent listens inside, on the loopback address that /etc/hosts gives the name; each connection comes to the
        gateway as a channel, is recorded, and is dialled from here, and logged in where one of `logins` is for it.
        The first of those is also where `redis-cli` looks.  Listeners end with the agent's connection.
        """
        for address, port, egress in _ways(permit, list(logins)[:1]):
            dial = self._dialler(egress, logins.get((egress.host, egress.port)), journal)
            try:
                async with asyncio.timeout(SETUP_SECONDS):
                    await self.connection.create_server(dial, address, port)
            except (asyncssh.Error, asyncssh.ChannelListenError, OSError) as error:  # TimeoutError is an OSError
                raise WorkspaceUnavailable(
                    f"the workspace could not be given its way to {egress.host}:{egress.port}"
                ) from error

    def _dialler(self, egress: Egress, login: Lease | None, journal: Journal) -> Any:
        async def dial(_host: str, _port: int) -> Any:
            # Any other exception than ChannelOpenError would end the agent's connection, and with it the session.
            forwarder = None
            is_wanted = False
            try:
                async with journal.step(Step.EGRESS, host=egress.host, port=egress.port, **_used(login)) as step:
                    try:
                        forwarder = await dialled(egress.dial, login, self._tls)
                    except asyncssh.ChannelOpenError as error:
                        step.note(why=error.reason)
                        raise
                is_wanted = not self.connection.is_closed()
            except DoorwardError as error:
                raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, error.reasons[0].code) from error
            finally:
                if forwarder is not None and not is_wanted:
                    forwarder.close()  # unrecorded, or nobody is there any more: hung up
            return forwarder

        return dial

    async def wait_gone(self) -> None:
        """Return when the connection to the agent has ended."""
        await self.connection.wait_closed()


@asynccontextmanager
async def connected(workspace: Workspace, tls: ssl.SSLContext | None = None) -> AsyncIterator[Agent]:
    """The agent of `workspace`.  Raises WorkspaceUnavailable."""
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            connection = await inside.connect(workspace.create_connection, inside.AgentConnection, **FAST)
    except TimeoutError as error:
        raise WorkspaceUnavailable("the workspace's agent did not answer in time") from error
    except (asyncssh.Error, OSError) as error:
        raise WorkspaceUnavailable("the workspace's agent could not be reached") from error
    try:
        yield Agent(connection, tls)
    finally:
        connection.abort()


def _ways(permit: Permit, for_redis: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, Egress]]:
    """Where the agent listens, for which way out; one of `for_redis` where `redis-cli` looks of itself, besides."""
    addresses = hosts(permit.workspace)
    for egress in permit.workspace.network.egress:
        yield addresses[egress.host], egress.port, egress
        if (egress.host, egress.port) in for_redis:
            yield *REDIS, egress


def _used(login: Lease | None) -> dict[str, str]:
    return {} if login is None else {"credential": login.spec.name}
