"""Channel to channel, request to request: bytes both ways, binary-safe, half-close kept, stderr apart.

A `Lane` is one channel of the engineer and its counterpart in the workspace.  Bytes of one side are let out only when
the other side's channel is confirmed, and each side is read only as fast as the other can be written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket

from gateway.ssh.filters import Filter
from gateway.ssh.raw import STDERR, RawChannel
from gateway.words import printable

FROM_AGENT = frozenset({"exit-status", "exit-signal", "xon-xoff", "eow@openssh.com"})
"""All that a program's side may ask on a channel (RFC 4254 sections 6.8 and 6.10, OpenSSH's PROTOCOL 2.1)."""
ONCE = frozenset({"exit-status", "exit-signal", "eow@openssh.com"})
MAX_COMMAND = 500
"""What a lane's record repeats of its command; the whole of it is in the record of its request."""
MAX_LISTED = 1000
"""Lanes listed one by one in a session's record; the rest are summed up."""


@dataclass(slots=True)
class Traffic:
    """What passed on one lane, for the record and for the idle clock."""

    kind: str
    command: str = ""
    """What was asked for."""
    forced_command: str = ""
    """What ran in its place."""
    bytes_in: int = 0
    bytes_out: int = 0
    exit_status: int | None = None
    exit_signal: str = ""
    last: float = field(default_factory=time.monotonic)
    files: Callable[[], Mapping[str, Any]] | None = None  # what happened to them, on a lane of SFTP

    def record(self) -> dict[str, Any]:
        ended: dict[str, Any] = {}
        if self.exit_status is not None:
            ended["exit_status"] = self.exit_status
        if self.exit_signal:
            ended["exit_signal"] = self.exit_signal
        return {
            "kind": self.kind,
            "command": self.command[:MAX_COMMAND],
            **({"forced_command": self.forced_command[:MAX_COMMAND]} if self.forced_command else {}),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            **ended,
            **({"files": self.files()} if self.files is not None else {}),
        }


class End(asyncssh.SSHTCPSession[bytes]):
    """One end of a lane: whatever arrives here leaves at `peer`, or goes into `filter`."""

    def __init__(self, traffic: Traffic, inbound: bool) -> None:
        self._traffic = traffic
        self._inbound = inbound
        self.peer: RawChannel | None = None
        """Where the bytes go, once joined."""
        self.other: RawChannel | None = None
        """What closes with this end before that."""
        self.lost = False
        self.held = False
        """Whether the peer stays paused for another reason than a full buffer."""
        self.full = False
        """Whether this end's own buffer is full, so that the peer is not read."""
        self.busy = False  # the filter wants no more of the peer for now
        self.filter: Filter | None = None

    def connection_made(self, chan: Any) -> None:
        """Confirmed: only now may the far side's bytes out (see `Lane.join`)."""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._traffic.last = time.monotonic()
        if self._inbound:
            self._traffic.bytes_in += len(data)
        else:
            self._traffic.bytes_out += len(data)
        if self.filter is not None:
            self.filter.received(data, datatype)
        elif self.peer is not None and self.peer.is_writable:
            self.peer.write(data, datatype)

    def eof_received(self) -> bool:
        if self.filter is not None:
            self.filter.ended()
        elif self.peer is not None and self.peer.is_open:
            self.peer.write_eof()
        return True

    def pause_writing(self) -> None:
        self.full = True
        if self.peer is not None:
            self.peer.pause_reading()

    def resume_writing(self) -> None:
        self.full = False
        if self.peer is not None and not self.held and not self.busy:
            self.peer.resume_reading()
        if self.filter is not None:
            self.filter.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.filter is not None:
            self.filter.lost()
        if exc is not None and not self._inbound:
            return  # all of the workspace is lost, not this program alone: the story tells why before anything closes
        closes = self.peer or self.other
        if closes is not None:
            closes.close()


class Lane:
    """The two channels of one program or one forward."""

    def __init__(self, kind: str) -> None:
        self.traffic = Traffic(kind)
        self.near_end = End(self.traffic, inbound=True)
        self.far_end = End(self.traffic, inbound=False)
        self.near: RawChannel | None = None
        self.far: RawChannel | None = None
        self._held = False
        self._said: set[str] = set()
        self._early: list[tuple[str, bytes]] | None = []
        """What the program said of its end before its start was confirmed; None once joined."""

    @property
    def gone(self) -> bool:
        return self.near is None or self.near.gone

    async def open_far(self, connection: Any, kind: str, payload: bytes) -> None:
        """Open the workspace's channel.  Raises asyncssh.ChannelOpenError; if the engineer left meanwhile, too."""
        far = RawChannel(connection, self._from_agent)
        try:
            await far.open(kind, payload, self.far_end)
        except asyncssh.ChannelOpenError as error:
            # The agent's words, on an engineer's terminal.
            raise asyncssh.ChannelOpenError(error.code, printable(connection.said_by + error.reason[:200])) from error
        self.far = far
        self.near_end.other = far
        if self.near is None or self.near.gone:
            far.close()
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "connection closed")

    async def open_near(self, connection: Any, payload: bytes) -> None:
        """Open the engineer's channel for one that the workspace opens.  Raises asyncssh.ChannelOpenError."""
        self.near = self.far_end.other = RawChannel(connection, lambda *_: False)
        await self.near.open(self.traffic.kind, payload, self.near_end)

    def join(self) -> None:
        """Both sides are confirmed, and who asked was told so: let the bytes flow."""
        assert self.near is not None
        assert self.far is not None
        self.near_end.peer, self.far_end.peer = self.far, self.near
        if self.near.gone:
            self.far.close()
            return
        early, self._early = self._early or [], None
        for name, payload in early:
            self.near.send_request(name, payload)
        if self.far_end.lost:
            self.near.close()
            return
        if not self.near_end.full:
            self.far.resume_reading()
        self._read_near()

    def filtered(self, near: Filter, far: Filter) -> None:
        """From now on bytes of both ends go through filters, which write to the other side themselves."""
        self.near_end.filter, self.far_end.filter = near, far

    @property
    def is_clear(self) -> bool:
        """Whether there is room on both sides, and nobody holds the engineer's."""
        return not (self._held or self.near_end.full or self.far_end.full)

    def busy(self, busy: bool) -> None:
        """Read no more from the engineer, for a filter that has its hands full; and again when it has not."""
        if busy == self.far_end.busy:
            return
        self.far_end.busy = busy
        if not busy:
            self._read_near()
        elif self.near is not None and not self.near.gone:
            self.near.pause_reading()

    def _read_near(self) -> None:
        stopped = self._held or self.far_end.full or self.far_end.busy or self.near_end.peer is None
        if not stopped and self.near is not None and not self.near.gone:
            self.near.resume_reading()

    def cut(self) -> None:
        """The lane is about to be ended: filters do no more."""
        if self.near_end.filter is not None:
            self.near_end.filter.lost()

    def hold(self) -> None:
        """Read no more from the engineer until `release`."""
        self._held = self.far_end.held = True
        if self.near is not None and not self.near.gone:
            self.near.pause_reading()

    def release(self) -> None:
        self._held = self.far_end.held = False
        self._read_near()
        if self.near_end.filter is not None:
            self.near_end.filter.drained()

    def _from_agent(self, name: str, payload: bytes, _want_reply: bool) -> bool:
        if name not in FROM_AGENT or self.near is None or name in self._said or not self._note(name, payload):
            return False
        if name in ONCE:
            self._said.add(name)
        if self._early is None:
            self.near.send_request(name, payload)
        elif name in ONCE:
            self._early.append((name, payload))
        return True

    def _note(self, name: str, payload: bytes) -> bool:
        """Whether the payload is what its name promises; a client would hang up on one that is not."""
        packet = SSHPacket(payload)
        try:
            match name:
                case "exit-status":
                    self.traffic.exit_status = packet.get_uint32()
                case "exit-signal":
                    signal = packet.get_string().decode("ascii", "backslashreplace")[:64]
                    packet.get_boolean(), packet.get_string(), packet.get_string()
                    self.traffic.exit_signal = signal
                case "xon-xoff":
                    packet.get_boolean()
            packet.check_end()
        except PacketDecodeError:
            self.traffic.exit_signal = "malformed"
            return False
        return True


class Lanes:
    """All lanes of one connection: the open ones, and what is to be remembered of the others."""

    def __init__(self) -> None:
        self._open: list[Lane] = []
        self._listed: list[dict[str, Any]] = []
        self._unlisted = {"kind": "unlisted", "channels": 0, "bytes_in": 0, "bytes_out": 0}
        self._last = time.monotonic()

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._open))

    def add(self, lane: Lane) -> None:
        for gone in [lane for lane in self._open if lane.gone]:
            self._open.remove(gone)
            self._remember(gone.traffic)
        self._open.append(lane)

    def _remember(self, traffic: Traffic) -> None:
        self._last = max(self._last, traffic.last)
        if len(self._listed) < MAX_LISTED:
            self._listed.append(traffic.record())
            return
        for name, more in (("channels", 1), ("bytes_in", traffic.bytes_in), ("bytes_out", traffic.bytes_out)):
            self._unlisted[name] += more  # type: ignore[operator]

    def idle_seconds(self) -> float:
        last = max((lane.traffic.last for lane in self._open), default=self._last)
        return time.monotonic() - max(last, self._last)

    def record(self) -> list[dict[str, Any]]:
        rest = [self._unlisted] if self._unlisted["channels"] else []
        return [*self._listed, *(lane.traffic.record() for lane in self._open), *rest]


def show(channel: RawChannel, text: str, *, terminal: bool, on: int | None = STDERR) -> None:
    """Write lines for a person: on stderr by default, with carriage returns where the client's terminal is raw."""
    if channel.is_writable:
        newline = "\r\n" if terminal else "\n"
        channel.write("".join(f"{printable(line)}{newline}" for line in text.splitlines()).encode(), on)


def finish(channel: RawChannel, status: int) -> None:
    """End a channel as a program would: exit-status (RFC 4254 section 6.10), EOF, close."""
    if channel.is_open:
        channel.send_request("exit-status", status.to_bytes(4, "big"))
        channel.write_eof()
    channel.close()
