"""One session channel: its requests, each judged, and the program they start (RFC 4254 section 6)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncssh

from gateway.errors import REFUSED, Denied, DoorwardError, WorkspaceUnavailable
from gateway.ssh.raw import RawChannel
from gateway.ssh.relay import Lane, finish, show
from gateway.ssh.requests import STARTS, Malformed, facts
from gateway.words import explained

if TYPE_CHECKING:
    from gateway.ssh.server import Engineer


class Program:
    """What runs, or was refused, on one session channel."""

    def __init__(self, engineer: Engineer) -> None:
        self._engineer = engineer
        self.lane = Lane("session")
        self.near = RawChannel(engineer.connection, self._on_request)
        self.near.lingers = True
        self.lane.near = self.near
        self._terminal = False
        self._started = False
        self._refusal: DoorwardError | None = None

    def say(self, text: str) -> None:
        """One line, where there is a terminal to read it; a script's stderr is left alone."""
        if self._terminal and self._refusal is None:
            show(self.near, text, terminal=True)

    def refuse(self, error: DoorwardError) -> None:
        """Tell why and end.  Before a program was asked for there is nobody to tell yet: then when it is."""
        if self._refusal is None:
            self._refusal = error
            if self._started:
                self._tell()

    def _tell(self) -> None:
        assert self._refusal is not None
        show(self.near, explained(self._refusal, self._engineer.session), terminal=self._terminal)
        finish(self.near, REFUSED)

    async def _on_request(self, name: str, payload: bytes, want_reply: bool) -> bool:
        try:
            request = facts(name, payload)
        except Malformed:
            return False
        if name == "pty-req":
            self._terminal = True
        try:
            if self._refusal is None:
                return await self._pass_on(name, request, payload, want_reply)
        except DoorwardError as error:
            # Beside a program that runs, or by policy's word, one request is refused and the channel goes on.
            if self._refusal is None and name not in STARTS and (self._started or isinstance(error, Denied)):
                self._terminal = self._terminal and name != "pty-req"
                return False
            self.refuse(error)
        return self._refused(name)

    async def _pass_on(self, name: str, request: dict[str, Any], payload: bytes, want_reply: bool) -> bool:
        if name in STARTS and self._started:
            return False  # RFC 4254 section 6.5: only one of these per channel
        await self._engineer.authorize(request)
        far = await self._far()
        if self._refusal is not None:
            raise self._refusal  # the session ended while this waited: nothing starts any more
        if name not in STARTS:
            return await far.request(name, payload, want_reply)
        self._started = True
        self.lane.traffic.command = str(request.get("command", request.get("name", name)))
        self.say(self._engineer.notice)
        granted = await far.request(name, payload, True)
        if granted and self._refusal is None:
            # Once the reply is out, which is in this very turn: a program that ends at once sends all in one go.
            asyncio.get_running_loop().call_soon(self.lane.join)
        return granted

    async def _far(self) -> RawChannel:
        agent = await self._engineer.agent_ready()
        if self.lane.far is None:
            try:
                await self.lane.open_far(agent.connection, "session", b"")
            except asyncssh.ChannelOpenError as error:
                raise WorkspaceUnavailable("the workspace could not open a channel") from error
        assert self.lane.far is not None
        return self.lane.far

    def _refused(self, name: str) -> bool:
        # Granting a terminal or a program to the refused grants nothing: it lets ssh show them why, undisturbed by
        # "PTY allocation request failed".
        if name in STARTS:
            self._started = True
            asyncio.get_running_loop().call_soon(self._tell)  # once the reply is out, which is in this very turn
        return True
