"""A real SSH host at the other end: the same relay as to an agent, where nobody of ours is.

The host is trusted as little as an agent is: it may open what was granted and nothing else (`inside.py`).  It refuses
in its own right, and whatever it refuses is said to be its refusal.  Private names of asyncssh 2.24.1, as in raw.py.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncssh
from asyncssh.connection import SSHClientConnectionOptions
from asyncssh.constants import MSG_DISCONNECT
from asyncssh.packet import SSHPacket, String
from asyncssh.public_key import SSHKey, decode_ssh_public_key

from gateway.audit.journal import Journal
from gateway.backends import HostWorkspace, Login, Workspace
from gateway.backends.sshproxy.login import in_our_words
from gateway.errors import WorkspaceUnavailable
from gateway.model import DeliveredFile, Logins, Permit
from gateway.parties import Connect
from gateway.settings import RedisSettings
from gateway.ssh import agent, inside
from gateway.ssh.algorithms import GCM, KEY_EXCHANGE, MAC, WITHOUT_GCM
from gateway.ssh.keys import Unreadable, host_certificate
from gateway.ssh.raw import RawChannel
from gateway.trust import trusting
from gateway.words import printable

OPTIONS: dict[str, Any] = {
    "encryption_algs": [*GCM, *WITHOUT_GCM],
    "kex_algs": KEY_EXCHANGE,
    "mac_algs": MAC,
    "client_version": "Doorward",
}


class HostConnection(inside.AgentConnection):
    """A connection that knows why it was lost."""

    why_lost = ""
    _last_words: str | None = None

    def __init__(self, options: SSHClientConnectionOptions, login: Login) -> None:
        super().__init__(options)
        self.login = login
        self.said_by = f"the host {login.name} refused: "

    def validate_server_host_key(self, key_data: bytes) -> SSHKey:
        try:
            key = super().validate_server_host_key(key_data)
        except asyncssh.HostKeyNotVerifiable as error:
            raise asyncssh.HostKeyNotVerifiable(_shown(key_data, error.reason)) from error
        # asyncssh takes a certificate for nobody as one for everybody, and authorities that sign with SHA-1.
        try:
            certificate = host_certificate(key_data)
        except Unreadable as error:
            raise asyncssh.HostKeyNotVerifiable(f"it shows a certificate that is not taken: {error}") from error
        if certificate is not None and not certificate.principals:
            raise asyncssh.HostKeyNotVerifiable("it shows a certificate without a principal, which is for no host")
        return key

    def _process_disconnect(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        peek = SSHPacket(packet.get_remaining_payload())
        peek.get_uint32()
        self._last_words = printable(peek.get_string()[:200].decode("utf-8", "replace"))
        super()._process_disconnect(pkttype, pktid, packet)

    _packet_handlers = {**inside.AgentConnection._packet_handlers, MSG_DISCONNECT: _process_disconnect}

    def _force_close(self, exc: Exception | None) -> None:
        if exc is None and self._last_words is not None:
            exc = asyncssh.ConnectionLost(self._last_words)  # to asyncssh an ordinary end, and to a session none
        if not self.why_lost:
            self.why_lost = self._why(exc)
        super()._force_close(exc)

    def _why(self, exc: Exception | None) -> str:
        name = f"the host {self.login.name}"
        if self._last_words:
            return f"{name} ended the connection: {self._last_words}"
        if isinstance(exc, asyncssh.ConnectionLost) and "keepalive" in exc.reason:
            return f"{name} answered nothing any more"
        return f"{name} closed the connection"


def _shown(key_data: bytes, why: str) -> str:
    try:
        return f"it shows {decode_ssh_public_key(key_data).get_fingerprint()}"
    except asyncssh.KeyImportError:
        return why  # a certificate, and what is wrong with it


class Host(agent.Agent):
    """A host that can be asked to run things.  Valid until its context is left."""

    judges_files = False

    def __init__(self, connection: HostConnection) -> None:
        super().__init__(connection)
        self._login = connection.login
        self.name = f"the host {self._login.name}"

    def describe(self) -> dict[str, str]:
        """For the record: what it proved, and what it says that it is."""
        key = self.connection.get_server_host_key()
        software = str(self.connection.get_extra_info("server_version", ""))
        return {"host_key": key.get_fingerprint() if key else "", "host_software": printable(software[:200])}

    async def setup(
        self, *, env: Mapping[str, str], home: str, shell: str, user: str, files: Iterable[DeliveredFile] = ()
    ) -> None:
        """Nothing is put there, and its programs find what `start` sends.  Raises WorkspaceUnavailable for `files`."""
        if any(True for _ in files):
            raise WorkspaceUnavailable(f"{self.name} is given no credentials: no agent on it would keep them")

    async def open_egress(self, permit: Permit, journal: Journal, logins: Logins) -> None:
        """Raises WorkspaceUnavailable where the permit names a way out: a host has its own network."""
        if permit.workspace.network.egress:
            raise WorkspaceUnavailable(f"{self.name} is given no ways out: it has a network of its own")

    async def start(self, far: RawChannel, name: str, payload: bytes) -> bool:
        """The permit's variables go last, so that they hold where its server takes them (`AcceptEnv`)."""
        for variable, value in self._login.env.items():
            far.send_request("env", String(variable) + String(value))
        return await super().start(far, name, payload)

    def refusal(self, what: str) -> WorkspaceUnavailable:
        return WorkspaceUnavailable(
            f"{self.name} refused {what}; this door had allowed it",
            code="host_refused",
            remedy="Nothing is wrong with your grant. Tell who runs the host: its sshd_config does not let you.",
        )


def reaching(redis: RedisSettings) -> Connect:
    """How the story gets at what is in a workspace.  Raises SettingsError."""
    return partial(reached, tls=trusting(redis.ca_file, "redis"))


@asynccontextmanager
async def reached(workspace: Workspace, tls: ssl.SSLContext | None = None) -> AsyncIterator[agent.Agent]:
    """Whatever is at the end of the workspace's stream; `tls` as `dialled` has it.  Raises WorkspaceUnavailable."""
    if not isinstance(workspace, HostWorkspace):
        async with agent.connected(workspace, tls) as found:
            yield found
        return
    login = workspace.login

    with in_our_words(login):
        async with asyncio.timeout(login.seconds):
            connection = await inside.connect(
                workspace.create_connection, lambda options: HostConnection(options, login), **OPTIONS, **login.options
            )
    try:
        yield Host(connection)
    finally:
        connection.abort()
