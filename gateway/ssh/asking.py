"""A question on a terminal whose owner has set it raw, so what is typed is edited and echoed here."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable, Sequence

from gateway.errors import DoorwardError
from gateway.model import Choice
from gateway.ssh.raw import RawChannel
from gateway.words import printable

MAX_LINE = 128
MAX_TYPED = 4096
"""Bytes a question takes in all; each is echoed, perhaps to somebody who does not read."""
MAX_TRIES = 3
MAX_REASON = 500
INTERRUPT = 0x03


class Question:
    """A Filter (ssh/filters.py) of what is typed, until there is an answer."""

    def __init__(self, channel: RawChannel, line: Line, typed_ahead: bytes = b"") -> None:
        self._channel = channel
        self._line = line
        self._typed_ahead = typed_ahead
        self._taken = 0
        self._tries = 0
        self._answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.rest = b""
        """What was typed after the answer; it is the program's."""

    async def ask(self) -> str:
        """What they answer.  Raises DoorwardError when they leave."""
        self._begin()
        self._prompt()
        if self._typed_ahead:
            self.received(self._typed_ahead, None)
        return await self._answer

    def received(self, data: bytes, _datatype: int | None) -> None:
        self._taken += len(data)
        if self._taken > MAX_TYPED:
            self.lost()
        for at, byte in enumerate(data):
            if self._answer.done():
                return
            echo = self._line.take(byte)
            if echo is not None:
                self._write(echo)
            elif self._line.left:
                self.lost()
            else:
                self.rest = data[at + 1 :].removeprefix(b"\n") if byte == ord("\r") else data[at + 1 :]
                self._write("\r\n")
                self._typed(self._line.start_again())

    def ended(self) -> None:
        self.lost()

    def drained(self) -> None:
        """What is written here is bounded by what is typed."""

    def lost(self) -> None:
        """They leave, or are gone."""
        if not self._answer.done():
            self._write("\r\n")
            self._answer.set_exception(self._leaving())
            self._answer.exception()  # whoever asked may have gone

    def _answered(self, text: str) -> None:
        self._answer.set_result(text)
        self._channel.pause_reading()

    def _again(self, why: str) -> None:
        """Ask once more; whoever typed too often what is no answer leaves."""
        self._tries += 1
        if self._tries == MAX_TRIES:
            self.lost()
            return
        self._show(f"doorward: {why}.")
        self._prompt()

    def _show(self, line: str) -> None:
        self._write(f"{printable(line)}\r\n")

    def _write(self, text: str) -> None:
        if self._channel.is_writable:
            self._channel.write(text.encode())

    # -- what makes it one question and not another -----------------------------------------------------------------

    def _begin(self) -> None: ...

    def _prompt(self) -> None:
        raise NotImplementedError

    def _typed(self, text: str) -> None:
        raise NotImplementedError

    def _leaving(self) -> DoorwardError:
        raise NotImplementedError


class Menu(Question):
    """Which of these targets?"""

    def __init__(self, channel: RawChannel, typed_ahead: bytes, choices: Sequence[Choice]) -> None:
        super().__init__(channel, Line(), typed_ahead)
        self._choices = choices

    def _begin(self) -> None:
        width = max(len(choice.target) for choice in self._choices)
        self._show("doorward: You may reach these targets now. Which one?")
        for number, choice in enumerate(self._choices, 1):
            self._show(f"{number:4}  {choice.target:{width}}  {choice.label}")

    def _prompt(self) -> None:
        self._write("Number or name, q to leave: ")

    def _typed(self, text: str) -> None:
        found = chosen(self._choices, text)
        if text in ("q", "quit"):
            self.lost()
        elif found is not None:
            self._answered(found)
        elif text:
            self._again(f"none of them, or more than one, is {text}")
        else:
            self._prompt()

    def _leaving(self) -> DoorwardError:
        return DoorwardError(
            "you chose no target", code="nothing_chosen", remedy="Connect again, or put the target after your name."
        )


class Why(Question):
    """A reason."""

    def __init__(
        self, channel: RawChannel, typed_ahead: bytes, prompt: str, fault: Callable[[str], str], left: DoorwardError
    ) -> None:
        super().__init__(channel, Line(MAX_REASON, text=True), typed_ahead)
        self._question = prompt
        self._fault = fault
        self._left = left

    def _begin(self) -> None:
        self._show(f"doorward: {self._question} (It goes on record. Ctrl-C to leave.)")

    def _prompt(self) -> None:
        self._write("Reason: ")

    def _typed(self, text: str) -> None:
        if why := self._fault(text):
            self._again(why)
        else:
            self._answered(text)

    def _leaving(self) -> DoorwardError:
        return self._left


class Meanwhile:
    """A Filter while nothing is asked: keeps a little of what is typed, and notices Ctrl-C."""

    def __init__(self, typed_ahead: bytes) -> None:
        self.rest = typed_ahead
        self.left = asyncio.Event()

    def received(self, data: bytes, _datatype: int | None) -> None:
        if INTERRUPT in data:
            self.left.set()
        self.rest = (self.rest + data)[:MAX_TYPED]

    def ended(self) -> None:
        """They type no more, and may wait all the same."""

    def drained(self) -> None: ...

    def lost(self) -> None: ...


def chosen(choices: Sequence[Choice], text: str) -> str | None:
    """The target that was meant: by its number, its name, or a beginning that only it has."""
    if text.isascii() and text.isdecimal():
        number = int(text)
        return choices[number - 1].target if 0 < number <= len(choices) else None
    names = [choice.target for choice in choices]
    if text in names:
        return text
    meant = [name for name in names if text and name.startswith(text)]
    return meant[0] if len(meant) == 1 else None


class Line:
    """A line that is being typed at a raw terminal.

    Escape sequences are dropped as a whole, and so is what is not ASCII, unless it is to be a `text`: then UTF-8 is.
    """

    def __init__(self, most: int = MAX_LINE, *, text: bool = False) -> None:
        self._text = ""
        self._most = most
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore") if text else None
        self._escaped: Callable[[int], bool] | None = None
        """Inside an escape sequence: whether a byte ends it."""
        self.left = False
        """Whether they typed that they want to leave: Ctrl-C, or Ctrl-D on an empty line."""

    def take(self, byte: int) -> str | None:
        """What to echo for one byte; None when the line is complete, or `left`."""
        if self._escaped is not None:
            self._escape(byte)
            return ""
        match byte:
            case 0x1B:
                self._escaped = _introduces_nothing
            case 0x0D | 0x0A:
                return None
            case 0x03:
                self.left = True
                return None
            case 0x04 if not self._text:
                self.left = True
                return None
            case 0x7F | 0x08:
                return self._erase(1)
            case 0x15:
                return self._erase(len(self._text))
            case _ if 0x20 <= byte < 0x7F:
                return self._add(chr(byte))
            case _ if byte >= 0x80 and self._decoder is not None:
                return self._add(self._decoder.decode(bytes([byte])))
        return ""

    def start_again(self) -> str:
        """The line, without blanks round it; the next begins."""
        text, self._text = self._text.strip(), ""
        return text

    def _add(self, typed: str) -> str:
        if not typed or len(self._text) >= self._most or printable(typed) != typed:
            return ""
        self._text += typed
        return typed

    def _erase(self, number: int) -> str:
        number = min(number, len(self._text))
        self._text = self._text[: len(self._text) - number]
        return "\b \b" * number

    def _escape(self, byte: int) -> None:
        assert self._escaped is not None
        if self._escaped is _introduces_nothing and byte in b"[O":
            self._escaped = _is_final
        elif self._escaped(byte):
            self._escaped = None


def _introduces_nothing(_byte: int) -> bool:
    """After ESC: a letter with Alt."""
    return True


def _is_final(byte: int) -> bool:
    """After ESC [ : parameters, then one final byte (ECMA-48, 5.4)."""
    return 0x40 <= byte < 0x7F
