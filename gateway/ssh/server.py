"""The door: asyncssh's callbacks turned into our words.  Refuses by default.

`Engineer` is one connection: it owns the asyncssh connection, answers it as its Gate, and is the `Client` of the story
in `session.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import asyncssh
from asyncssh.public_key import SSHKey
from asyncssh.session import SSHSession

from gateway.audit.journal import Journal
from gateway.errors import DoorwardError
from gateway.model import Permit, SessionId
from gateway.policy import Outcome, Policy, Subject
from gateway.policy.contract import Attempt, Connection, Key
from gateway.ssh.agent import Agent
from gateway.ssh.program import Program
from gateway.ssh.raw import GateConnection, RawChannel, close_all
from gateway.ssh.relay import Lane, Lanes
from gateway.ssh.requests import Malformed, facts
from gateway.telemetry import Step
from gateway.words import explained

log = logging.getLogger(__name__)

HANG_UP_SECONDS = 2.0
"""How long a client may take to read why it was refused before we close the connection."""
UNASKED_SECONDS = 2.0
"""How long a global request waits for the permit that only a channel asks for; answers after it have to wait too."""


class Engineer(asyncssh.SSHServer):
    """One connection of one engineer."""

    def __init__(self, policy: Policy, journal: Journal, session: SessionId, begin: Callable[[Engineer], None]) -> None:
        self._begin = begin
        self.session = session
        self.journal = journal
        self.accepted = asyncio.Event()
        """Set once the connection is on record: nobody authenticates before."""
        self._policy = policy
        self._subject: Subject | None = None
        self._proofs: list[Attempt] = []
        self._lanes = Lanes()
        self._programs: list[Program] = []
        self._gone = asyncio.Event()
        self._relaying = False
        self._ending: DoorwardError | None = None
        loop = asyncio.get_running_loop()
        self._request: asyncio.Future[Mapping[str, Any]] = loop.create_future()
        self._permit: asyncio.Future[Permit] = loop.create_future()
        self._agent: asyncio.Future[Agent] = loop.create_future()
        self.notice = ""

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
        self._settle(DoorwardError("the connection is closed"))

    def begin_auth(self, username: str) -> bool:
        """Another login name starts again: no proof counts for two (RFC 4252 section 5)."""
        self._proofs.clear()
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    # -- the Gate (ssh/raw.py) ----------------------------------------------------------------------------------

    async def authenticate(self, login: str, key: SSHKey, proven: bool) -> bool:
        """Rego decides what a key is worth; an offered one can only be asked to prove itself."""
        await self.accepted.wait()
        if self._ending is not None:
            self._turn_away(self._ending)
            return False
        subject = Subject(
            Connection(
                id=self.session,
                client_address=self.peer[0],
                client_port=self.peer[1],
                client_software=self.connection.client_software,
            ),
            login,
        )
        attempt = Attempt(method="publickey", proven=proven, key=_key_facts(key))
        try:
            answer = await self._policy.authenticate(self.journal, subject, attempt, self._proofs)
        except DoorwardError as error:
            self._turn_away(error)
            return False
        if not proven:
            return answer.outcome is not Outcome.REJECT
        self._proofs.append(attempt)
        if answer.outcome is not Outcome.ACCEPT or answer.identity is None:
            return False
        self._subject = Subject(subject.connection, login, answer.identity)
        self.journal.bind(person=answer.identity.person)
        return True

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
        others = self.connection.channel_count
        if not self._request.done():
            self._request.set_result(request)
        if kind == "session":
            program = Program(self)
            self._programs = [*(program for program in self._programs if not program.near.gone), program]
            return program.near, self._open_session(program, request, others)
        lane = Lane(kind)
        lane.near = RawChannel(self.connection, lambda *_: False)
        return lane.near, self._open_forward(lane, request, payload, others)

    async def _open_session(self, program: Program, request: Mapping[str, Any], others: int) -> SSHSession[bytes]:
        """A session channel opens also for the refused: it is where they can be told why."""
        try:
            _limit_channels(await self.permit_granted(), others)
            await self.authorize(request)
        except DoorwardError as error:
            program.refuse(error)
        self._lanes.add(program.lane)
        return program.lane.near_end

    async def _open_forward(self, lane: Lane, request: Mapping[str, Any], payload: bytes, others: int) -> Any:
        try:
            _limit_channels(await self.permit_granted(), others)
            await self.authorize(request)
            agent = await self.agent_ready()
        except DoorwardError as error:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, explained(error, self.session, lines=False)
            ) from error
        await lane.open_far(agent.connection, str(request["kind"]), payload)
        self._lanes.add(lane)
        # Joined once the near channel is confirmed, which asyncssh does in this very turn after we return.
        asyncio.get_running_loop().call_soon(lane.join)
        return lane.near_end

    async def global_request(self, name: str, payload: bytes) -> bool:
        """Listeners outside are not offered yet: policy's word is recorded, and the answer is no."""
        try:
            async with asyncio.timeout(UNASKED_SECONDS):
                await self.permit_granted()
            await self.authorize(facts(name, payload))
        except (TimeoutError, DoorwardError, Malformed):
            return False
        log.info("global_request_unsupported", extra={"request": name, "session": self.session})
        return False

    # -- what programs and forwards of this connection need -----------------------------------------------------

    async def permit_granted(self) -> Permit:
        return await asyncio.shield(self._permit)

    async def agent_ready(self) -> Agent:
        return await asyncio.shield(self._agent)

    async def authorize(self, request: Mapping[str, Any]) -> None:
        """One request, judged and recorded.  Raises Denied, PolicyUnavailable or AuditUnavailable."""
        await self._policy.authorize(self.journal, self.subject, await self.permit_granted(), request)

    def hang_up_when_read(self) -> None:
        """A refused connection closes when its channels have, or soon."""
        asyncio.get_running_loop().call_later(HANG_UP_SECONDS, self._hang_up)
        if all(program.near.gone for program in self._programs):
            asyncio.get_running_loop().call_later(0.1, self._hang_up)

    def _hang_up(self) -> None:
        if not self._gone.is_set():
            self.connection.disconnect(asyncssh.DISC_BY_APPLICATION, "session ended")

    # -- the story's Client (session.py) ------------------------------------------------------------------------

    @property
    def subject(self) -> Subject:
        assert self._subject is not None, "authenticated"
        return self._subject

    async def wait_request(self) -> Mapping[str, Any]:
        return await asyncio.shield(self._request)

    async def wait_gone(self) -> None:
        await self._gone.wait()

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

    def permit(self, permit: Permit) -> None:
        if not self._permit.done():  # the engineer may just have left
            self._permit.set_result(permit)

    def relay_to(self, agent: Agent, notice: str) -> None:
        self.notice = notice
        self._relaying = True
        if not self._agent.done():
            self._agent.set_result(agent)

    def say(self, text: str) -> None:
        for program in self._programs:
            program.say(text)

    def end(self, error: DoorwardError) -> None:
        if self._ending is not None:
            return
        self._ending = error
        self._settle(error)
        for program in self._programs:
            program.refuse(error)
        close_all(lane.near for lane in self._lanes if lane.near is not None and lane.traffic.kind != "session")
        if self._subject is not None:
            self.hang_up_when_read()

    def _settle(self, error: DoorwardError) -> None:
        for future in (self._permit, self._agent):
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be asking any more

    def pause(self) -> None:
        for lane in self._lanes:
            lane.hold()

    def resume(self) -> None:
        for lane in self._lanes:
            lane.release()

    def idle_seconds(self) -> float:
        return self._lanes.idle_seconds()

    def traffic(self) -> Sequence[Mapping[str, Any]]:
        return self._lanes.record()


def _limit_channels(permit: Permit, others: int) -> None:
    """`others` were open or opening when this channel was asked for, so that a burst cannot pass as one."""
    if others >= permit.session.max_channels:
        raise DoorwardError(
            f"this session may have {permit.session.max_channels} channels at once",
            code="too_many_channels",
            remedy="Close one of them first.",
        )


def _key_facts(key: SSHKey) -> Key:
    exported = key.export_public_key("openssh").decode("ascii").split()
    bits = getattr(getattr(key, "_key", None), "n", None)
    return Key(
        type=exported[0],
        fingerprint=key.get_fingerprint(),
        public_key=" ".join(exported[:2]),
        bits=bits.bit_length() if isinstance(bits, int) else None,
    )


async def record_accept(engineer: Engineer) -> None:
    """Put the connection on record; only then may it authenticate."""
    await engineer.journal.record(Step.ACCEPT, "ok", client_address=engineer.peer[0], client_port=engineer.peer[1])
    engineer.accepted.set()
