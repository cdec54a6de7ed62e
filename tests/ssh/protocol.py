"""Every channel and request of RFC 4254 and OpenSSH's PROTOCOL file, and what becomes of it when a client sends it.

`test_protocol.py` sends each to a running gateway, and holds the table in `docs/ssh.md` to this one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

from asyncssh.packet import Boolean, String, UInt32


class Fate(StrEnum):
    """What becomes of a message."""

    DECIDED = "decided by policy, recorded"
    UNKNOWN = "refused by policy always (`request_unknown`), recorded"
    REFUSED = "refused by name"
    ANSWERED = "answered by the gateway"


class Sent(StrEnum):
    CHANNEL = "channel"
    REQUEST = "channel request"
    GLOBAL = "global request"
    TRANSPORT = "transport"


@dataclass(frozen=True)
class Row:
    sent: Sent
    name: str
    payload: bytes
    fate: Fate
    why: str
    """Of DECIDED: what allows it.  Else: why so."""

    def rendered(self) -> str:
        return f"| {self.sent} | `{self.name}` | {self.fate} | {self.why} |"


ORIGIN = String("127.0.0.1") + UInt32(7)
COOKIE = String("MIT-MAGIC-COOKIE-1") + String("5a" * 16) + UInt32(0)
HOST, PORT, SOCKET = "127.0.0.1", 7, f"/tmp/doorward-none-{os.getpid()}"
"""What the open target of the test allows; nobody is there."""
_PROGRAM = "`allow.shell` or `allow.exec`"
_OTHER_WAY = "only a workspace opens it, for a listener that was granted"
_PROGRAMS_WORD = "only a program's side says it"

ROWS = (
    Row(Sent.CHANNEL, "session", b"", Fate.DECIDED, "a grant that stands"),
    Row(Sent.CHANNEL, "x11", ORIGIN, Fate.REFUSED, _OTHER_WAY),
    Row(Sent.CHANNEL, "direct-tcpip", String(HOST) + UInt32(PORT) + ORIGIN, Fate.DECIDED, "`allow.forwards`"),
    Row(Sent.CHANNEL, "forwarded-tcpip", String(HOST) + UInt32(PORT) + ORIGIN, Fate.REFUSED, _OTHER_WAY),
    Row(Sent.CHANNEL, "auth-agent@openssh.com", b"", Fate.REFUSED, _OTHER_WAY),
    Row(
        Sent.CHANNEL, "direct-streamlocal@openssh.com", String(SOCKET) + String("") + UInt32(0),
        Fate.DECIDED, "`allow.sockets.connect`",
    ),
    Row(
        Sent.CHANNEL, "forwarded-streamlocal@openssh.com", String(SOCKET) + String(""), Fate.REFUSED, _OTHER_WAY,
    ),
    Row(Sent.CHANNEL, "tun@openssh.com", UInt32(1) + UInt32(0), Fate.UNKNOWN, "a workspace has no network to join"),
    Row(Sent.CHANNEL, "surprise@example.com", b"", Fate.REFUSED, "nobody knows it"),
    Row(
        Sent.REQUEST, "pty-req", String("xterm") + UInt32(80) + UInt32(24) + UInt32(0) * 2 + String(""),
        Fate.DECIDED, _PROGRAM,
    ),
    Row(Sent.REQUEST, "x11-req", Boolean(False) + COOKIE, Fate.DECIDED, "`allow.x11`; policy never sees the cookie"),
    Row(Sent.REQUEST, "auth-agent-req@openssh.com", b"", Fate.DECIDED, "`allow.agent`"),
    Row(Sent.REQUEST, "env", String("LANG") + String("C"), Fate.DECIDED, "`allow.env`; some names never"),
    Row(Sent.REQUEST, "window-change", UInt32(80) + UInt32(24) + UInt32(0) * 2, Fate.DECIDED, _PROGRAM),
    Row(Sent.REQUEST, "xon-xoff", Boolean(True), Fate.DECIDED, _PROGRAM),
    Row(Sent.REQUEST, "signal", String("TERM"), Fate.DECIDED, _PROGRAM),
    Row(Sent.REQUEST, "break", UInt32(500), Fate.DECIDED, _PROGRAM),
    Row(Sent.REQUEST, "eow@openssh.com", b"", Fate.DECIDED, _PROGRAM),
    Row(Sent.REQUEST, "exit-status", UInt32(0), Fate.UNKNOWN, _PROGRAMS_WORD),
    Row(
        Sent.REQUEST, "exit-signal", String("TERM") + Boolean(False) + String("") * 2, Fate.UNKNOWN, _PROGRAMS_WORD,
    ),
    Row(Sent.REQUEST, "surprise@example.com", b"", Fate.UNKNOWN, "nobody knows it"),
    Row(Sent.REQUEST, "subsystem", String("sftp"), Fate.DECIDED, "`allow.sftp`; no other subsystem"),
    Row(Sent.REQUEST, "shell", b"", Fate.DECIDED, "`allow.shell`"),
    Row(Sent.REQUEST, "exec", String("true"), Fate.DECIDED, "`allow.exec`"),
    Row(Sent.GLOBAL, "tcpip-forward", String("localhost") + UInt32(0), Fate.DECIDED, "`allow.listen`"),
    Row(
        Sent.GLOBAL, "cancel-tcpip-forward", String("localhost") + UInt32(1), Fate.DECIDED,
        "any `allow.listen`; it is cancelled whatever policy says",
    ),
    Row(
        Sent.GLOBAL, "streamlocal-forward@openssh.com", String(SOCKET), Fate.DECIDED, "`allow.sockets.listen`",
    ),
    Row(
        Sent.GLOBAL, "cancel-streamlocal-forward@openssh.com", String(SOCKET), Fate.DECIDED,
        "any `allow.sockets.listen`; it is cancelled whatever policy says",
    ),
    Row(Sent.GLOBAL, "keepalive@openssh.com", b"", Fate.ANSWERED, "yes: the door is alive"),
    Row(
        Sent.GLOBAL, "hostkeys-prove-00@openssh.com", String(b"not a key of ours"), Fate.ANSWERED,
        "with proofs of the door's own keys; of another's: no",
    ),
    Row(Sent.GLOBAL, "hostkeys-00@openssh.com", b"", Fate.REFUSED, "only a server says which keys it has"),
    Row(Sent.GLOBAL, "surprise@example.com", b"", Fate.REFUSED, "nobody knows it"),
    Row(
        Sent.GLOBAL, "no-more-sessions@openssh.com", b"", Fate.ANSWERED,
        "yes; a session that is opened after it is refused and recorded (`no_more_sessions`)",
    ),
    Row(Sent.TRANSPORT, "ping@openssh.com", String("x"), Fate.REFUSED, "not offered, so unimplemented"),
)  # fmt: skip

HEAD = ("| sent as | name | what becomes of it | what allows it, or why |", "|---|---|---|---|")


def rendered() -> str:
    """The table as it stands in docs/ssh.md."""
    return "\n".join((*HEAD, *(row.rendered() for row in ROWS))) + "\n"
