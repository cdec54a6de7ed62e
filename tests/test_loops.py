"""A TLS connection that is cancelled while it is made leaves nothing behind, and nothing in the log."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.loops import Loop
from tests.policy.test_opa import certificates

SECONDS = 30
BEFORE_THE_HANDSHAKE: dict[type[asyncio.AbstractEventLoop], int] = {uvloop.Loop: 2, Loop: 3}
"""The turn of the loop in which the client's hello has gone out, and its task has not heard of it."""


class TlsServer:
    """Shakes hands with whoever comes, and waits for their end, in threads: its answers come while the loop is busy."""

    def __init__(self, directory: Path) -> None:
        authority, cert, key = certificates(directory)
        self.client = ssl.create_default_context(cafile=str(authority))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert, key)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.ended = threading.Semaphore(0)
        threading.Thread(target=self._serve, daemon=True).start()

    def connected(self) -> socket.socket:
        client = socket.create_connection(self._socket.getsockname())
        client.setblocking(False)
        return client

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._hear, args=(one,), daemon=True).start()

    def _hear(self, one: socket.socket) -> None:
        try:
            with self._context.wrap_socket(one, server_side=True) as secured:
                secured.recv(1)
        except OSError:
            pass  # cut off in the middle, as many of them are here
        finally:
            one.close()
            self.ended.release()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    running = TlsServer(tmp_path_factory.mktemp("tls"))
    yield running
    running.close()


async def cancelled(server: TlsServer, turns: int) -> list[str]:
    """Begin a connection, cancel it after some turns of the loop, and tell what the loop complained of."""
    loop = asyncio.get_running_loop()
    said: list[str] = []
    loop.set_exception_handler(lambda _loop, context: said.append(f"{context['message']}: {context.get('exception')}"))
    client = server.connected()
    task = asyncio.ensure_future(
        loop.create_connection(asyncio.Protocol, sock=client, ssl=server.client, server_hostname="127.0.0.1")
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    if turns >= BEFORE_THE_HANDSHAKE[type(loop)] and not task.done():
        # A busy loop: the whole of the server's answer is there before the next turn, unless it was heard before.
        select.select([client], [], [], 1)
    task.cancel()
    (made,) = await asyncio.gather(task, return_exceptions=True)
    if not isinstance(made, BaseException):
        made[0].abort()
    assert await asyncio.to_thread(server.ended.acquire, timeout=SECONDS), "the connection stayed open"
    return said


def run_on(kind: type[uvloop.Loop], server: TlsServer, turns: int) -> Any:
    with asyncio.Runner(loop_factory=kind) as runner:
        return runner.run(cancelled(server, turns))


@pytest.mark.parametrize("turns", range(1, 8))
def test_a_cancelled_connection_is_closed_and_not_complained_of(server: TlsServer, turns: int) -> None:
    assert run_on(Loop, server, turns) == []


def test_uvloop_s_own_still_needs_mending(server: TlsServer) -> None:
    """When this fails, uvloop has been mended, and gateway/loops.py can go."""
    said = []
    for turns in range(1, 8):
        said += run_on(uvloop.Loop, server, turns)
    assert any("Fatal error on SSL protocol" in one and "the handler is closed" in one for one in said)
