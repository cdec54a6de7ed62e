"""What a terminal is told while a session begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from gateway.concurrency import background
from gateway.model import Permit, SessionId
from gateway.obligations import BreakGlass, FourEyes, Record, of_kind
from gateway.parties import Client

WAITING_SECONDS = 1.0
"""After this long at a terminal, the engineer is told what is being waited for."""
AGAIN_SECONDS = 5.0
"""And after this long at the earliest, what has become of that."""


class Narration:
    """What a terminal is told while its session is made ready."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._what = "your workspace and credentials"
        self._changed = asyncio.Event()

    def waits_for(self, what: str) -> None:
        """What is being waited for from now on, in words that go on with "waiting for"."""
        if what != self._what:
            self._what = what
            self._changed.set()

    def tells(self, line: str) -> None:
        """What terminals have to know, at once or when there is one."""
        self._client.tell(f"doorward: {line}")

    async def tell(self) -> None:
        """Say it when it takes over a second, and again when it has changed, now and then; for ever."""
        pause = WAITING_SECONDS
        while True:
            await asyncio.sleep(pause)
            self._changed.clear()
            self._client.say(f"doorward: waiting for {self._what} ...")
            pause = AGAIN_SECONDS
            await self._changed.wait()


@asynccontextmanager
async def narrated(client: Client) -> AsyncIterator[tuple[Narration, Callable[[], bool]]]:
    """Tell a terminal what is being waited for, until the yielded function is called."""
    narration = Narration(client)
    async with background(narration.tell()) as telling:
        yield narration, telling.cancel


def notice(permit: Permit) -> str:
    until = permit.expires_at.astimezone(UTC)
    left = max(timedelta(0), until - datetime.now(UTC))
    recorded = ("recorded: " + ", ".join(permit.recording.what)) if permit.recording.what else "not recorded"
    if wished := [what for record in of_kind(Record, permit.obligations) for what in record.what]:
        recorded += f", though policy wishes it of: {', '.join(wished)}"
    parts = ["BROKEN GLASS"] if permit.break_glass else []
    parts += [f"grant {permit.grant}", permit.target, f"until {until:%Y-%m-%d %H:%M} UTC ({_span(left)})", recorded]
    return "doorward: " + " · ".join(parts) + (f" · {permit.notice}" if permit.notice else "")


def waits_for(session: SessionId, client: Client, permit: Permit, eyes: FourEyes) -> str:
    """What whoever waits for somebody to join has to know, and to pass on."""
    identity = client.subject.identity
    person = identity.person if identity is not None else ""
    return "\n".join(
        [
            f"doorward: {permit.target} wants somebody else to join",
            f"doorward: this waits {_span(timedelta(seconds=eyes.seconds))} at most; Ctrl-C to leave",
            f"doorward: who may: {eyes.approvers}",
            f"doorward: to tell them: session {session}, {person}, {permit.target}, grant {permit.grant}",
            f"doorward: they answer: doorward sessions approve {session} --by THEIR-NAME",
        ]
    )


def breaks_glass(permit: Permit, wanted: BreakGlass) -> str:
    """What whoever broke the glass has to know before anything begins."""
    return "\n".join(
        [
            f"doorward: YOU BROKE THE GLASS at {permit.target}, until {wanted.grant.ends_at}; others are told now",
            f"doorward: all of it is on record; until somebody else has reviewed {permit.grant}, you cannot again",
        ]
    )


def _span(left: timedelta) -> str:
    if left < timedelta(minutes=1):
        return f"{max(0, int(left.total_seconds()))} s"
    minutes = int(left.total_seconds() // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
