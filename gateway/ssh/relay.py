"""Channel to channel, request to request: bytes both ways, binary-safe, half-close kept, stderr apart.

A `Lane` is one channel of the engineer and its counterpart in the workspace.  Bytes of one side are let out only when
the other side's channel is confirmed, and each side is read only as fast as the other can be written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket

from gateway.ssh.raw import STDERR, RawChannel

FROM_AGENT = frozenset({"exit-status", "exit-signal", "xon-xoff", "eow@openssh.com"})
"""All that a program's side may ask on a channel (RFC 4254 sections 6.8 and 6.10, OpenSSH's PROTOCOL 2.1)."""


@dataclass(slots=True)
class Traffic:
    """What passed on one lane, for the record and for the idle clock."""

    kind: str
    command: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    exit_status: int | None = None
    exit_signal: str = ""
    last: float = field(default_factory=time.monotonic)

    def record(self) -> dict[str, Any]:
        ended: dict[str, Any] = {}
        if self.exit_status is not None:
            ended["exit_status"] = self.exit_status
        if self.exit_signal:
            ended["exit_signal"] = self.exit_signal
        return {
            "kind": self.kind,
            "command": self.command,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            **ended,
        }


class End(asyncssh.SSHTCPSession[bytes]):
    """One end of a lane: whatever arrives here leaves at `peer`."""

    def __init__(self, traffic: Traffic, inbound: bool) -> None:
        self._traffic = traffic
        self._inbound = inbound
        self.peer: RawChannel | None = None
        self.held = False
        """Whether the peer stays paused for another reason than a full buffer."""

    def connection_made(self, chan: Any) -> None:
        """Confirmed: only now may the far side's bytes out (see `Lane.join`)."""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._traffic.last = time.monotonic()
        if self._inbound:
            self._traffic.bytes_in += len(data)
        else:
            self._traffic.bytes_out += len(data)
        if self.peer is not None and self.peer.is_open:
            self.peer.write(data, datatype)

    def eof_received(self) -> bool:
        if self.peer is not None and self.peer.is_open:
            self.peer.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and not self.held:
            self.peer.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None:
            self.peer.close()


class Lane:
    """The two channels of one program or one forward."""

    def __init__(self, kind: str) -> None:
        self.traffic = Traffic(kind)
        self.near_end = End(self.traffic, inbound=True)
        self.far_end = End(self.traffic, inbound=False)
        self.near: RawChannel | None = None
        self.far: RawChannel | None = None
        self._held = False

    async def open_far(self, connection: Any, kind: str, payload: bytes) -> None:
        """Open the workspace's channel.  Raises asyncssh.ChannelOpenError; if the engineer left meanwhile, too."""
        far = RawChannel(connection, self._from_agent)
        await far.open(kind, payload, self.far_end)
        self.far = far
        if self.near is None or self.near.gone:
            far.close()
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "connection closed")

    def join(self) -> None:
        """Both sides are confirmed: let the bytes flow."""
        assert self.near is not None
        assert self.far is not None
        self.near_end.peer, self.far_end.peer = self.far, self.near
        if self.near.gone:
            self.far.close()
            return
        self.far.resume_reading()
        if not self._held:
            self.near.resume_reading()

    def hold(self) -> None:
        """Read no more from the engineer until `release`."""
        self._held = self.far_end.held = True
        if self.near is not None and not self.near.gone:
            self.near.pause_reading()

    def release(self) -> None:
        self._held = self.far_end.held = False
        if self.near is not None and not self.near.gone and self.near_end.peer is not None:
            self.near.resume_reading()

    def _from_agent(self, name: str, payload: bytes, _want_reply: bool) -> bool:
        if name not in FROM_AGENT or self.near is None:
            return False
        self._note_exit(name, payload)
        self.near.send_request(name, payload)
        return True

    def _note_exit(self, name: str, payload: bytes) -> None:
        try:
            if name == "exit-status":
                self.traffic.exit_status = SSHPacket(payload).get_uint32()
            elif name == "exit-signal":
                self.traffic.exit_signal = SSHPacket(payload).get_string().decode("ascii", "backslashreplace")
        except PacketDecodeError:
            self.traffic.exit_signal = "malformed"


def show(channel: RawChannel, text: str, *, terminal: bool) -> None:
    """Write lines for a person: on stderr, and with carriage returns where the client's terminal is raw."""
    if channel.is_open:
        newline = "\r\n" if terminal else "\n"
        channel.write("".join(f"{line}{newline}" for line in text.splitlines()).encode(), STDERR)


def finish(channel: RawChannel, status: int) -> None:
    """End a channel as a program would: exit-status (RFC 4254 section 6.10), EOF, close."""
    if channel.is_open:
        channel.send_request("exit-status", status.to_bytes(4, "big"))
        channel.write_eof()
    channel.close()
