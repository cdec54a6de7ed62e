"""Docker's attach stream as an asyncio transport: eight-byte frame heads inward, plain bytes outward."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError

from gateway.backends.docker.engine import url
from gateway.backends.upgraded import Frames, take_over

HEADER = struct.Struct(">BxxxL")
STDOUT = 1
STREAMS = 3  # stdin, stdout, stderr, and the engine's own complaints


async def attach(docker: aiodocker.Docker, container: str) -> Attachment:
    """Attach to all three streams of a container.  Raises DockerError, aiohttp's errors and OSError."""
    response = await docker.session.post(
        url(docker, f"containers/{container}/attach"),
        params={"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1"},
        headers={"Connection": "Upgrade", "Upgrade": "tcp"},
        timeout=aiohttp.ClientTimeout(total=None),
        read_until_eof=False,
    )
    if response.status != 101:
        response.close()
        raise DockerError(response.status, "attach did not upgrade the connection")
    return take_over(response, lambda transport, lost: Attachment(transport, container[:12], lost))


class Attachment(Frames):
    """Docker's frames (https://docs.docker.com/reference/api/engine/, "Attach to a container")."""

    def __init__(self, transport: asyncio.Transport, name: str, lost: Callable[[Exception | None], None]) -> None:
        super().__init__(transport, name, lost)
        self._spoke = asyncio.Event()
        self.on_lost = self._spoke.set

    def head_bytes(self, head: bytearray) -> int:
        return HEADER.size

    def begin(self, head: bytes) -> tuple[Callable[[bytes], None], int]:
        stream, length = HEADER.unpack(head)
        if stream > STREAMS:
            raise ValueError(f"no stream has the number {stream}")
        return self.stdout if stream == STDOUT else self.stderr, length

    def stdout(self, data: bytes) -> None:
        if self._inner is None:
            self._spoke.set()
        super().stdout(data)

    async def first_word(self) -> None:
        """Read from now on; return when something came that nobody was there for (it is dropped), or nothing will."""
        self.resume()
        await self._spoke.wait()

    def when_lost(self, do: Callable[[], None]) -> None:
        self.on_lost = do
        if self.is_lost:
            do()
