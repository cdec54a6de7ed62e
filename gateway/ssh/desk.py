"""The desk: what the door itself tells a person, and what it asks them before anything is started.

Policy names the words that the door answers (`ssh door help`), says who has to choose, from what, and judges the choice
as it judges a name in the login: a menu is a way of asking, and gives nothing (docs/adr/0021).  Where a permit obliges
to something first, whoever asked for a program waits here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from gateway.errors import DoorwardError
from gateway.model import Desk
from gateway.obligations import AskReason
from gateway.policy import Configured
from gateway.ssh.asking import Menu, Why

if TYPE_CHECKING:
    from gateway.ssh.program import Program

REASON_VARIABLE = "LC_DOORWARD_REASON"
"""Where a client without a terminal gives its reason: stock clients may set, and stock servers take, LC_*."""


class FrontDesk:
    """One connection's desk: open from the moment that policy has no permit, or one on conditions, until it has one."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        """Set once policy has said whether there is a permit."""
        self._words: frozenset[str] = frozenset()
        self._refusal: DoorwardError | None = None
        self._holds = False
        self._first: asyncio.Future[Program] = asyncio.get_running_loop().create_future()
        self._here: list[Program] = []
        self._told: list[str] = []

    @property
    def is_open(self) -> bool:
        return self._refusal is not None or self._holds

    def raise_if_open(self) -> None:
        """Nobody but who is asked goes on; where there are conditions, all wait."""
        if self._refusal is not None:
            raise self._refusal

    def close(self, desk: Desk) -> None:
        """There is a permit; words are answered all the same."""
        self._refusal, self._holds = None, False
        self._words = frozenset(desk.words)
        self.ready.set()

    def shut(self) -> None:
        """The connection ends: nobody is asked any more."""
        self._refusal, self._holds = None, False
        self.ready.set()

    def answers(self, request: Mapping[str, Any]) -> bool:
        """Whether the request is for one of the desk's words, and nothing more."""
        return request["kind"] == "exec" and request["command"] in self._words

    def come(self, program: Program) -> None:
        """`program` was asked for and may not begin yet: the first such is asked, any other waits or is told why."""
        if not self._first.done():
            self._first.set_result(program)
        elif self._refusal is not None:
            program.refuse(self._refusal)
            return
        self._here.append(program)
        for text in self._told:
            program.tell(text)

    async def choose(self, answer: Configured, first: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask whoever comes, and return what they want.  Raises the refusal where nobody can be asked."""
        self._refusal = answer.refusal
        self._words = frozenset(answer.desk.words)
        self.ready.set()
        try:
            async with asyncio.timeout(answer.desk.seconds):
                program = await asyncio.shield(self._first) if first["kind"] == "session" else None
                if program is None or not program.can_choose or not answer.desk.choices:
                    raise answer.refusal
                target = await program.ask(lambda channel, typed: Menu(channel, typed, answer.desk.choices))
        except TimeoutError as error:
            raise DoorwardError(
                f"no target was chosen within {answer.desk.seconds:g} s",
                code="nothing_chosen",
                remedy="Connect again, or put the target after your name.",
            ) from error
        return {"kind": "shell", "target": target}

    # -- where there is a permit on conditions (obliged.py) -----------------------------------------------------------

    def hold(self, answer: Configured) -> None:
        """Programs can be asked for, and wait until `close`."""
        self._refusal, self._holds = None, True
        self._words = frozenset(answer.desk.words)
        self.ready.set()

    async def reason(self, wanted: AskReason, first: Mapping[str, Any], fault: Callable[[str], str]) -> str:
        """A reason without a fault: from the client's environment, else typed.  Raises DoorwardError."""
        if first["kind"] != "session":
            raise missing("this needs a reason, and a forward alone has no place to ask for it", wanted)
        try:
            async with asyncio.timeout(wanted.seconds):
                program = await asyncio.shield(self._first)
                given = program.kept_variable(REASON_VARIABLE)
                why = "this needs a reason" if given is None else fault(given.strip())
                if given is not None and not why:
                    return given.strip()
                if not program.has_terminal:
                    raise missing(why if given is None else f"the reason that you gave is not enough: {why}", wanted)
                left = missing("you gave no reason", wanted)
                return await program.ask(lambda channel, typed: Why(channel, typed, wanted.prompt, fault, left))
        except TimeoutError as error:
            raise missing(f"no reason was given within {wanted.seconds:g} s", wanted) from error

    def tell(self, text: str) -> None:
        """Lines for whoever waits here, now or later, on a terminal or not."""
        self._told.append(text)
        for program in self._here:
            program.tell(text)

    async def left(self) -> NoReturn:
        """Never returns; raises DoorwardError when whoever waits first presses Ctrl-C."""
        program = await asyncio.shield(self._first)
        await program.left()
        raise DoorwardError("you did not wait", code="not_waited", remedy="Connect again to ask anew.")


def missing(message: str, wanted: AskReason) -> DoorwardError:
    return DoorwardError(
        message,
        code="reason_missing",
        remedy=f'{wanted.prompt} Answer at a terminal, or with ssh -o SetEnv={REASON_VARIABLE}="..." before the name.',
    )
