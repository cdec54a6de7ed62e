"""The door: asyncssh's callbacks turned into our words.  Refuses by default.

`Engineer` is one connection: it owns the asyncssh connection, answers it as its Gate, and is the `Client` of the story
in `session.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import asyncssh
from asyncssh.session import SSHSession

from gateway.audit.journal import Journal
from gateway.authn import Ask, Verifiers
from gateway.errors import Denied, DoorwardError
from gateway.model import Desk, Permit, SessionId
from gateway.policy import Configured, Policy, Subject
from gateway.policy.contract import Connection
from gateway.ssh.agent import Agent
from gateway.ssh.authentication import Authentication
from gateway.ssh.desk import FrontDesk
from gateway.ssh.forwards import open_forward, refuse_session
from gateway.ssh.listeners import Listeners
from gateway.ssh.program import Program
from gateway.ssh.raw import GateConnection, RawChannel, close_all
from gateway.ssh.relay import Lane, Lanes
from gateway.ssh.requests import Malformed, facts
from gateway.ssh.restricted import Restricted
from gateway.ssh.userauth import Offer, Reply
from gateway.words import explained

log = logging.getLogger(__name__)

HANG_UP_SECONDS = 2.0
"""How long a client may take to read why it was refused before we close the connection."""
MAX_NOTES = 10
T = TypeVar("T")


class Engineer(asyncssh.SSHServer):
    """One connection of one engineer."""

    def __init__(
        self,
        policy: Policy,
        verifiers: Verifiers,
        journal: Journal,
        session: SessionId,
        begin: Callable[[Engineer], None],
    ) -> None:
        self._begin = begin
        self.session = session
        self.journal = journal
        self.accepted = asyncio.Event()
        """Set once the connection is on record: nobody authenticates before."""
        self._policy = policy
        self._authentication = Authentication(policy, verifiers, journal, self._show_banner)
        self.lanes = Lanes()
        self.listeners = Listeners(self)
        self.restricted = Restricted(self)
        self._programs: list[Program] = []
        self._sessions_are_over = False
        self._gone = asyncio.Event()
        self._relaying = False
        self._ending: DoorwardError | None = None
        self.desk = FrontDesk()
        loop = asyncio.get_running_loop()
        self._request: asyncio.Future[Mapping[str, Any]] = loop.create_future()
        self._permit: asyncio.Future[Permit] = loop.create_future()
        self._agent: asyncio.Future[Agent] = loop.create_future()
        self.notice = ""
        self.notes: list[str] = []
        """Why something was refused, for the next terminal: SSH has no room for it elsewhere."""

    # -- asyncssh's callbacks -----------------------------------------------------------------------------------

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        assert isinstance(conn, GateConnection)
        self.connection = conn
        peer = conn.get_extra_info("peername") or ("unknown", 0)
        self.peer = (str(peer[0]), int(peer[1]))
        self.local = (conn.get_extra_info("sockname") or ("unknown", 0))[:2]
        self._begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        self.listeners.close()
        self._settle(DoorwardError("the connection is closed"))

    # -- the Gate (ssh/raw.py) ----------------------------------------------------------------------------------

    async def authenticate(self, offer: Offer, ask: Ask) -> Reply | None:
        """What becomes of one offer; whoever cannot be judged is told why and disconnected."""
        await self.accepted.wait()
        try:
            if self._ending is not None:
                raise self._ending
            reply = await self._authentication.attempt(self._connection(), offer, ask)
        except DoorwardError as error:
            self._turn_away(error)
            return None
        if reply.says:
            self.connection.send_auth_banner(explained(Denied(reply.says), self.session) + "\n")
        if (subject := self._authentication.subject) is not None and subject.identity is not None:
            self.journal.bind(**subject.identity.ids())
        return reply

    def _connection(self) -> Connection:
        host, port = self.peer
        software = self.connection.client_software
        return Connection(id=self.session, client_address=host, client_port=port, client_software=software)

    def _show_banner(self, text: str) -> None:
        if not self.connection.is_lost:
            self.connection.send_auth_banner(text)

    def _turn_away(self, error: DoorwardError) -> None:
        # Before authentication the banner is the only text that ssh shows a person (RFC 4252 section 5.4).
        self.connection.send_auth_banner(explained(error, self.session) + "\n")
        first = error.reasons[0]
        self.connection.disconnect(asyncssh.DISC_SERVICE_NOT_AVAILABLE, f"{first.code}: {first.message}")

    def open_channel(self, kind: str, payload: bytes) -> tuple[RawChannel, Awaitable[SSHSession[bytes]]]:
        """Judge a channel before it is confirmed.  Raises asyncssh.ChannelOpenError for what cannot be judged."""
        try:
            request = facts(kind, payload)
        except Malformed as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, str(error)) from error
        others = self.connection.open_channels - self.listeners.channels
        self.ask_for_permit(request)
        if kind == "session":
            program = Program(self, others)
            if self._sessions_are_over:
                return program.near, refuse_session(self, request)
            self._programs = [*(program for program in self._programs if not program.near.gone), program]
            return program.near, self._open_session(program)
        lane = Lane(kind)
        lane.near = RawChannel(self.connection, lambda *_: False)
        return lane.near, open_forward(self, lane, request, payload, others)

    async def _open_session(self, program: Program) -> SSHSession[bytes]:
        """A session channel opens also for the refused: it is where they can be told why."""
        await self.desk.ready.wait()
        try:
            await program.admission.required()
        except DoorwardError as error:
            program.refuse(error)
        self.lanes.add(program.lane)
        return program.lane.near_end

    def ask_for_permit(self, request: Mapping[str, Any]) -> None:
        """The first wish of a connection is what its permit is asked for."""
        if not self._request.done():
            self._request.set_result(request)

    def no_more_sessions(self) -> None:
        self._sessions_are_over = True

    async def global_request(self, name: str, payload: bytes) -> bool | bytes:
        return await self.listeners.answer(name, payload)

    @property
    def asked(self) -> bool:
        """Whether anything was opened, or asked for, yet."""
        return self._request.done()

    # -- what programs and forwards of this connection need -----------------------------------------------------

    def unless_ended(self, granted: T) -> T:
        """What was granted, until the end is told: after it nothing begins.  Raises the end."""
        if self._ending is not None:
            raise self._ending
        return granted

    async def permit_granted(self) -> Permit:
        return self.unless_ended(await asyncio.shield(self._permit))

    async def agent_ready(self) -> Agent:
        return self.unless_ended(await asyncio.shield(self._agent))

    async def authorize(self, request: Mapping[str, Any]) -> Sequence[Any]:
        """One request, judged and recorded: see `Policy.authorize`.  Raises AuditUnavailable too."""
        permit = await self.permit_granted()
        await self.restricted.required(request)
        return await self._policy.authorize(self.journal, self.subject, permit, request)

    def note(self, error: DoorwardError) -> None:
        """Tell a terminal, or the next one, why something beside it was refused."""
        text = explained(error, self.session)
        if not any(program.say(text) for program in self._programs):
            self.notes = [*self.notes[-MAX_NOTES:], text]

    async def answer(self, request: Mapping[str, Any]) -> str:
        """What the desk says to one of its words, now.  Raises PolicyUnavailable or AuditUnavailable."""
        return (await self._policy.configure(self.journal, self.subject, request)).desk.text

    def hang_up_when_read(self) -> None:
        """A refused connection closes when its channels have, or soon."""
        asyncio.get_running_loop().call_later(HANG_UP_SECONDS, self._hang_up)
        if all(program.near.gone for program in self._programs):
            asyncio.get_running_loop().call_later(0.1, self._hang_up)

    def _hang_up(self) -> None:
        if not self._gone.is_set():
            assert self._ending is not None, "only who was refused is hung up on"
            told = explained(self._ending, self.session, lines=False)  # for `ssh -N`, which has no other place
            self.connection.disconnect(asyncssh.DISC_BY_APPLICATION, told)

    # -- the story's Client (session.py) ------------------------------------------------------------------------

    @property
    def subject(self) -> Subject:
        assert self._authentication.subject is not None, "authenticated"
        return self._authentication.subject

    async def wait_request(self) -> Mapping[str, Any]:
        return await asyncio.shield(self._request)

    async def wait_gone(self) -> None:
        await self._gone.wait()

    @property
    def is_gone(self) -> bool:
        return self._gone.is_set()

    async def wait_abandoned(self) -> None:
        await self._gone.wait()
        if self._relaying:
            await asyncio.get_running_loop().create_future()

    def environment(self) -> dict[str, str]:
        """As sshd sets them (sshd(8), ENVIRONMENT)."""
        address, port = self.peer
        return {
            "SSH_CLIENT": f"{address} {port} {self.local[1]}",
            "SSH_CONNECTION": f"{address} {port} {self.local[0]} {self.local[1]}",
        }

    async def remember(self, permit: Permit) -> None:
        await self._authentication.remember(permit)

    async def choose(self, answer: Configured) -> Mapping[str, Any]:
        return await self.desk.choose(answer, await self.wait_request())

    def permit(self, permit: Permit, desk: Desk) -> None:
        self.desk.close(desk)
        if not self._permit.done():  # the engineer may just have left
            self._permit.set_result(permit)

    def relay_to(self, agent: Agent, notice: str) -> None:
        self.notice = notice
        self._relaying = True
        self.listeners.serve(agent)
        if not self._agent.done():
            self._agent.set_result(agent)

    def say(self, text: str) -> None:
        for program in self._programs:
            program.say(text)

    def tell(self, text: str) -> None:
        if not [program for program in self._programs if program.say(text)]:
            self.notes = [*self.notes[-MAX_NOTES:], text]

    def end(self, error: DoorwardError) -> None:
        if self._ending is not None:
            return
        self._ending = error
        self._settle(error)
        self.listeners.close()
        for program in self._programs:
            program.refuse(error)
        close_all(lane.near for lane in self.lanes if lane.near is not None and lane.traffic.kind != "session")
        if self._authentication.subject is not None:
            self.hang_up_when_read()

    def _settle(self, error: DoorwardError) -> None:
        self.desk.shut()
        for future in (self._permit, self._agent):
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be asking any more

    def pause(self) -> None:
        for lane in self.lanes:
            lane.hold()

    def resume(self) -> None:
        for lane in self.lanes:
            lane.release()

    def idle_seconds(self) -> float:
        return self.lanes.idle_seconds()

    def traffic(self) -> Sequence[Mapping[str, Any]]:
        return self.lanes.record()
