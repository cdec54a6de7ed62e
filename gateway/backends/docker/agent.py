"""The agent on a Docker engine: a named volume for each version of it, mounted read-only into every workspace."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import aiodocker
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError

from gateway.backends.docker.engine import ASK_SECONDS, removed, translated, wait_removed
from gateway.concurrency import to_the_end
from gateway.errors import WorkspaceUnavailable

FILL_SECONDS = 10.0
AGENT_DIR = "/.doorward"
AGENT_NAME = "doorward-agent"


class AgentVolume:
    """The named volume that holds the agent, one per version of it, filled and verified once per process."""

    def __init__(self, docker: aiodocker.Docker, binary: Path) -> None:
        self._docker = docker
        self._binary = binary
        self._filling = asyncio.Lock()
        self._verified: tuple[str, str] | None = None  # name, and when it was made: a pruned one is another one

    @property
    def version(self) -> str:
        """Of what `ready` gave last: another one when the volume was filled anew since."""
        return ":".join(self._verified or ())

    async def ready(self, image_id: str) -> str:
        """The volume's name, once it holds the agent and nothing but that.  Raises WorkspaceUnavailable."""
        async with self._filling:
            if self._verified is None or await self._made(self._verified[0]) != self._verified[1]:
                with translated("could not take in the agent"):
                    name = await to_the_end(self._fill(image_id))
                    self._verified = name, await self._made(name)
            return self._verified[0]

    async def _made(self, name: str) -> str:
        with translated("refused to look at the agent's volume"):
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    return str((await self._docker._query_json(f"volumes/{name}"))["CreatedAt"])
            except DockerError as error:
                if error.status == 404:
                    return ""
                raise

    async def _fill(self, image_id: str) -> str:
        binary = await asyncio.to_thread(self._read)
        digest = hashlib.sha256(binary).hexdigest()
        name = f"doorward-agent-{digest[:12]}"
        async with asyncio.timeout(FILL_SECONDS * 2):
            carrier = await self._carrier(name, image_id)
            try:
                if await self._content(carrier) != digest:
                    await carrier.put_archive(AGENT_DIR, as_archive(binary))  # type: ignore[no-untyped-call]
                    if await self._content(carrier) != digest:
                        raise WorkspaceUnavailable("the agent's volume does not hold what was put into it")
            finally:
                await removed(carrier)
        return name

    def _read(self) -> bytes:
        try:
            return self._binary.read_bytes()
        except OSError as error:
            raise WorkspaceUnavailable(
                "the workspace agent's binary cannot be read",
                remedy="Platform team: build the agent, or name it in backends.docker.agent.",
            ) from error

    async def _carrier(self, name: str, image_id: str) -> DockerContainer:
        """A container, never started, through which the volume is read and written.

        Its name is the lock among all gateways on the engine: a volume that is being rewritten while a workspace
        starts would give that one half an agent.  One left behind by a gateway that died is removed after a while.
        """
        config: dict[str, Any] = {
            "Image": image_id,
            "Entrypoint": [f"{AGENT_DIR}/{AGENT_NAME}"],
            "User": "0:0",  # Podman shows what is in there as owned by the container's user
            "HostConfig": {
                "NetworkMode": "none",
                "Mounts": [{"Type": "volume", "Source": name, "Target": AGENT_DIR, "VolumeOptions": {"NoCopy": True}}],
            },
        }
        while True:
            try:
                return await self._docker.containers.create(config, name=f"{name}-fill")
            except DockerError as error:
                if error.status != 409 and "already in use" not in error.message:  # Podman before 5 says 500
                    raise
            await self._wait_for_other_filler(f"{name}-fill")

    async def _wait_for_other_filler(self, name: str) -> None:
        try:
            other = await self._docker.containers.get(name)
        except DockerError as error:
            if error.status == 404:
                return
            raise
        try:
            async with asyncio.timeout(FILL_SECONDS):
                await wait_removed(other)
        except TimeoutError:
            await removed(other)  # by id: never the next filler's

    @staticmethod
    async def _content(carrier: DockerContainer) -> str:
        """The digest of what is there; empty when that is not a file that everyone may run and only root may change."""
        try:
            archive = await carrier.get_archive(f"{AGENT_DIR}/{AGENT_NAME}")
        except DockerError as error:
            if error.status == 404:
                return ""
            raise
        member = archive.next()
        file = archive.extractfile(member) if member else None
        if member is None or file is None or member.mode & 0o777 != 0o755 or member.uid != 0:
            return ""
        return hashlib.sha256(file.read()).hexdigest()


def as_archive(binary: bytes) -> io.BytesIO:
    member = tarfile.TarInfo(AGENT_NAME)
    member.size, member.mode = len(binary), 0o755
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(member, io.BytesIO(binary))
    buffer.seek(0)
    return buffer
