"""What of a session channel's requests goes on to the far side, and what is said where that refuses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.ssh.raw import RawChannel
from gateway.ssh.requests import CALLBACKS, Request

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
        refusal = (await engineer.agent_ready()).refusal("a terminal")
        if refusal is not None:
            raise refusal
    return granted
