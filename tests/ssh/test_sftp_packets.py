"""What comes in from either side of an SFTP channel is understood, or ends it; nothing else happens, whatever it is."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest

from gateway.errors import AuditUnavailable, DoorwardError
from gateway.ssh.sftp.conversation import MAX_OUTSTANDING, Conversation
from gateway.ssh.sftp.ledger import BATCH_SECONDS
from gateway.ssh.sftp.operations import EXTENSIONS, FORMS, Request, Unknown, request
from gateway.ssh.sftp.packets import (
    MAX_PACKET,
    Attributes,
    Broken,
    Kind,
    Packet,
    Splitter,
    Status,
    packet,
    status,
    string,
)
from gateway.ssh.sftp.replies import reply
from tests.waiting import SECONDS, until

U32, U64 = (7).to_bytes(4, "big"), (9).to_bytes(8, "big")
ATTRIBUTES = Attributes(size=5, owner=(1, 2), mode=0o644, times=(3, 4)).encoded()
PATH, HANDLE = string(b"/a/b"), string(b"\0\0\0\1")
REQUESTS: dict[str, bytes] = {
    "open": packet(Kind.OPEN, 1, PATH, (0b111111).to_bytes(4, "big"), ATTRIBUTES),
    "close": packet(Kind.CLOSE, 1, HANDLE),
    "read": packet(Kind.READ, 1, HANDLE, U64, U32),
    "write": packet(Kind.WRITE, 1, HANDLE, U64, string(b"data")),
    "lstat": packet(Kind.LSTAT, 1, PATH),
    "fstat": packet(Kind.FSTAT, 1, HANDLE),
    "setstat": packet(Kind.SETSTAT, 1, PATH, ATTRIBUTES),
    "fsetstat": packet(Kind.FSETSTAT, 1, HANDLE, ATTRIBUTES),
    "opendir": packet(Kind.OPENDIR, 1, PATH),
    "readdir": packet(Kind.READDIR, 1, HANDLE),
    "remove": packet(Kind.REMOVE, 1, PATH),
    "mkdir": packet(Kind.MKDIR, 1, PATH, ATTRIBUTES),
    "rmdir": packet(Kind.RMDIR, 1, PATH),
    "realpath": packet(Kind.REALPATH, 1, PATH),
    "stat": packet(Kind.STAT, 1, PATH),
    "rename": packet(Kind.RENAME, 1, PATH, PATH),
    "readlink": packet(Kind.READLINK, 1, PATH),
    "symlink": packet(Kind.SYMLINK, 1, PATH, PATH),
    "posix-rename@openssh.com": packet(Kind.EXTENDED, 1, string(b"posix-rename@openssh.com"), PATH, PATH),
    "statvfs@openssh.com": packet(Kind.EXTENDED, 1, string(b"statvfs@openssh.com"), PATH),
    "fstatvfs@openssh.com": packet(Kind.EXTENDED, 1, string(b"fstatvfs@openssh.com"), HANDLE),
    "hardlink@openssh.com": packet(Kind.EXTENDED, 1, string(b"hardlink@openssh.com"), PATH, PATH),
    "fsync@openssh.com": packet(Kind.EXTENDED, 1, string(b"fsync@openssh.com"), HANDLE),
    "lsetstat@openssh.com": packet(Kind.EXTENDED, 1, string(b"lsetstat@openssh.com"), PATH, ATTRIBUTES),
    "limits@openssh.com": packet(Kind.EXTENDED, 1, string(b"limits@openssh.com")),
    "expand-path@openssh.com": packet(Kind.EXTENDED, 1, string(b"expand-path@openssh.com"), PATH),
}
NAMES = packet(Kind.NAME, 0, (2).to_bytes(4, "big"), *[string(b"n"), string(b"-rw n"), ATTRIBUTES] * 2)
REPLIES = [
    packet(Kind.VERSION, 3, string(b"resolve@doorward"), string(b"1"), string(b"fsync@openssh.com"), string(b"1")),
    status(0, Status.OK), status(0, Status.NO_SUCH_FILE, "no"), packet(Kind.HANDLE, 0, string(b"h")),
    packet(Kind.DATA, 0, string(b"data")), NAMES, packet(Kind.NAME, 0, (1).to_bytes(4, "big"), PATH, PATH, bytes(4)),
    packet(Kind.ATTRS, 0, ATTRIBUTES), packet(Kind.EXTENDED_REPLY, 0, U64 * 11),
]  # fmt: skip


def only(data: bytes) -> Packet:
    splitter = Splitter()
    splitter.feed(data)
    found = splitter.next()
    assert found is not None
    assert len(splitter) == 0
    return found


def asked(name: str) -> Request:
    found = request(only(REQUESTS[name]))
    assert isinstance(found, Request)
    return found


def test_every_request_that_is_offered_is_put_together_as_it_came() -> None:
    assert len(REQUESTS) == len(FORMS) + len(EXTENSIONS)
    for name, data in REQUESTS.items():
        parsed = asked(name)
        assert parsed.encoded(1, handle=b"\0\0\0\1") == data, name


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_is_cut_short_or_too_long_is_none(name: str) -> None:
    whole = only(REQUESTS[name])
    body = whole.body
    prefix = len(string(name.encode())) if whole.kind is Kind.EXTENDED else 0
    for length in range(prefix, len(body)):
        with pytest.raises(Broken):
            request(Packet(whole.kind, 1, body[:length]))
    with pytest.raises(Broken):
        request(Packet(whole.kind, 1, body + b"\0"))


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\0", b"\0\0\0\4\1\0\0\0", (MAX_PACKET + 1).to_bytes(4, "big"), b"\xff\xff\xff\xff",
        b"\0\0\0\5\0\0\0\0\0",
        b"\0\0\0\5\x15\0\0\0\0", b"\0\0\0\5\xff\0\0\0\0",
    ],
)  # fmt: skip
def test_a_length_or_a_kind_that_cannot_be_is_noticed_before_anything_is_kept(data: bytes) -> None:
    splitter = Splitter()
    splitter.feed(data)
    with pytest.raises(Broken):
        splitter.next()


def test_packets_come_out_whole_however_they_come_in() -> None:
    stream = b"".join(REQUESTS.values())
    dice = random.Random(1)
    splitter, found = Splitter(), []
    while stream:
        length = dice.randint(1, 60)
        splitter.feed(stream[:length])
        stream = stream[length:]
        while (one := splitter.next()) is not None:
            found.append(one)
    assert found == [only(data) for data in REQUESTS.values()]


def test_open_is_judged_by_what_its_flags_do() -> None:
    def facts(flags: int) -> tuple[bool, bool]:
        found = request(only(packet(Kind.OPEN, 1, PATH, flags.to_bytes(4, "big"), ATTRIBUTES)))
        assert isinstance(found, Request)
        return found.parsed.facts["read"], found.parsed.facts["write"]

    read, write, append, create, truncate, exclusive = (1 << bit for bit in range(6))
    assert facts(read) == (True, False)
    assert facts(0) == (True, False)
    assert facts(write) == (False, True)
    assert facts(read | write) == (True, True)
    assert facts(append) == facts(create) == facts(truncate) == (True, True)
    assert facts(write | append | create | truncate | exclusive) == (False, True)
    with pytest.raises(Broken):
        facts(64)


def names(*found: bytes) -> bytes:
    fields = [field for name in found for field in (string(name), string(name), Attributes().encoded())]
    return packet(Kind.NAME, 0, len(found).to_bytes(4, "big"), *fields)


LIES: dict[str, tuple[str, bytes]] = {
    "a success without a handle": ("open", status(0, Status.OK)),
    "attributes for a handle": ("open", packet(Kind.ATTRS, 0, ATTRIBUTES)),
    "a handle that is empty": ("open", packet(Kind.HANDLE, 0, string(b""))),
    "a handle that is too long": ("open", packet(Kind.HANDLE, 0, string(b"h" * 257))),
    "more data than asked for": ("read", packet(Kind.DATA, 0, string(b"x" * 8))),
    "data that is shorter than it says": ("read", packet(Kind.DATA, 0, b"\0\0\0\5x")),
    "data for a write": ("write", packet(Kind.DATA, 0, string(b"x"))),
    "a name with a slash": ("readdir", names(b"../../.ssh/authorized_keys")),
    "an empty name": ("readdir", names(b"")),
    "a name with NUL": ("readdir", names(b"a\0b")),
    "two names of a link": ("readlink", names(b"a", b"b")),
    "no name of a link": ("readlink", names()),
    "more names than there are": ("readdir", packet(Kind.NAME, 0, b"\xff\xff\xff\xff", string(b"n"))),
    "attributes that are cut": ("stat", packet(Kind.ATTRS, 0, ATTRIBUTES[:-1])),
    "attributes and more": ("stat", packet(Kind.ATTRS, 0, ATTRIBUTES, b"\0")),
    "flags that there are not": ("stat", packet(Kind.ATTRS, 0, b"\0\1\0\0")),
    "endless extended attributes": ("stat", packet(Kind.ATTRS, 0, b"\x80\0\0\0\xff\xff\xff\xff")),
    "a short statvfs": ("statvfs@openssh.com", packet(Kind.EXTENDED_REPLY, 0, U64)),
    "a status without its text": ("remove", packet(Kind.STATUS, 0, U32)),
    "a request": ("stat", REQUESTS["stat"]),
    "a second version": ("stat", packet(Kind.VERSION, 3)),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_does_not_fit_its_question_is_none(lie: str) -> None:
    name, data = LIES[lie]
    with pytest.raises(Broken):
        reply(only(data), asked(name))


def test_what_an_agent_says_of_a_failure_is_not_obeyed_by_a_terminal() -> None:
    said = reply(only(status(0, Status.FAILURE, "\x1b[2J" + "x" * 500)), asked("remove"))
    assert b"\x1b" not in said.fields
    assert len(said.fields) < 250
    unknown = reply(only(packet(Kind.STATUS, 0, (77).to_bytes(4, "big"), string(b"?"), string(b""))), asked("remove"))
    assert unknown.code is Status.FAILURE


def damaged(data: bytes, dice: random.Random) -> bytes:
    whole = bytearray(data)
    for _ in range(dice.randint(0, 4)):
        place = dice.randrange(len(whole))
        match dice.randrange(5):
            case 0:
                whole[place] = dice.randrange(256)
            case 1:
                del whole[place : place + dice.randint(1, 8)]
            case 2:
                whole[place:place] = dice.randbytes(dice.randint(1, 8))
            case 3:
                whole[place : place + 4] = dice.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\4\0\0", b"\x80\0\0\0"])
            case 4:
                whole[place] ^= 1 << dice.randrange(8)
        if not whole:
            return b""
    return bytes(whole)


class Ends:
    """Both channels in memory, and a policy that says yes; it keeps to the contract of `Line`."""

    def __init__(self) -> None:
        self.agent, self.client = bytearray(), bytearray()
        self.tasks: list[asyncio.Future[None]] = []
        self.refused: list[str] = []
        self.recorded: list[Mapping[str, Any]] = []
        self.record_error: DoorwardError | None = None
        self.on_refusal: Callable[[], None] = lambda: None
        self.is_busy = False
        self.is_clear = True
        self.ended = False

    def to_agent(self, data: bytes) -> None:
        self.agent += data

    def to_client(self, data: bytes) -> None:
        self.client += data

    def end_to_agent(self) -> None:
        assert not self.ended
        self.ended = True

    def busy(self, busy: bool) -> None:
        self.is_busy = busy

    def explain(self, error: DoorwardError) -> str:
        return str(error)

    shorten = explain

    def refuse(self, error: DoorwardError) -> None:
        self.refused.append(error.reasons[0].code)
        self.on_refusal()

    def start(self, work: Coroutine[Any, Any, None]) -> bool:
        self.tasks.append(asyncio.ensure_future(work))
        return True

    async def record(self, operations: Sequence[Mapping[str, Any]]) -> None:
        if self.record_error is not None:
            raise self.record_error
        self.recorded += operations

    async def authorize(self, facts: Mapping[str, Any]) -> None:
        assert facts["path"].startswith("/")

    async def settled(self) -> None:
        while waiting := [task for task in self.tasks if not task.done()]:
            done, _ = await asyncio.wait(waiting, timeout=0.001)
            if not done:
                return

    async def over(self) -> None:
        """Every task has ended, and none badly."""
        await asyncio.wait_for(asyncio.gather(*self.tasks), SECONDS)


def answering(ends: Ends, dice: random.Random) -> bytes:
    """Answers of an agent that is sometimes right, to all that it was sent."""
    splitter, said = Splitter(), b""
    splitter.feed(bytes(ends.agent))
    ends.agent.clear()
    while (one := splitter.next()) is not None:
        answer = REPLIES[0] if one.kind is Kind.INIT else dice.choice(REPLIES[1:])
        if one.kind is Kind.EXTENDED and b"resolve@doorward" in one.body:
            answer = names(dice.choice([b"/a/b", b"/", b"/x" * 50]))
        if one.kind is not Kind.INIT:
            answer = answer[:5] + one.id.to_bytes(4, "big") + answer[9:]
        said += damaged(answer, dice) if dice.random() < 0.1 else answer
    return said


@pytest.mark.parametrize("judged", [False, True])
async def test_damaged_packets_end_a_conversation_or_do_nothing(judged: bool) -> None:
    """Seeded, for three seconds: whatever comes, the only ends are the two that are meant."""
    codes: dict[str, int] = {}
    deadline, seed = time.monotonic() + 3, 0
    while time.monotonic() < deadline and seed < 3000:
        seed += 1
        dice = random.Random(seed)
        ends = Ends()
        conversation = Conversation(ends, judged=judged)
        conversation.from_client(packet(Kind.INIT, 3))
        for _ in range(12):
            conversation.from_agent(answering(ends, dice))
            await ends.settled()
            if ends.refused:
                break
            sent = b"".join(dice.choice(list(REQUESTS.values())) for _ in range(dice.randint(1, 6)))
            conversation.from_client(damaged(sent, dice) if dice.random() < 0.3 else sent)
            await ends.settled()
        conversation.end()
        await ends.over()
        for code in ends.refused or ["none"]:
            codes[code] = codes.get(code, 0) + 1
        assert len(ends.refused) <= 1
        for one in _packets(ends.client):
            assert one.kind in (
                Kind.VERSION,
                Kind.STATUS,
                Kind.HANDLE,
                Kind.DATA,
                Kind.NAME,
                Kind.ATTRS,
                Kind.EXTENDED_REPLY,
            )
    assert codes.keys() == {"sftp_malformed", "workspace_unavailable", "none"}
    assert seed > 20


def _packets(data: bytes | bytearray) -> list[Packet]:
    splitter, found = Splitter(), []
    splitter.feed(bytes(data))
    while (one := splitter.next()) is not None:
        found.append(one)
    assert len(splitter) == 0
    return found


def test_damaged_requests_and_answers_are_understood_or_broken() -> None:
    dice = random.Random(7)
    understood = 0
    for number in range(60_000):
        try:
            if number % 2:
                found = request(only_or_broken(damaged(dice.choice(list(REQUESTS.values())), dice)))
                understood += isinstance(found, Request | Unknown)
            else:
                question = asked(dice.choice([*REQUESTS]))
                reply(only_or_broken(damaged(dice.choice(REPLIES), dice)), question)
        except Broken:
            continue
    assert understood > 1000


def only_or_broken(data: bytes) -> Packet:
    splitter = Splitter()
    splitter.feed(data)
    found = splitter.next()
    if found is None:
        raise Broken("not whole")
    return found


async def greeted(*, judged: bool = False) -> tuple[Ends, Conversation]:
    ends = Ends()
    conversation = Conversation(ends, judged=judged)
    conversation.from_client(packet(Kind.INIT, 3))
    conversation.from_agent(REPLIES[0])
    await ends.settled()
    if judged:
        conversation.from_agent(names(b"/"))
        await ends.settled()
    assert [one.kind for one in _packets(ends.client)] == [Kind.VERSION]
    ends.agent.clear()
    ends.client.clear()
    return ends, conversation


async def test_only_so_many_requests_are_taken_until_they_are_answered() -> None:
    ends, conversation = await greeted()
    conversation.from_client(REQUESTS["stat"] * 1000)
    assert (len(_packets(ends.agent)), ends.is_busy) == (MAX_OUTSTANDING, True)
    conversation.client_ended()
    for _ in range(5):
        sent = _packets(ends.agent)
        ends.agent.clear()
        for one in sent:
            conversation.from_agent(packet(Kind.ATTRS, one.id, ATTRIBUTES))
        await ends.settled()  # for the record to keep up
    assert len(_packets(ends.client)) == 1000
    assert ends.is_busy is False
    assert ends.ended  # the client's end is passed on when all that it asked for is
    conversation.end()
    await ends.over()


async def test_nothing_is_taken_while_the_line_is_not_clear() -> None:
    ends, conversation = await greeted()
    ends.is_clear = False
    conversation.from_client(REQUESTS["stat"] * 3)
    assert (len(ends.agent), ends.is_busy) == (0, True)
    ends.is_clear = True
    conversation.pump()
    assert len(_packets(ends.agent)) == 3
    assert ends.is_busy is False
    conversation.end()
    await ends.over()


async def test_what_is_done_and_cannot_be_recorded_ends_the_channel_and_is_kept() -> None:
    ends, conversation = await greeted()
    ends.record_error = AuditUnavailable("the audit log cannot be written")
    conversation.from_client(REQUESTS["remove"])
    conversation.from_agent(packet(Kind.STATUS, _packets(ends.agent)[0].id, bytes(4), string(b""), string(b"")))
    last: list[Mapping[str, Any]] = []
    ends.on_refusal = lambda: last.append(conversation.record())  # no second try has taken it out again
    await until(lambda: ends.refused, 20 * BATCH_SECONDS + 30)
    assert ends.refused == ["audit_unavailable"]
    assert [entry["operation"] for entry in last[0]["late"]] == ["remove"]
    ends.agent.clear()
    conversation.from_client(REQUESTS["remove"])
    assert not ends.agent
    await ends.over()


async def test_what_waits_for_a_decision_when_the_channel_ends_is_not_done() -> None:
    ends, conversation = await greeted(judged=True)
    conversation.from_client(REQUESTS["remove"] * 5)
    await ends.settled()
    [resolving] = _packets(ends.agent)
    assert b"resolve@doorward" in resolving.body
    ends.agent.clear()
    conversation.end()
    await ends.over()
    conversation.from_agent(names(b"/a/b"))
    assert not ends.agent
    assert not ends.client


@pytest.mark.parametrize(
    "answer", [b"", b"a/b", b"/a/../b", b"/a//b", b"//a", b"/a/", b"/a\0b", b"/" + b"x" * 5000, b"."]
)
async def test_a_name_that_is_not_canonical_is_not_judged(answer: bytes) -> None:
    ends, conversation = await greeted(judged=True)
    conversation.from_client(REQUESTS["stat"])
    await ends.settled()
    conversation.from_agent(names(answer).replace(bytes(4), _packets(ends.agent)[0].id.to_bytes(4, "big"), 1))
    await ends.settled()
    if ends.refused:  # NUL is in no name at all
        assert (ends.refused, answer) == (["workspace_unavailable"], b"/a\0b")
    else:
        [said] = _packets(ends.client)
        assert (said.kind, said.body[:4]) == (Kind.STATUS, Status.PERMISSION_DENIED.to_bytes(4, "big"))
    conversation.end()
    await ends.over()
