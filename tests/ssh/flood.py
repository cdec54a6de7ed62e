"""An agent, in a process of its own, that floods its gateway: `python -m tests.ssh.flood KIND FD`."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import asyncssh
from asyncssh.packet import Boolean, String, UInt32

FLOODS: dict[str, Any] = {
    "ignored packets": lambda conn, _chan: conn.send_packet(2, String(b"")),
    "debug messages": lambda conn, _chan: conn.send_packet(4, Boolean(True) + String("x") + String("")),
    "unknown packets": lambda conn, _chan: conn.send_packet(200, b"x"),
    "channel requests": lambda conn, chan: conn.send_packet(98, UInt32(chan) + String("xon-xoff") + Boolean(False)),
    "global requests": lambda conn, _chan: conn.send_packet(80, String("x") + Boolean(True)),
    "channel opens": lambda conn, _chan: conn.send_packet(90, String("x") + UInt32(9) + UInt32(1) + UInt32(99)),
    "window adjusts": lambda conn, chan: conn.send_packet(93, UInt32(chan) + UInt32(0)),
    "empty data": lambda conn, chan: conn.send_packet(94, UInt32(chan) + String(b"")),
    "key exchanges": None,
    "silence": None,
}


class Agent(asyncssh.SSHServer):
    def connection_made(self, conn: Any) -> None:
        self.conn = conn
        conn._process_setup_at_doorward_global_request = lambda _packet: conn._report_global_response(True)

    def begin_auth(self, _username: str) -> bool:
        return False

    def session_requested(self) -> Any:
        return Session(self.conn)


class Session(asyncssh.SSHServerSession[bytes]):
    def __init__(self, conn: Any) -> None:
        self.conn = conn

    def connection_made(self, chan: Any) -> None:
        self.chan = chan

    def exec_requested(self, _command: str) -> bool:
        return True

    def session_started(self) -> None:
        self.conn.create_task(self.flood())

    async def flood(self) -> None:
        one = FLOODS[sys.argv[1]]
        if sys.argv[1] == "key exchanges":
            self.conn._rekey_bytes = 1
            one = FLOODS["ignored packets"]
        if one is None:
            return
        transport = self.conn._transport
        while not transport.is_closing():
            for _ in range(100):
                one(self.conn, self.chan._send_chan)
            await asyncio.sleep(0.001 if transport.get_write_buffer_size() > 2**20 else 0)


async def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[2]))
    sock.setblocking(False)
    key = asyncssh.generate_private_key("ssh-ed25519")
    connection = await asyncssh.run_server(sock, server_factory=Agent, server_host_keys=[key], config=[])
    await connection.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
