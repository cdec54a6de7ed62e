"""One session channel: its requests, each judged, and the program they start (RFC 4254 section 6)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import asyncssh
from asyncssh.packet import String

from gateway.errors import REFUSED, Denied, DoorwardError, PolicyUnavailable, WorkspaceUnavailable
from gateway.ssh.asking import Meanwhile, Question
from gateway.ssh.forced import forced_command, forges, put_in_place
from gateway.ssh.forwards import Admission
from gateway.ssh.handing import begin, hand_on
from gateway.ssh.kept import Kept
from gateway.ssh.limits import keep_to_limits
from gateway.ssh.raw import RawChannel
from gateway.ssh.relay import Lane, finish, show
from gateway.ssh.requests import (
    CALLBACKS,
    STARTS,
    SUBSYSTEMS,
    Malformed,
    Request,
    facts,
)
from gateway.ssh.sftp.channel import converse
from gateway.words import explained

if TYPE_CHECKING:
    from gateway.ssh.server import Engineer

READ_SECONDS = 0.1
"""Between a reason and a failure: OpenSSH drops what it has not written out when it hears of the failure."""


class Program:
    """What runs, or was refused, on one session channel."""

    def __init__(self, engineer: Engineer, others: int) -> None:
        self._engineer = engineer
        self.admission = Admission(engineer, others)
        self.lane = Lane("session")
        self.near = RawChannel(engineer.connection, self._on_request)
        self.near.lingers = True
        self.lane.near = self.near
        self._terminal = False
        self._started = False
        self._kept = Kept()
        """Asked before the program was, and to be judged with it."""
        self._waiting: Request | None = None
        """What is to be started once the desk has let it in."""
        self._typed_ahead = b""
        """What was typed at the desk after the choice."""
        self._refusal: DoorwardError | None = None
        self.end_files: Callable[[DoorwardError], None] = lambda _: None
        """Set where the lane is a conversation of SFTP."""

    def say(self, text: str) -> bool:
        """Lines, where there is a terminal to read them; a script's stderr is left alone."""
        heard = self._terminal and self._refusal is None and not self.near.gone
        if heard:
            show(self.near, text, terminal=True)
        return heard

    def tell(self, text: str) -> None:
        """Lines for whoever waits, on a terminal or not."""
        if self._waiting is not None and self._refusal is None:
            show(self.near, text, terminal=self._terminal)

    def refuse(self, error: DoorwardError) -> None:
        """Tell why and end.  Before a program was asked for there is nobody to tell yet: then when it is."""
        if self._refusal is None:
            self._refusal = error
            self.lane.cut()
            if self._started:
                self._tell()
            else:
                self.near.resume_reading()  # what is sent meanwhile is dropped: kept, it would be a window for each

    def _tell(self) -> None:
        assert self._refusal is not None
        show(self.near, explained(self._refusal, self._engineer.session), terminal=self._terminal)
        finish(self.near, REFUSED)

    # -- at the desk ----------------------------------------------------------------------------------------------

    @property
    def has_terminal(self) -> bool:
        """Whether somebody sits there who can be asked."""
        return self._terminal and self._waiting is not None

    @property
    def can_choose(self) -> bool:
        """And who is there for a shell: a script's command waits for no answer."""
        return self.has_terminal and self._waiting is not None and self._waiting.name == "shell"

    def kept_variable(self, name: str) -> str | None:
        return self._kept.variable(name)

    async def ask(self, question: Callable[[RawChannel, bytes], Question]) -> str:
        """Their answer on this terminal.  Raises DoorwardError when they leave."""
        asked = question(self.near, self._typed_ahead)
        with self._hears(asked):
            return await asked.ask()

    async def left(self) -> None:
        """Return when Ctrl-C is pressed on this terminal; never where there is none."""
        meanwhile = Meanwhile(self._typed_ahead)
        if not self.has_terminal:
            await meanwhile.left.wait()
        with self._hears(meanwhile):
            await meanwhile.left.wait()

    @contextlib.contextmanager
    def _hears(self, hearer: Question | Meanwhile) -> Iterator[None]:
        end = self.lane.near_end
        end.filter = hearer
        self.near.resume_reading()
        try:
            yield
        finally:
            self.near.pause_reading()
            end.filter, self._typed_ahead = None, hearer.rest

    async def _let_in(self, start: Request) -> None:
        """Wait for a permit, and start under it what was asked for before."""
        try:
            self._engineer.desk.come(self)
            await self._engineer.permit_granted()
            await self.admission.required()
            if not await self._start(start):
                raise WorkspaceUnavailable("the workspace would not start it")
            while self._kept:  # and once more, while it started
                await self._pass_on_if_allowed(self._kept.last())
        except DoorwardError as error:
            self.refuse(error)
        self._waiting = None

    async def _answer(self, request: Request) -> bool:
        text = await self._engineer.answer(request.facts)
        if not text:
            raise PolicyUnavailable("policy names a word that it does not answer", code="policy_malformed")
        self._started = True
        self.lane.traffic.command, self.lane.traffic.exit_status = str(request.facts["command"]), 0
        asyncio.get_running_loop().call_soon(self._told, text)
        return True

    def _told(self, text: str) -> None:
        show(self.near, text, terminal=self._terminal, on=None)
        finish(self.near, 0)

    # -- requests -------------------------------------------------------------------------------------------------

    async def _on_request(self, name: str, payload: bytes, want_reply: bool) -> bool:
        try:
            request = Request(name, facts(name, payload), payload, want_reply)
        except Malformed:
            return False
        if name == "pty-req":
            self._terminal = True
        try:
            if not self._started and self._engineer.desk.answers(request.facts):
                return await self._answer(request)  # also to the refused
            if self._refusal is None:
                return await self._judge(request)
        except DoorwardError as error:
            # Beside a program that runs, or by policy's word, one request is refused and the channel goes on.
            if self._refusal is None and name not in STARTS and (self._started or isinstance(error, Denied)):
                self._terminal = self._terminal and name != "pty-req"
                if name in CALLBACKS:
                    self._engineer.note(error)
                return False
            if name == "subsystem" and request.facts["name"] not in SUBSYSTEMS and isinstance(error, Denied):
                # What no image has is a failure of the request (RFC 4254 section 6.5), and still told to who reads.
                show(self.near, explained(error, self._engineer.session), terminal=self._terminal)
                await asyncio.sleep(READ_SECONDS)
                return False
            self._started = self._started and name not in STARTS  # what would begin now is told after its reply
            self.refuse(error)
        return self._refused(name)

    async def _judge(self, request: Request) -> bool:
        if request.name in STARTS:
            if self._started:
                return False  # RFC 4254 section 6.5: only one of these per channel
            if self._engineer.desk.is_open:
                return self._wait(request)
            return await self._start(request)
        if self._engineer.desk.is_open or self._waiting is not None or self._can_keep(request):
            return self._kept.keep(request)
        return await self._pass_on(request)

    def _can_keep(self, request: Request) -> bool:
        """ssh sends the environment before the command: if that is a word of the desk's, no workspace is waited for."""
        return request.name == "env" and not request.want_reply and not self._started and not self._kept.is_full

    def _wait(self, start: Request) -> bool:
        self._started, self._waiting = True, start
        # Once the reply is out, which is in this very turn: there are clients that show nothing before.
        asyncio.get_running_loop().call_soon(lambda: self._engineer.connection.create_task(self._let_in(start)))
        return True

    async def _start(self, request: Request) -> bool:
        if wants_files := request.name == "subsystem" and request.facts["name"] == "sftp":
            self._engineer.restricted.serves_files(self)
        forced = await forced_command(self._engineer)
        # A forced command serves files as it likes, if at all: it cannot be judged one by one.
        files = wants_files and forced is None
        far, obliged = await self._far_for(request)
        self.lane.traffic.command = str(request.facts.get("command", request.facts.get("name", request.name)))
        name, payload = request.name, request.payload
        if forced is not None:
            self.lane.traffic.forced_command = forced
            name, payload = await put_in_place(forced, request, far)
        if self._refusal is not None:
            raise self._refusal  # the session ended while this waited: nothing starts any more
        self._started = True
        if self.say("\n".join([self._engineer.notice, *self._engineer.notes])):
            self._engineer.notes.clear()
        await keep_to_limits(self._engineer, self.lane, obliged)
        agent = await self._engineer.agent_ready()
        if files:
            payload = String(converse(self, self._engineer, obliged, agent))
        granted = await begin(self._engineer, agent, request, far, name, payload)
        if granted and self._refusal is None:
            # Once the reply is out, which is in this very turn: a program that ends at once sends all in one go.
            asyncio.get_running_loop().call_soon(self._join, far)
        return granted

    def _join(self, far: RawChannel) -> None:
        if self._typed_ahead and far.is_writable:
            far.write(self._typed_ahead)
        self.lane.join()

    async def _pass_on(self, request: Request) -> bool:
        far, _ = await self._far_for(request)
        if await forges(self._engineer, request):
            return False
        return await hand_on(self._engineer, request, far, self.near)

    async def _pass_on_if_allowed(self, request: Request) -> None:
        with contextlib.suppress(DoorwardError):  # beside a program that runs
            await self._pass_on(request)

    async def _far_for(self, request: Request) -> tuple[RawChannel, Sequence[Any]]:
        """The workspace's channel, once the request is judged, and what was kept is judged and passed on.

        With it, what the request's allow obliges to.
        """
        await self.admission.required()
        allowed = await self._allowed()
        obliged = await self._engineer.authorize(request.facts)
        far = await self._far()
        allowed += await self._allowed()  # a terminal that was resized while this waited
        if self._refusal is not None:
            raise self._refusal
        for each in allowed:
            if not await hand_on(self._engineer, each, far, self.near) and each.name == "pty-req":
                raise WorkspaceUnavailable("the workspace gives no terminal")
        return far, obliged

    async def _allowed(self) -> list[Request]:
        return [each for each in self._kept.take() if await self._is_allowed(each)]

    async def _is_allowed(self, kept: Request) -> bool:
        try:
            await self._engineer.authorize(kept.facts)
        except Denied as error:
            if kept.name == "pty-req":
                raise  # they were told that they have one
            if kept.name in CALLBACKS:
                self._engineer.note(error)
            return False
        return not await forges(self._engineer, kept)

    async def _far(self) -> RawChannel:
        agent = await self._engineer.agent_ready()
        if self.lane.far is None:
            try:
                await self.lane.open_far(agent.connection, "session", b"")
            except asyncssh.ChannelOpenError as error:
                raise WorkspaceUnavailable(f"{agent.name} could not open a channel") from error
        assert self.lane.far is not None
        return self.lane.far

    def _refused(self, name: str) -> bool:
        # Granting a terminal or a program to the refused grants nothing: it lets ssh show them why, undisturbed by
        # "PTY allocation request failed".
        if name in STARTS:
            self._started = True
            asyncio.get_running_loop().call_soon(self._tell)  # once the reply is out, which is in this very turn
        return True
