"""What of a session channel's requests goes on to the far side, and what is said where that refuses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.ssh.agent import Agent
from gateway.ssh.raw import RawChannel
from gateway.ssh.requests import CALLBACKS, Request
from gateway.telemetry import Step

if TYPE_CHECKING:
    from gateway.ssh.server import Engineer


async def hand_on(engineer: Engineer, request: Request, far: RawChannel, near: RawChannel) -> bool:
    """Pass on what was allowed; whether it was granted.  Raises DoorwardError where a refusal has to be told.

    Without a terminal there is nobody to tell afterwards, so a host that gives none is told of before anything starts.
    """
    if request.name in CALLBACKS:
        return await engineer.listeners.call_back(request.facts, request.payload, far, near)
    granted = await far.request(request.name, request.payload, request.want_reply)
    if request.name == "pty-req" and not granted and not far.gone:
        await declined(engineer, await engineer.agent_ready(), request.facts, "a terminal")
    return granted


async def begin(engineer: Engineer, agent: Agent, request: Request, far: RawChannel, name: str, payload: bytes) -> bool:
    """Start the program that `request` asked for, by this name and payload; whether it was granted.

    Raises DoorwardError where a refusal has to be told.
    """
    granted = await agent.start(far, name, payload)
    if not granted and not far.gone:
        await declined(engineer, agent, request.facts, f"this {name}")
    return granted


async def declined(engineer: Engineer, agent: Agent, facts: Mapping[str, Any], what: str) -> None:
    """Put a host's own refusal on record, and raise it as WorkspaceUnavailable.  An agent's speaks for itself."""
    refusal = agent.refusal(what)
    if refusal is not None:
        async with engineer.journal.step(Step.DECLINED, request=dict(facts)):
            raise refusal
