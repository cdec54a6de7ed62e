"""Who uses the admin API, and whether they may: the operator on this machine, or automation over TCP."""

from __future__ import annotations

import pwd
import socket
import struct
from enum import StrEnum
from typing import Protocol

from aiohttp import web

from gateway.audit.journal import Journal
from gateway.door.http import Refused
from gateway.policy import Policy
from gateway.policy.contract import Automation
from gateway.policy.questions import Handled
from gateway.telemetry import Step


class Action(StrEnum):
    """What can be done; the data name these for each client (`data.automations`)."""

    STATUS = "status"
    REEVALUATE = "reevaluate"
    LIST = "sessions:list"
    END = "sessions:end"
    WAITING = "approvals:list"
    ANSWER = "approvals:answer"


READING = frozenset({Action.STATUS, Action.LIST, Action.WAITING})


class Caller(Protocol):
    """Whoever asks."""

    journal: Journal
    name: str
    code: str
    """Of the reason that a session is ended with."""
    words: str
    """Who ended it, for its terminal."""

    async def may(self, action: Action, session: Handled | None = None, *, reason: str = "", by: str = "") -> None:
        """Return when they may and it is on record.

        Raises Refused with policy's reasons, PolicyUnavailable, or AuditUnavailable: then nothing may be done.
        """
        ...


class Operator:
    """Whoever can open the socket, which is the gateway's own user: they may.  What they look at is not recorded."""

    code = "ended_by_operator"
    words = "an operator"

    def __init__(self, journal: Journal, request: web.Request) -> None:
        self.journal = journal
        self.name = f"local:{_user_of(request)}"
        journal.bind(client=self.name)

    async def may(self, action: Action, session: Handled | None = None, *, reason: str = "", by: str = "") -> None:
        if action not in READING:
            about = {} if session is None else {"of": session.model_dump()}
            said = {name: value for name, value in (("reason", reason), ("by", by)) if value}
            await self.journal.record(Step.ADMIN, "operator", action=action, **about, **said)


class Program:
    """Automation, known by what it proved: policy says."""

    code = "ended_by_automation"

    def __init__(self, journal: Journal, policy: Policy, client: Automation) -> None:
        self.journal = journal
        self.name = self.words = client.name
        self._policy = policy
        self._client = client
        journal.bind(client=client.name)

    async def may(self, action: Action, session: Handled | None = None, *, reason: str = "", by: str = "") -> None:
        known = None if session is None else session.model_dump()
        answer = await self._policy.manage(self.journal, self._client, action, known, reason, by)
        if not answer.allow:
            said = "; ".join(one.message for one in answer.reasons) or f"policy refused {action}"
            raise Refused(403, "unauthorized", said, answer.reasons)


def _user_of(request: web.Request) -> str:
    """By the kernel's word (unix(7), SO_PEERCRED)."""
    assert request.transport is not None
    peer = request.transport.get_extra_info("socket")
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
