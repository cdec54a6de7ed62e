"""The stock client against a gateway in this process."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.ssh.world import ALICE, Site
from tests.waiting import until

SECONDS = 30
X_CLIENT = Path(__file__).with_name("xclient.sh").read_text()


class OpenSSH:
    """`ssh` as Alice."""

    def __init__(self, site: Site, directory: Path) -> None:
        self._site = site
        self._directory = directory
        self._key = directory / "alice.key"
        self._key.touch(mode=0o600)
        self._key.write_bytes(site.keys[ALICE].export_private_key())

    def command(self, *words: str, options: tuple[str, ...] = ()) -> list[str]:
        settings = (
            "IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes",
            "LogLevel=INFO",
        )  # fmt: skip
        named = [word for setting in settings for word in ("-o", setting)]
        port = str(self._site.port)
        return ["ssh", "-F", "none", "-i", str(self._key), "-p", port, *options, *named, f"{ALICE}@127.0.0.1", *words]

    async def run(
        self, *words: str, options: tuple[str, ...] = (), env: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Run to the end: status, stdout, stderr."""
        async with self.started(*words, options=options, env=env) as client:
            assert client.process.stdin is not None
            client.process.stdin.close()
            return await client.end()

    @asynccontextmanager
    async def started(
        self, *words: str, options: tuple[str, ...] = (), env: Mapping[str, str] | None = None
    ) -> AsyncIterator[Client]:
        process = await asyncio.create_subprocess_exec(
            *self.command(*words, options=options), stdin=PIPE, stdout=PIPE, stderr=PIPE, env=env
        )
        client = Client(process)
        try:
            yield client
        finally:
            await client.stop()

    @asynccontextmanager
    async def master(self, *options: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Master]:
        """A connection without a program, that others use and that can be told things."""
        path = self._directory / "mux"
        async with self.started(options=("-M", "-N", "-S", str(path), *options), env=env) as client:
            await until(lambda: path.exists() or client.process.returncode is not None, SECONDS)
            yield Master(self, client, path)


class Client:
    """A running `ssh`."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._reading = [
            asyncio.ensure_future(_collect(stream, into))
            for stream, into in ((process.stdout, self.stdout), (process.stderr, self.stderr))
        ]

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())

    async def says(self, text: str) -> str:
        """Wait until `text` is in what it wrote; all of its lines that hold it."""
        found = await until(lambda: [line for line in self.seen.splitlines() if text in line], SECONDS)
        return "\n".join(found)

    @property
    def seen(self) -> str:
        return (self.stdout + self.stderr).decode(errors="replace")

    async def end(self) -> tuple[int, str, str]:
        status = await asyncio.wait_for(self.process.wait(), SECONDS)
        await asyncio.wait(self._reading)
        return status, self.stdout.decode(), self.stderr.decode()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await asyncio.wait(self._reading)


class Master:
    """A connection that can be told to forward more, or less."""

    def __init__(self, ssh: OpenSSH, client: Client, path: Path) -> None:
        self._ssh = ssh
        self._path = path
        self.client = client

    async def tell(self, word: str, *options: str) -> tuple[int, str]:
        """`ssh -O word`: status, and what it said."""
        command = self._ssh.command(options=("-S", str(self._path), "-O", word, *options))
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
        out, err = await asyncio.wait_for(process.communicate(), SECONDS)
        assert process.returncode is not None
        return process.returncode, (out + err).decode()

    async def run(
        self, *words: str, options: tuple[str, ...] = (), env: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        return await self._ssh.run(*words, options=("-S", str(self._path), *options), env=env)


async def _collect(stream: asyncio.StreamReader | None, into: bytearray) -> None:
    assert stream is not None
    while data := await stream.read(65536):
        into += data


# -- somebody to talk to ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def answering() -> AsyncIterator[int]:
    """A port that answers with what it read, backwards, after the end of input: half-close has to be kept."""
    async with asyncio.timeout(120):
        server = await asyncio.start_server(reverse, "127.0.0.1", 0, backlog=300)
        async with server:
            yield server.sockets[0].getsockname()[1]


async def reverse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.read())[::-1])
    await writer.drain()
    writer.close()


async def reversed_by(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    try:
        writer.write(data)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


class KeyAgent:
    """An `ssh-agent` with one key, as an environment."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "keys"
        self._key = directory / "held"

    def __enter__(self) -> dict[str, str]:
        self._process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(self._socket)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key)]
        subprocess.run(keygen, check=True)
        env = {**os.environ, "SSH_AUTH_SOCK": str(self._socket)}
        for _ in range(1000):
            added = subprocess.run(["ssh-add", "-q", str(self._key)], env=env, check=False, capture_output=True)
            if added.returncode == 0:
                return env
        raise AssertionError(added.stderr)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)


@asynccontextmanager
async def x_server() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A display that takes down how its clients introduce themselves, and says hello."""
    seen: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        introduced = await reader.read(48)
        while introduced and len(introduced) < 48:
            introduced += await reader.readexactly(48 - len(introduced))
        if introduced:
            seen.append(introduced)
            writer.write(b"hello\n")
        writer.close()

    for display in range(50, 90):
        try:
            server = await asyncio.start_server(greet, "127.0.0.1", 6000 + display)
        except OSError:
            continue
        async with server:
            yield f"127.0.0.1:{display}", seen
        return
    raise AssertionError("no display is free")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
