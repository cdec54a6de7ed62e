"""A site for tests of SFTP: a small tree of files on this machine's disk, and clients that speak to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from gateway.ssh.sftp.packets import Kind, Packet, Splitter, packet
from tests.ssh.world import ALICE, Site, running, target
from tests.stack.opa import Opa
from tests.waiting import SECONDS, until

SECRET = b"the secret\n"


@dataclass
class Files:
    """`open` may be read and written, `see` read, and `secret` nothing, where there are rules."""

    site: Site
    root: Path

    @property
    def open(self) -> Path:
        return self.root / "open"

    @property
    def see(self) -> Path:
        return self.root / "see"

    @property
    def secret(self) -> Path:
        return self.root / "secret"

    @asynccontextmanager
    async def client(self) -> AsyncIterator[asyncssh.SFTPClient]:
        async with self.site.connect() as connection, connection.start_sftp_client() as client:
            yield client

    async def run(self, program: str, *words: str, stdin: str = "") -> tuple[int, str, str]:
        """A stock client, to its end: status, stdout, stderr."""
        key = self.site.directory / "key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(self.site.keys[ALICE].export_private_key())
        options = (
            "IdentitiesOnly=yes StrictHostKeyChecking=no UserKnownHostsFile=/dev/null BatchMode=yes LogLevel=ERROR"
        )
        process = await asyncio.create_subprocess_exec(
            program, "-F", "none", "-i", str(key), "-P", str(self.site.port),
            *[word for option in options.split() for word in ("-o", option)], *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 90)
        return process.returncode or 0, out.decode(), err.decode()

    async def sftp(self, *commands: str) -> tuple[int, str, str]:
        """OpenSSH's `sftp`, which stops at the first command that fails."""
        return await self.run("sftp", "-q", "-b", "-", f"{ALICE}@127.0.0.1", stdin="\n".join(commands) + "\n")

    def operations(self) -> list[dict[str, Any]]:
        """What is on record by now, in order."""
        return [entry for record in self.site.audit("sftp") for entry in record["operations"]]

    async def all_operations(self) -> list[dict[str, Any]]:
        """All that is on record once the session is over: also what its last record had to bring."""
        await until(lambda: self.site.audit("relay"))
        late = [channel["files"].get("late", []) for channel in self.site.audit("relay")[-1]["channels"]]
        return [*self.operations(), *(entry for entries in late for entry in entries)]

    def asked(self) -> list[dict[str, Any]]:
        """What policy was asked about files, each with its outcome."""
        requests = [(r["input"]["request"], r["outcome"]) for r in self.site.audit("request")]
        return [{**request, "outcome": outcome} for request, outcome in requests if request["kind"] == "sftp"]


@asynccontextmanager
async def serving(
    opa: Opa, directory: Path, *, judged: bool, allow: Any = None, **changes: Any
) -> AsyncIterator[Files]:
    root = directory / "files"
    for name in ("open", "see", "secret"):
        (root / name).mkdir(parents=True)
    (root / "open" / "note").write_bytes(b"a note\n")
    (root / "see" / "note").write_bytes(b"to see\n")
    (root / "secret" / "key").write_bytes(SECRET)
    rules = {"read": [f"{root}/open/**", f"{root}/see/**"], "write": [f"{root}/open/**"]}
    allowed = {"sftp": rules if judged else True, "shell": False, "exec": False, **(allow or {})}
    its = target(home=str(root / "open"), allow=allowed)
    async with running(opa, directory, targets={"files": its}, **changes) as site:
        yield Files(site, root)
        await site.nothing_left()


class Wire:
    """SFTP packet by packet, over a channel of its own."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self.process = process
        self._splitter = Splitter()

    @classmethod
    @asynccontextmanager
    async def opened(cls, files: Files, *, greet: bool = True) -> AsyncIterator[Wire]:
        async with files.site.connect() as connection:
            process: Any = await connection.create_process(subsystem="sftp", encoding=None)
            wire = cls(process)
            if greet:
                wire.send(packet(Kind.INIT, 3))
                assert (await wire.receive()).kind is Kind.VERSION
            yield wire

    def send(self, *data: bytes) -> None:
        self.process.stdin.write(b"".join(data))

    async def receive(self) -> Packet:
        while (found := self._splitter.next()) is None:
            data = await asyncio.wait_for(self.process.stdout.read(65536), SECONDS)
            assert data, "the channel has ended"
            self._splitter.feed(data)
        return found

    async def ended(self) -> tuple[int | None, bytes]:
        """The exit status, and what was said on stderr."""
        done = await asyncio.wait_for(self.process.wait(), SECONDS)
        return done.exit_status, bytes(done.stderr)  # type: ignore[arg-type]
