"""Channels that the engineer opens: whether they may be, and those to a destination that the workspace dials."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import asyncssh

from gateway.errors import DoorwardError, WorkspaceUnavailable
from gateway.ssh.agent import Agent
from gateway.ssh.handing import declined
from gateway.ssh.limits import keep_to_limits
from gateway.ssh.relay import Lane
from gateway.telemetry import Step
from gateway.words import explained

if TYPE_CHECKING:
    from gateway.ssh.server import Engineer


async def open_forward(engineer: Engineer, lane: Lane, request: Mapping[str, Any], payload: bytes, others: int) -> Any:
    """Judge the destination, then let the workspace dial it.  Raises asyncssh.ChannelOpenError."""
    await engineer.desk.ready.wait()
    try:
        engineer.desk.raise_if_open()
        limit_channels((await engineer.permit_granted()).session.max_channels, others)
        obliged = await engineer.authorize(request)
        agent = await engineer.agent_ready()
    except DoorwardError as error:
        raise prohibited(engineer, error) from error
    try:
        await lane.open_far(agent.connection, str(request["kind"]), payload)
    except asyncssh.ChannelOpenError as error:
        await _on_record(engineer, agent, request, error)
        raise
    try:
        await keep_to_limits(engineer, lane, obliged)
        engineer.restricted.check(request)  # in one turn with what follows: nothing slips through between
        engineer.lanes.add(engineer.unless_ended(lane))
    except DoorwardError as error:
        assert lane.far is not None, "open"
        lane.far.close()
        raise prohibited(engineer, error) from error
    # Joined once the near channel is confirmed, which asyncssh does in this very turn after we return.
    asyncio.get_running_loop().call_soon(lane.join)
    return lane.near_end


async def _on_record(
    engineer: Engineer, agent: Agent, request: Mapping[str, Any], error: asyncssh.ChannelOpenError
) -> None:
    """What a host forbids; that nobody listens there is no refusal.  Raises asyncssh.ChannelOpenError, unrecorded."""
    if error.code != asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        return
    try:
        await declined(engineer, agent, request, "this forward")
    except WorkspaceUnavailable:
        return  # the host's own words are told
    except DoorwardError as unrecorded:
        raise prohibited(engineer, unrecorded) from unrecorded


MAX_AT_DESK = 20
"""Session channels while nobody knows yet how many the permit will have: each may keep a window of what is sent."""


class Admission:
    """Whether one session channel may be: judged once, by the time that something is to be done on it.

    While the desk is open there is no permit to judge by, and some may open all the same.
    """

    def __init__(self, engineer: Engineer, others: int) -> None:
        self._engineer = engineer
        self._others = others
        self._admitted = False

    async def required(self) -> None:
        """Raises DoorwardError."""
        if self._engineer.desk.is_open:
            limit_channels(MAX_AT_DESK, self._others)
        elif not self._admitted:
            limit_channels((await self._engineer.permit_granted()).session.max_channels, self._others)
            await self._engineer.authorize({"kind": "session"})
            self._admitted = True


async def refuse_session(engineer: Engineer, request: Mapping[str, Any]) -> Any:
    """The client gave up opening sessions (no-more-sessions@openssh.com), so whoever opens one is not it."""
    error = DoorwardError(
        "your client said that it would open no more sessions", code="no_more_sessions", remedy="Connect again."
    )
    try:
        async with engineer.journal.step(Step.REQUEST, input={"request": dict(request)}):
            raise error
    except DoorwardError as refused:  # this one, or that it could not be recorded
        raise prohibited(engineer, refused) from refused


def prohibited(engineer: Engineer, error: DoorwardError) -> asyncssh.ChannelOpenError:
    return asyncssh.ChannelOpenError(
        asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, explained(error, engineer.session, lines=False)
    )


def limit_channels(most: int, others: int) -> None:
    """`others` were open or opening when this channel was asked for, so that a burst cannot pass as one."""
    if others >= most:
        raise DoorwardError(
            f"this session may have {most} channels at once",
            code="too_many_channels",
            remedy="Close one of them first.",
        )
