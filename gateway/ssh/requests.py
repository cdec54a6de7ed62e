"""Payloads of channel opens and requests as facts for policy: parsed strictly, passed on byte for byte as judged.

RFC 4254 sections 5 to 7, and OpenSSH's PROTOCOL file.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asyncssh.packet import PacketDecodeError, SSHPacket

from gateway.words import printable

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One channel request."""

    name: str
    facts: Facts
    payload: bytes
    want_reply: bool


class Malformed(Exception):
    """A payload that is not what its name promises."""


def facts(kind: str, payload: bytes) -> Facts:
    """`{"kind": kind, ...}` as policy sees it.  A kind we do not know has no other facts.  Raises Malformed."""
    parse = PARSERS.get(kind)
    if parse is None:
        return {"kind": kind[:128]}
    return {"kind": kind, **_parsed(kind, parse, payload)}


def arrival(kind: str, payload: bytes) -> Facts:
    """What the workspace says of a connection that came to a listener; its words are not trusted.  Raises Malformed."""
    return _parsed(kind, ARRIVALS[kind], payload)


def _parsed(kind: str, parse: Callable[[SSHPacket], Facts], payload: bytes) -> Facts:
    packet = SSHPacket(payload)
    try:
        parsed = parse(packet)
        packet.check_end()
    except PacketDecodeError as error:
        raise Malformed(f"{kind}: {error}") from error
    return parsed


def _nothing(_packet: SSHPacket) -> Facts:
    return {}


def _pty_req(packet: SSHPacket) -> Facts:
    term = _text(packet.get_string())
    columns, rows = packet.get_uint32(), packet.get_uint32()
    packet.get_uint32(), packet.get_uint32()  # pixels
    packet.get_string()  # modes: passed on, nothing to judge
    return {"term": term, "columns": columns, "rows": rows}


def _window_change(packet: SSHPacket) -> Facts:
    columns, rows = packet.get_uint32(), packet.get_uint32()
    packet.get_uint32(), packet.get_uint32()
    return {"columns": columns, "rows": rows}


def _env(packet: SSHPacket) -> Facts:
    return {"name": _text(packet.get_string()), "value": _text(packet.get_string())}


def _exec(packet: SSHPacket) -> Facts:
    command = packet.get_string()
    if b"\0" in command:
        raise Malformed("exec: a command cannot hold NUL")
    shown = command.decode("utf-8", "backslashreplace")
    # What is not UTF-8 cannot be shown to policy as text without loss, so it is shown whole as well.
    exact = (
        {} if shown.encode("utf-8", "replace") == command else {"command_base64": base64.b64encode(command).decode()}
    )
    return {"command": shown, **exact}


def _name(packet: SSHPacket) -> Facts:
    return {"name": _text(packet.get_string())}


def _break(packet: SSHPacket) -> Facts:
    return {"milliseconds": packet.get_uint32()}


def _direct_tcpip(packet: SSHPacket) -> Facts:
    host, port = _text(packet.get_string()), packet.get_uint32()
    originator, originator_port = _text(packet.get_string()), packet.get_uint32()
    if not 0 < port < 65536:
        raise Malformed(f"direct-tcpip: port {port} is not a TCP port")
    return {"host": host, "port": port, "originator_host": originator, "originator_port": originator_port}


def _direct_streamlocal(packet: SSHPacket) -> Facts:
    path = _text(packet.get_string())
    packet.get_string(), packet.get_uint32()  # reserved
    return {"path": path}


def _tcpip_forward(packet: SSHPacket) -> Facts:
    host, port = _text(packet.get_string()), packet.get_uint32()
    if port > 65535:
        raise Malformed(f"port {port} is not a TCP port")
    return {"host": host, "port": port}


def _forwarded_tcpip(packet: SSHPacket) -> Facts:
    return {**_tcpip_forward(packet), **_originator(packet)}


def _forwarded_streamlocal(packet: SSHPacket) -> Facts:
    path = _text(packet.get_string())
    packet.get_string()  # reserved
    return {"path": path}


def _originator(packet: SSHPacket) -> Facts:
    host = _text(packet.get_string())
    if printable(host) != host or len(host) > 255:
        raise Malformed("an originator that is no address")
    return {"originator_host": host, "originator_port": packet.get_uint32()}


def _x11_req(packet: SSHPacket) -> Facts:
    """Everything but the cookie, which is a secret of the client's display: nobody needs to see it to judge."""
    single, protocol, cookie = packet.get_boolean(), _text(packet.get_string()), packet.get_string()
    if len(cookie) % 2 or not re.fullmatch(rb"[0-9A-Fa-f]+", cookie):
        raise Malformed("x11-req: the cookie is not hexadecimal")
    return {"single_connection": single, "auth_protocol": protocol, "screen": packet.get_uint32()}


def _path(packet: SSHPacket) -> Facts:
    return {"path": _text(packet.get_string())}


def _text(value: bytes) -> str:
    """Text that is judged as it is passed on: what UTF-8 cannot show, or NUL would cut short, is not accepted."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("not UTF-8") from error
    if "\0" in text:
        raise Malformed("text cannot hold NUL")
    return text


PARSERS: dict[str, Callable[[SSHPacket], Facts]] = {
    "session": _nothing,
    "pty-req": _pty_req,
    "env": _env,
    "shell": _nothing,
    "exec": _exec,
    "subsystem": _name,
    "window-change": _window_change,
    "signal": _name,
    "break": _break,
    "eow@openssh.com": _nothing,
    "direct-tcpip": _direct_tcpip,
    "direct-streamlocal@openssh.com": _direct_streamlocal,
    "tcpip-forward": _tcpip_forward,
    "cancel-tcpip-forward": _tcpip_forward,
    "streamlocal-forward@openssh.com": _path,
    "cancel-streamlocal-forward@openssh.com": _path,
    "x11-req": _x11_req,
    "auth-agent-req@openssh.com": _nothing,
}

ARRIVALS: dict[str, Callable[[SSHPacket], Facts]] = {
    "forwarded-tcpip": _forwarded_tcpip,
    "forwarded-streamlocal@openssh.com": _forwarded_streamlocal,
    "x11": _originator,
    "auth-agent@openssh.com": _nothing,
}
"""What a workspace may open, for a listener that was granted."""

LISTENS = frozenset({"tcpip-forward", "streamlocal-forward@openssh.com"})
"""The global requests that make a listener: each may be a connection's first and only wish (`ssh -N -R`)."""
CANCELS = {
    "cancel-tcpip-forward": "tcpip-forward",
    "cancel-streamlocal-forward@openssh.com": "streamlocal-forward@openssh.com",
}
LISTENER_OF = {
    "forwarded-tcpip": "tcpip-forward",
    "forwarded-streamlocal@openssh.com": "streamlocal-forward@openssh.com",
}
"""What was asked for where such a channel comes from."""
CALLBACKS = {"x11-req": "x11", "auth-agent-req@openssh.com": "auth-agent@openssh.com"}
"""The channel requests that let a program call back, and the kind of channel that it then comes with."""

ORIGINAL_COMMAND = "SSH_ORIGINAL_COMMAND"
"""Where a forced command finds what was asked for (sshd_config(5), ForceCommand)."""


def original_command(name: str, payload: bytes) -> bytes | None:
    """What sshd would say there of a request that starts a program: nothing of a shell, the server of a subsystem."""
    match name:
        case "exec":
            return SSHPacket(payload).get_string()
        case "subsystem":
            asked = SSHPacket(payload).get_string()
            return b"internal-sftp" if asked == b"sftp" else asked
    return None


SUBSYSTEMS = frozenset({"sftp"})
"""Those there are; another is not known here, whatever policy says of it."""
STARTS = frozenset({"shell", "exec", "subsystem"})
"""The requests that start a program (RFC 4254 section 6.5): one per channel, and where a refusal can be shown."""
