"""A lane whose bytes are a conversation of SFTP."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.errors import DoorwardError, WorkspaceUnavailable
from gateway.obligations import JudgeSftp, ReadOnlySftp, of_kind
from gateway.ssh.relay import Lane, show
from gateway.ssh.sftp.conversation import Conversation
from gateway.telemetry import Step
from gateway.words import explained

if TYPE_CHECKING:
    from gateway.ssh.agent import Agent
    from gateway.ssh.program import Program
    from gateway.ssh.server import Engineer

PLAIN, JUDGED = b"sftp", b"sftp@doorward"
"""What the agent calls its file services; in the second it follows nothing (backends/agent/sftp.go)."""
MAX_EXPLAINED = 10
"""Refusals that are explained on a channel's stderr: not every client reads it."""


def converse(program: Program, engineer: Engineer, obliged: Sequence[Any], agent: Agent) -> bytes:
    """Let the program's lane be a conversation; the agent's name for the subsystem to start.

    Raises WorkspaceUnavailable for rules that cannot be kept there.
    """
    line = FileLine(program, engineer)
    judged = bool(of_kind(JudgeSftp, obliged))
    if judged and not agent.judges_files:
        raise WorkspaceUnavailable(
            f"the target's rules for files cannot be kept on {agent.name}, so it serves none",
            code="sftp_rules_unkept",
            remedy="Security team: say `true` or `false` in the target's allow.sftp; docs/hosts.md says why.",
        )
    conversation = Conversation(line, judged=judged, read_only=bool(of_kind(ReadOnlySftp, obliged)))
    program.lane.filtered(FromClient(conversation), FromAgent(conversation, program.lane))
    program.lane.traffic.files = conversation.record
    program.end_files = conversation.end_with
    return JUDGED if judged else PLAIN


class FileLine:
    """The conversation's Line."""

    def __init__(self, program: Program, engineer: Engineer) -> None:
        self._program = program
        self._engineer = engineer
        self._explained = 0

    @property
    def _lane(self) -> Lane:
        return self._program.lane

    @property
    def is_clear(self) -> bool:
        return self._lane.is_clear

    def to_agent(self, data: bytes) -> None:
        if self._lane.far is not None and self._lane.far.is_writable:
            self._lane.far.write(data)

    def to_client(self, data: bytes) -> None:
        if self._lane.near is not None and self._lane.near.is_writable:
            self._lane.near.write(data)

    def end_to_agent(self) -> None:
        if self._lane.far is not None and self._lane.far.is_open:
            self._lane.far.write_eof()

    def busy(self, busy: bool) -> None:
        self._lane.busy(busy)

    def explain(self, error: DoorwardError) -> str:
        if self._explained < MAX_EXPLAINED:
            self._explained += 1
            show(self._program.near, explained(error, self._engineer.session), terminal=False)
        return self.shorten(error)

    def shorten(self, error: DoorwardError) -> str:
        return explained(error, self._engineer.session, lines=False)

    def refuse(self, error: DoorwardError) -> None:
        self._program.refuse(error)

    def start(self, work: Coroutine[Any, Any, None]) -> bool:
        if self._engineer.connection.is_lost:
            work.close()
            return False
        self._engineer.connection.create_task(work)
        return True

    async def record(self, operations: Sequence[Mapping[str, Any]]) -> None:
        await self._engineer.journal.record(Step.SFTP, "ok", operations=operations)

    async def authorize(self, facts: Mapping[str, Any]) -> None:
        await self._engineer.authorize(facts)


class FromClient:
    """The engineer's end.  What is not data is nobody's."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    def received(self, data: bytes, datatype: int | None) -> None:
        if datatype is None:
            self._conversation.from_client(data)

    def ended(self) -> None:
        self._conversation.client_ended()

    def drained(self) -> None:
        self._conversation.pump()

    def lost(self) -> None:
        self._conversation.end()


class FromAgent:
    """The workspace's end.  A file service has nothing to say on stderr: the gateway speaks there."""

    def __init__(self, conversation: Conversation, lane: Lane) -> None:
        self._conversation = conversation
        self._lane = lane

    def received(self, data: bytes, datatype: int | None) -> None:
        if datatype is None:
            self._conversation.from_agent(data)

    def ended(self) -> None:
        if self._lane.near is not None and self._lane.near.is_open:
            self._lane.near.write_eof()

    def drained(self) -> None:
        self._conversation.pump()

    def lost(self) -> None:
        self._conversation.end()
