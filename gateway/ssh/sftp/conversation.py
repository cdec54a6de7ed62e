"""One channel's SFTP: the client's requests to the agent and its answers back, each understood, counted and on record.

Without a judge everything is passed on in its order.  With one, what names a path waits its turn, one after the other,
while bytes of open files go on.  What is kept is bounded: so many requests, so many bytes, and no more is taken from
the client until there is room.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from gateway.errors import Denied, DoorwardError, WorkspaceUnavailable
from gateway.ssh.sftp import replies
from gateway.ssh.sftp.handles import MAX_HANDLES, Handle, Handles
from gateway.ssh.sftp.judge import Judge
from gateway.ssh.sftp.line import Line
from gateway.ssh.sftp.operations import EXTENSIONS, RESOLVE, VERSIONS, Request, Unknown, request, unsuited
from gateway.ssh.sftp.packets import Broken, Kind, Packet, Splitter, Status, name, packet, status, string
from gateway.ssh.sftp.questions import Asked, Questions
from gateway.ssh.sftp.recorder import Recorder, shown
from gateway.ssh.sftp.refusals import READ_ONLY, malformed, read_only

log = logging.getLogger(__name__)

MAX_OUTSTANDING = 256
"""Requests taken from the client and not answered yet."""
MAX_WAITING_BYTES = 2**20
"""Of requests that wait for their turn."""


class Conversation:
    """Bytes of either side come in by `from_client` and `from_agent`."""

    def __init__(self, line: Line, *, judged: bool, read_only: bool = False) -> None:
        self._line = line
        self._read_only = read_only
        self._recorder = Recorder(line, self.pump, self.end_with)
        self._client, self._agent = Splitter(), Splitter()
        self._handles = Handles()
        self._questions = Questions(line.to_agent)
        self._judge = Judge(line.authorize, self._questions.resolve) if judged else None
        self._outstanding: list[int] = []
        self._queue: deque[tuple[Request, Handle | None]] = deque()
        self._waiting_bytes = 0
        self._working = False
        self._pumping = False
        self._greeting = False
        self._greeted = False
        self._offered: Collection[bytes] = ()
        self._client_ended = False
        self._ended = False

    # -- the client's side --------------------------------------------------------------------------------------

    def from_client(self, data: bytes) -> None:
        self._client.feed(data)
        self.pump()

    def client_ended(self) -> None:
        self._client_ended = True
        self.pump()

    def pump(self) -> None:
        """Take what can be taken; called again whenever that may have changed."""
        if self._pumping or self._ended:
            return
        self._pumping = True
        try:
            while self._may_take and (received := self._client.next()) is not None:
                self._take(received)
        except Broken as error:
            self.end_with(malformed(error))
        finally:
            self._pumping = False
            self._taken()

    def _taken(self) -> None:
        if self._ended:
            return
        if self._client_ended and self._may_take and not self._working:
            self._client_ended = False
            self._line.end_to_agent()  # all that was asked is on its way
        self._line.busy(not self._may_take)

    def record(self) -> Mapping[str, Any]:
        """For the session's last record."""
        return self._recorder.ledger.record()

    @property
    def _may_take(self) -> bool:
        return (
            not self._ended
            and (self._greeted or not self._greeting)
            and len(self._outstanding) < MAX_OUTSTANDING
            and self._waiting_bytes < MAX_WAITING_BYTES
            and not self._recorder.is_behind
            and self._line.is_clear
        )

    def _take(self, received: Packet) -> None:
        if not self._greeting:
            self._greet(received)
            return
        asked = request(received)
        if isinstance(asked, Unknown):
            self._recorder.refused(asked.name)
            self._answer(asked.id, Status.OP_UNSUPPORTED, f"{asked.name} is not offered here")
            return
        handle = None
        if asked.parsed.handle is not None:
            handle = self._handles.find(asked.parsed.handle)
            if handle is None:
                self._answer(asked.id, Status.FAILURE, "no such handle")
                return
        elif refusal := unsuited(asked) or ("too many open files" if self._handles.full and asked.opens else ""):
            self._answer(asked.id, Status.FAILURE, refusal)
            return
        if self._read_only and asked.may_write:
            self._recorder.note(asked, "refused", handle, asked.parsed.paths, reason=READ_ONLY)
            self._answer(asked.id, Status.PERMISSION_DENIED, self._line.explain(read_only()))
            return
        if asked.form.name == "limits":
            self._line.to_client(replies.limits(asked.id, MAX_HANDLES))
            return
        self._outstanding.append(asked.id)
        if asked.opens:
            self._handles.opening()
        if self._judge is not None and (handle is None or handle.waiting or asked.form.name == "fsetstat"):
            self._wait_turn(asked, handle)
        else:
            self._send(asked, handle)

    def _greet(self, received: Packet) -> None:
        if received.kind is not Kind.INIT or received.id < 3:
            raise Broken("no INIT to begin with")
        self._greeting = True
        self._line.to_agent(packet(Kind.INIT, 3))

    # -- to the agent -------------------------------------------------------------------------------------------

    def _wait_turn(self, asked: Request, handle: Handle | None) -> None:
        if handle is not None:
            handle.waiting += 1
        self._waiting_bytes += asked.size
        self._queue.append((asked, handle))
        if not self._working:
            self._working = True
            self._line.start(self._work())

    async def _work(self) -> None:
        """One after the other: a client that sends ahead finds done what it asked for first."""
        try:
            while self._queue and not self._ended:
                asked, handle = self._queue.popleft()
                await self._judged(asked, handle)
                if handle is not None:
                    handle.waiting -= 1
                self._waiting_bytes -= asked.size
                self.pump()
        finally:
            self._working = False
        self.pump()

    async def _judged(self, asked: Request, handle: Handle | None) -> None:
        assert self._judge is not None
        if handle is not None and asked.form.name != "fsetstat":
            self._send(asked, handle)  # it waited for one that had to be judged
            return
        try:
            paths = await self._judge.judge(asked, handle.path if handle is not None else "")
        except DoorwardError as error:
            self._refused(asked, handle, error)
            return
        if self._ended:
            return
        if asked.form.name in ("realpath", "expand-path"):
            self._named(asked, paths[0], "ok")
            return
        self._send(asked, handle, paths)

    def _refused(self, asked: Request, handle: Handle | None, error: DoorwardError) -> None:
        if self._ended:
            return
        assert self._judge is not None
        if asked.form.name in ("realpath", "expand-path"):
            # Clients begin with it and give up without an answer.  As words it tells nothing that they did not say.
            self._named(asked, self._judge.plain(asked), "refused")
            return
        if asked.opens:
            self._handles.not_opened()
        said = self._line.shorten(error) if asked.form.looks else self._line.explain(error)
        self._recorder.note(asked, "refused", handle, asked.parsed.paths, reason=error.reasons[0].code)
        self._outstanding.remove(asked.id)
        self._answer(asked.id, Status.PERMISSION_DENIED, said)

    def _named(self, asked: Request, path: bytes, outcome: str) -> None:
        self._recorder.note(asked, outcome, None, asked.parsed.paths)
        self._outstanding.remove(asked.id)
        self._line.to_client(name(asked.id, path))

    def _send(self, asked: Request, handle: Handle | None, paths: tuple[bytes, ...] | None = None) -> None:
        if asked.form.name == "close":
            assert asked.parsed.handle is not None
            self._handles.close(asked.parsed.handle)
        texts = [shown(path) for path in (asked.parsed.paths if paths is None else paths)] + ["", ""]
        entry = Asked(asked, handle, handle.path if handle is not None else texts[0], texts[1])
        self._questions.ask(entry, paths=paths)

    # -- the agent's side ---------------------------------------------------------------------------------------

    def from_agent(self, data: bytes) -> None:
        self._agent.feed(data)
        try:
            while not self._ended and (received := self._agent.next()) is not None:
                self._answered(received)
        except Broken as error:
            log.warning("sftp_agent_broken", extra={"error": str(error)})
            self.end_with(WorkspaceUnavailable("the workspace's file service broke the protocol"))
        self.pump()

    def _answered(self, received: Packet) -> None:
        if not self._greeted:
            if not self._greeting:
                raise Broken("an answer before any question")
            if not self._offered:
                self._offered = replies.version(received) | {b""}
                self._line.start(self._welcome())
                return
        if (answered := self._questions.answered(received)) is not None:
            self._outstanding.remove(answered[0].request.id)
            self._line.to_client(self._accounted(*answered).encoded(answered[0].request.id))

    async def _welcome(self) -> None:
        try:
            if self._judge is not None:
                if RESOLVE not in self._offered:
                    raise WorkspaceUnavailable("the workspace's file service cannot be judged")
                await self._judge.begin()
        except DoorwardError as error:
            self.end_with(error)
            return
        if not self._ended:
            offered = [string(one) + string(VERSIONS[one]) for one in EXTENSIONS if one in self._offered]
            self._greeted = True
            self._line.to_client(packet(Kind.VERSION, 3, *offered))
            self.pump()

    def _accounted(self, entry: Asked, reply: replies.Reply) -> replies.Reply:
        """Counted and noted; a handle is made ours."""
        asked, handle = entry.request, entry.handle
        if asked.opens:
            if reply.ok:
                opened = Handle(reply.handle, asked.form.name, entry.path)
                reply = replies.Reply(Kind.HANDLE, fields=string(self._handles.opened(opened)))
            else:
                self._handles.not_opened()
        if handle is not None and asked.form.name in ("read", "write", "readdir", "fsync"):
            handle.bytes_read += reply.length
            if reply.ok and asked.form.name == "write":
                handle.bytes_written += asked.parsed.length
            return reply
        outcome = "ok" if reply.ok else reply.code.name.lower()
        self._recorder.note(asked, outcome, handle, (), path=entry.path, **({"to": entry.to} if entry.to else {}))
        return reply

    # -- the end ------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """One of the channels is gone: nothing more is answered, and what was open is noted as it stands."""
        if self._ended:
            return
        self._ended = True
        for handle in self._handles:
            self._recorder.cut(handle)
        self._handles.clear()
        self._questions.end()
        self._queue.clear()
        self._recorder.end()

    def end_with(self, error: DoorwardError) -> None:
        """End it before its time: whoever waits for an answer gets one, and all are told why."""
        if not self._ended:
            code = Status.PERMISSION_DENIED if isinstance(error, Denied) else Status.FAILURE
            for number in self._outstanding:
                self._answer(number, code, self._line.shorten(error))
            self.end()
            self._line.refuse(error)

    def _answer(self, number: int, code: Status, said: str) -> None:
        self._line.to_client(status(number, code, said))
