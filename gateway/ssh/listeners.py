"""What listens inside the workspace for one engineer, and what comes in there.

A listener exists because this connection asked for it and policy said yes; it is this ledger that says which there are,
and never the workspace, whose agent may claim anything.  Each has an address that is nobody else's: the permit's own
ways out (`Agent.open_egress`) are not in here, so they can be neither cancelled nor answered in their place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket, String, UInt32
from asyncssh.session import SSHSession

from gateway.errors import DoorwardError, WorkspaceUnavailable
from gateway.model import Permit
from gateway.ssh.agent import Agent
from gateway.ssh.inside import not_asked_for
from gateway.ssh.ledger import MAX_LISTENERS, Ledger, Listener
from gateway.ssh.limits import keep_to_limits
from gateway.ssh.raw import RawChannel
from gateway.ssh.relay import Lane
from gateway.ssh.requests import CANCELS, LISTENS, Facts, Malformed, arrival, facts
from gateway.telemetry import Step
from gateway.words import printable

if TYPE_CHECKING:
    from gateway.ssh.server import Engineer

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
CHANNEL_FIRST_SECONDS = 0.3
"""How long a listener leaves it to a channel to ask for the permit: `ssh -R` opens its session in the same breath."""
UNASKED_SECONDS = 2.0
"""How long the end of a listener waits for the permit that a channel or a listener asks for, and none may have."""


class Listeners:
    """Makes, serves and ends the listeners of one engineer's connection."""

    def __init__(self, engineer: Engineer) -> None:
        self._engineer = engineer
        self._ledger = Ledger()

    @property
    def channels(self) -> int:
        """How many channels of the engineer's connection the workspace has opened."""
        return self._ledger.channels

    def serve(self, agent: Agent) -> None:
        """From now on what comes to a listener is relayed."""
        agent.connection.arrived = lambda kind, payload: self._arrived(agent, kind, payload)

    def close(self) -> None:
        """Nothing comes in any more.  The workspace's own end takes its listeners along."""
        self._ledger.close()

    # -- what the engineer asks for -----------------------------------------------------------------------------

    async def answer(self, name: str, payload: bytes) -> bool | bytes:
        """The answer to a global request that makes or cancels a listener."""
        try:
            request = facts(name, payload)
            if name in LISTENS:
                await self._ask_for_permit(request)
                return await self.listen(request, payload)
            cancelled = await self.cancel(request)
            async with asyncio.timeout(UNASKED_SECONDS):
                await self._engineer.permit_granted()
            await self._engineer.authorize(request)
            return cancelled
        except DoorwardError as error:
            self._engineer.note(error)
        except (TimeoutError, Malformed):
            pass
        return False

    async def _ask_for_permit(self, request: Facts) -> None:
        """As the first wish of a connection, but for a channel that comes right after: there one can be told things."""
        try:
            async with asyncio.timeout(CHANNEL_FIRST_SECONDS):
                await self._engineer.wait_request()
        except TimeoutError:
            self._engineer.ask_for_permit(request)

    async def listen(self, request: Facts, payload: bytes) -> bool | bytes:
        """Make a listener; the answer's payload is the port, where the engineer left its choice to the workspace.

        Raises DoorwardError for what policy refuses or the workspace cannot.
        """
        await self._engineer.authorize(request)
        permit, agent = await self._engineer.permit_granted(), await self._engineer.agent_ready()
        listener = Listener(dict(request))
        try:
            async with self._engineer.journal.step(Step.LISTENER, **request) as step:
                self._check(request, permit)
                if request.get("port") != 0:
                    self._claim(agent, listener)
                reply = await _ask(agent, request["kind"], payload)
                listener.listening = True
                if request.get("port") == 0:
                    listener.facts["port"] = _chosen_port(agent, reply)
                    step.note(port=listener.facts["port"])
                    self._claim(agent, listener)
                self._still_may(listener)
            self._still_may(listener)  # while that was recorded, it was in the ledger
        except DoorwardError:
            if self._ledger.release(listener) and listener.listening:  # who says no may hang up on a cancel
                await _stop(agent, listener.facts)
            raise
        finally:
            listener.recorded.set()
        return UInt32(listener.facts["port"]) if request.get("port") == 0 else True

    async def cancel(self, request: Facts) -> bool:
        """Stop listening.  What is given up is gone, whatever policy says of it, and whether or not it is recorded."""
        listener = self._ledger.at({**request, "kind": CANCELS[request["kind"]]})
        if listener is None:
            return False
        self._ledger.release(listener)
        agent = await self._engineer.agent_ready()
        async with self._engineer.journal.step(Step.GONE, of=Step.LISTENER, **listener.facts):
            await _stop(agent, listener.facts)
        return True

    def drop(self, kinds: Collection[str]) -> Sequence[Facts]:
        """Nothing comes in any more that was asked for by these kinds of request; what they were."""
        dropped = self._ledger.drop(kinds)
        for listener in dropped:
            if listener.channel is None and not self._engineer.connection.is_lost:
                self._engineer.connection.create_task(self._let_go(listener))
        return [listener.facts for listener in dropped]

    async def _let_go(self, listener: Listener) -> None:
        await listener.recorded.wait()
        if not listener.listening:
            return
        try:
            agent = await self._engineer.agent_ready()
            async with self._engineer.journal.step(Step.GONE, of=Step.LISTENER, **listener.facts):
                await _stop(agent, listener.facts)
        except DoorwardError as error:  # the session ends, and takes it along; or that it is gone is not on record
            log.warning("listener_gone_unrecorded", extra={"error": error.reasons[0].code})

    async def call_back(self, request: Facts, payload: bytes, far: RawChannel, near: RawChannel) -> bool:
        """Let a session's programs reach the engineer's X server or key agent.  Raises DoorwardError."""
        once = bool(request.get("single_connection", False))
        async with self._engineer.journal.step(Step.LISTENER, **request) as step:
            granted = not self._ledger.is_full and await far.request(request["kind"], payload, True)
            step.note(outcome="ok" if granted else "failed")
        if not granted and (refusal := (await self._engineer.agent_ready()).refusal(request["kind"])) is not None:
            self._engineer.note(refusal)
        granted = granted and not self._engineer.restricted.drops(request)
        if granted:
            listener = Listener(request, near, once)
            listener.recorded.set()
            self._ledger.enter(listener)
        return granted

    def _check(self, request: Facts, permit: Permit) -> None:
        if self._ledger.is_full:
            raise DoorwardError(
                f"a connection may have {MAX_LISTENERS} listeners",
                code="too_many_listeners",
                remedy="Cancel one of them first.",
            )
        if request.get("port") in {egress.port for egress in permit.workspace.network.egress}:
            raise DoorwardError(
                "that port is one of the workspace's own ways out",
                code="listener_is_a_way_out",
                remedy="Choose another port.",
            )

    def _still_may(self, listener: Listener) -> None:
        """Raises the refusal, where a judgement came while it was made."""
        self._engineer.restricted.check(listener.facts)
        if listener.dropped:
            raise WorkspaceUnavailable("this was closed while it was made", code="listener_refused")

    def _claim(self, agent: Agent, listener: Listener) -> None:
        """Nobody else's place.  An agent that says it listens twice at one lies."""
        where = listener.facts
        theirs = "port" in where and agent.connection.is_way_out(where["host"], where["port"])
        if theirs or not self._ledger.claim(listener):
            raise WorkspaceUnavailable(f"{agent.name} listens there already", code="listener_refused")

    # -- what comes in ------------------------------------------------------------------------------------------

    def _arrived(self, agent: Agent, kind: str, payload: bytes) -> tuple[RawChannel, Awaitable[SSHSession[bytes]]]:
        try:
            said = arrival(kind, payload)
        except Malformed as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, str(error)) from error
        listener = self._ledger.for_arrival(kind, said)
        if listener is None:
            return not_asked_for(kind, payload)  # type: ignore[no-any-return]  # raises
        if not self._ledger.has_room(listener):
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many connections")
        listener.used = True
        lane = Lane(kind)
        lane.far = RawChannel(agent.connection, lambda *_: False)
        listener.lanes.append(lane)
        return lane.far, self._relay(listener, lane, payload, said)

    async def _relay(self, listener: Listener, lane: Lane, payload: bytes, said: Facts) -> Any:
        # Any other exception than ChannelOpenError would end the agent's connection, and with it the session.
        try:
            async with self._engineer.journal.step(Step.ARRIVAL, **{**said, "kind": lane.traffic.kind}) as step:
                step.note(outcome="refused")
                await listener.recorded.wait()
                if not self._ledger.holds(listener):
                    return not_asked_for(lane.traffic.kind, payload)
                await lane.open_near(self._engineer.connection, payload)
                await keep_to_limits(self._engineer, lane)
                step.note(outcome="ok")
            if not self._ledger.holds(listener):  # the client took its time
                return not_asked_for(lane.traffic.kind, payload)
        except (DoorwardError, asyncssh.ChannelOpenError) as error:
            listener.drop(lane)
            if lane.near is not None:
                lane.near.close()  # unrecorded, or too late
            raise _refusal(error) from error
        self._engineer.lanes.add(lane)
        # Joined once the far channel is confirmed, which asyncssh does in this very turn after we return.
        asyncio.get_running_loop().call_soon(lane.join)
        return lane.far_end


def _refusal(error: DoorwardError | asyncssh.ChannelOpenError) -> asyncssh.ChannelOpenError:
    if isinstance(error, DoorwardError):
        return asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, error.reasons[0].code)
    return asyncssh.ChannelOpenError(error.code, printable(error.reason[:200]))


def _chosen_port(agent: Agent, reply: bytes) -> int:
    packet = SSHPacket(reply)
    try:
        port = packet.get_uint32()
        packet.check_end()
    except PacketDecodeError:
        port = 0
    if not 0 < port < 65536:
        raise WorkspaceUnavailable(f"{agent.name} did not say where it listens", code="listener_refused")
    return port


async def _ask(agent: Agent, name: str, payload: bytes) -> bytes:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            granted, reply = await agent.connection.ask(name, payload)
    except (asyncssh.Error, OSError) as error:  # TimeoutError is an OSError
        raise WorkspaceUnavailable(f"{agent.name} did not answer in time", code="listener_refused") from error
    if not granted:
        raise WorkspaceUnavailable(
            f"{agent.name} could not listen there",
            code="listener_refused",
            remedy="Choose another port or path: perhaps something is there already.",
        )
    return reply


async def _stop(agent: Agent, where: Facts) -> None:
    """Tell the workspace to listen no more.  If it goes on, it is not heard."""
    name = next(cancel for cancel, listens in CANCELS.items() if listens == where["kind"])
    place = String(where["path"]) if "path" in where else String(where["host"]) + UInt32(where["port"])
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await agent.connection.ask(name, place)
    except (asyncssh.Error, OSError):
        log.warning("listener_not_cancelled", extra={"kind": where["kind"]})
