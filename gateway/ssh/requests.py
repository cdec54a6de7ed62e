"""Payloads of channel opens and requests as facts for policy: parsed strictly, passed on byte for byte as judged.

RFC 4254 sections 5 to 7, and OpenSSH's PROTOCOL file.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from asyncssh.packet import PacketDecodeError, SSHPacket

Facts = dict[str, Any]


class Malformed(Exception):
    """A payload that is not what its name promises."""


def facts(kind: str, payload: bytes) -> Facts:
    """`{"kind": kind, ...}` as policy sees it.  A kind we do not know has no other facts.  Raises Malformed."""
    packet = SSHPacket(payload)
    parse = PARSERS.get(kind)
    if parse is None:
        return {"kind": kind[:128]}
    try:
        parsed = parse(packet)
        packet.check_end()
    except PacketDecodeError as error:
        raise Malformed(f"{kind}: {error}") from error
    return {"kind": kind, **parsed}


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
    return {"host": _text(packet.get_string()), "port": packet.get_uint32()}


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
}
"""Not here on purpose: `x11-req` and `auth-agent-req@openssh.com`; the first carries a cookie nobody needs to see."""

STARTS = frozenset({"shell", "exec", "subsystem"})
"""The requests that start a program (RFC 4254 section 6.5): one per channel, and where a refusal can be shown."""
