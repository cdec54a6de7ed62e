"""The yardstick: asyncssh and aiodocker, a container for each command, and nothing else.

No policy, no credentials, no record, no limits.  Written as one would write it who wants it short and fast:
`python -m bench.bare ENGINE IMAGE HOST_KEY AUTHORIZED_KEYS`.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any

import aiodocker
import asyncssh
import uvloop
from aiodocker.stream import Stream

STDERR = 2


async def run(docker: aiodocker.Docker, image: str, process: asyncssh.SSHServerProcess[bytes]) -> None:
    """One command: create, attach, start, pump, status, remove."""
    container = await docker.containers.create(
        {
            "Image": image,
            "Cmd": ["sh", "-c", process.command or "sh"],
            **dict.fromkeys(("OpenStdin", "StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr"), True),
            "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}},
        }
    )
    async with container.attach(stdin=True, stdout=True, stderr=True) as stream:
        await container.start()
        feeding = asyncio.ensure_future(feed(process, stream))
        while message := await stream.read_out():
            out = process.stderr if message.stream == STDERR else process.stdout
            out.write(message.data)
            await out.drain()
        status = (await container.wait())["StatusCode"]
        feeding.cancel()
    process.exit(status)
    await container.delete(force=True)


async def feed(process: asyncssh.SSHServerProcess[bytes], stream: Stream) -> None:
    while data := await process.stdin.read(65536):
        await stream.write_in(data)
    connection: Any = stream._resp and stream._resp.connection
    connection.transport.write_eof()  # `stream.close()` would close the other direction as well


async def serve(engine: str, image: str, host_key: str, authorized_keys: str) -> None:
    async with aiodocker.Docker(engine) as docker:
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host_key],
            authorized_client_keys=authorized_keys,
            process_factory=partial(run, docker, image),
            encoding=None,
        )
        print(f"ready on {server.get_port()}", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(*sys.argv[1:]))
