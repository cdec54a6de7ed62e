"""SSH's authentication protocol (RFC 4252, RFC 4256), on private names of asyncssh 2.24.1, as in raw.py.

asyncssh judges each method by itself and has no partial success.  Here every request is parsed strictly, its signature
verified, and handed to the gate, which says what becomes of it; the gate may put questions in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, cast

import asyncssh
from asyncssh.auth import MSG_USERAUTH_INFO_REQUEST, MSG_USERAUTH_INFO_RESPONSE, MSG_USERAUTH_PK_OK, Auth
from asyncssh.connection import SSHServerConnection
from asyncssh.constants import DEFAULT_LANG, MSG_USERAUTH_FAILURE
from asyncssh.packet import Boolean, NameList, PacketDecodeError, SSHPacket, String, UInt32
from asyncssh.saslprep import SASLPrepError, saslprep
from pydantic import SecretStr

from gateway.authn import Ask, Prompt
from gateway.model import Reason
from gateway.proofs import Certificate, Key
from gateway.ssh.keys import Unreadable, read
from gateway.words import printable

MAX_SECRET = 1024
"""Characters of a password or an answer that are looked at; more is wrong."""
UNANSWERED = SecretStr("")


@dataclass(frozen=True, slots=True)
class Offer:
    """One request to be authenticated, and what may prove it."""

    login: str
    method: str
    key: Key | None = None
    certificate: Certificate | None = None
    signed: bool | None = None
    """publickey: whether its signature is right; None for a key that is only offered (RFC 4252 section 7)"""
    password: SecretStr | None = field(default=None, repr=False)

    @property
    def is_question(self) -> bool:
        """Whether a key only asks if it would be welcome."""
        return self.method == "publickey" and self.signed is None


class Word(Enum):
    """What becomes of an offer."""

    SUCCESS = "success"
    PARTIAL = "partial"
    FAILURE = "failure"
    WELCOME = "welcome"
    """An offered key may sign."""


@dataclass(frozen=True, slots=True)
class Reply:
    word: Word
    methods: tuple[str, ...] = ()
    """Those that can continue."""
    says: tuple[Reason, ...] = ()
    """Why not, for whoever proved to hold what they showed."""


class Judge(Protocol):
    async def authenticate(self, offer: Offer, ask: Ask) -> Reply | None:
        """What becomes of `offer`; None when the connection was closed instead.

        Cancelled when the client leaves or begins another request.
        """
        ...


class Userauth(SSHServerConnection):
    """A server's connection on which the gate, and nobody else, authenticates."""

    _max_auth_tries = 6
    _failures = 0
    _requests = 0
    _can_continue: Sequence[bytes] = ()

    @property
    def gate(self) -> Any:
        raise NotImplementedError

    async def reload_config(self) -> None:
        """No OpenSSH config files are read, so there is nothing to match again."""

    async def _finish_userauth(self, begin_auth: bool, method: bytes, packet: SSHPacket) -> None:
        if self._transport is None:
            return  # it was lost while this waited its turn
        self._requests += 1
        if self._requests > 3 * (self._max_auth_tries + 1):
            # Offers that are welcome, and requests given up for the next one, do not count as failures.
            self.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication attempts")
            return
        self._auth = Trial(self, self._username, method, packet)

    def refuse(self, reply: Reply, *, counts: bool) -> None:
        """Answer with a failure, or with a partial success (RFC 4252 section 5.1)."""
        self._failures += counts
        self._can_continue = [method.encode("ascii") for method in reply.methods]
        self.send_userauth_failure(reply.word is Word.PARTIAL)

    def send_userauth_failure(self, partial_success: bool) -> None:
        if self._failures > self._max_auth_tries:
            self.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures")
            return
        self._auth = None
        self.send_packet(MSG_USERAUTH_FAILURE, NameList(self._can_continue), Boolean(partial_success))


class Trial(Auth):
    """One request being judged.  asyncssh cancels it when another one comes or the connection ends."""

    _conn: Userauth

    def __init__(self, conn: Userauth, login: str, method: bytes, packet: SSHPacket) -> None:
        self._answers: asyncio.Future[Sequence[SecretStr]] | None = None
        super().__init__(conn, self._run(login, method, packet))

    async def _run(self, login: str, method: bytes, packet: SSHPacket) -> None:
        try:
            offer, answer_with = self._read(login, method, packet)
        except PacketDecodeError as error:
            raise asyncssh.ProtocolError(f"malformed authentication request: {error}") from error
        reply = await cast(Judge, self._conn.gate).authenticate(offer, self._ask)
        if reply is None or self._conn.auth is not self:
            return
        if reply.word is Word.SUCCESS:
            await self._conn.send_userauth_success()
        elif reply.word is Word.WELCOME:
            self.send_packet(MSG_USERAUTH_PK_OK, answer_with)
        else:
            self._conn.refuse(reply, counts=offer.method != "none" and reply.word is Word.FAILURE)

    def _read(self, login: str, method: bytes, packet: SSHPacket) -> tuple[Offer, bytes]:
        """The offer, and what PK_OK repeats of it."""
        if method == b"publickey":
            return self._read_key(login, packet)
        if method == b"password":
            return Offer(login, "password", password=_read_password(packet)), b""
        if method == b"keyboard-interactive":
            packet.get_string(), packet.get_string()  # language and submethods: policy says what is asked
            packet.check_end()
        return Offer(login, method.decode("ascii", "replace")), b""

    def _read_key(self, login: str, packet: SSHPacket) -> tuple[Offer, bytes]:
        is_signed, algorithm, blob = packet.get_boolean(), packet.get_string(), packet.get_string()
        message = packet.get_consumed_payload()
        signature = packet.get_string() if is_signed else b""
        packet.check_end()
        try:
            offered = read(blob)
        except Unreadable as error:
            self.logger.info("A key that was offered is not readable: %s", error)
            return Offer(login, "publickey", signed=False), b""
        signed = offered.verified(algorithm, String(self._conn._session_id) + message, signature) if is_signed else None
        offer = Offer(
            login,
            "publickey",
            key=signed or offered.facts(),
            certificate=offered.certificate,
            signed=signed is not None if is_signed else None,
        )
        return offer, String(algorithm) + String(blob)

    async def _ask(self, instruction: str, prompts: Sequence[Prompt]) -> Sequence[SecretStr]:
        """See `gateway.authn.Ask`."""
        self._answers = asyncio.get_running_loop().create_future()
        self.send_packet(
            MSG_USERAUTH_INFO_REQUEST,
            String(""),
            String(_shown(instruction)),
            String(DEFAULT_LANG),
            UInt32(len(prompts)),
            *(String(_shown(prompt.text)) + Boolean(prompt.echo) for prompt in prompts),
        )
        answers = await self._answers
        # RFC 4256 section 3.4: another number of answers than of prompts is a failure.  Nothing typed is one too.
        return answers if len(answers) == len(prompts) else [UNANSWERED for _ in prompts]

    def _process_info_response(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        if self._answers is None or self._answers.done():
            raise asyncssh.ProtocolError("answers to nothing that was asked")
        answers = [_secret(packet.get_string()) for _ in range(min(packet.get_uint32(), 100))]
        packet.check_end()
        self._answers.set_result(answers)

    _packet_handlers = {MSG_USERAUTH_INFO_RESPONSE: _process_info_response}


def _shown(text: str) -> str:
    """Lines that a terminal shows and does not obey."""
    return "\n".join(map(printable, text.split("\n")))


def _read_password(packet: SSHPacket) -> SecretStr:
    """A password; one that comes with a request to change it (RFC 4252 section 8) is as good as none."""
    is_change, password = packet.get_boolean(), _secret(packet.get_string())
    if is_change:
        packet.get_string()
    packet.check_end()
    return UNANSWERED if is_change else password


def _secret(data: bytes) -> SecretStr:
    """What was typed, normalised as RFC 4252 asks; empty, which proves nothing, for what cannot be that."""
    if len(data) > 4 * MAX_SECRET:
        return UNANSWERED
    try:
        text = saslprep(data.decode("utf-8"))
    except (UnicodeDecodeError, SASLPrepError):
        return UNANSWERED
    return SecretStr(text) if len(text) <= MAX_SECRET else UNANSWERED
