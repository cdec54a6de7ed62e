"""One Docker engine over aiodocker: its client, its errors in our words, its images, its removals."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import aiodocker
import aiohttp
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError
from yarl import URL

from gateway.errors import SettingsError, WorkspaceUnavailable

T = TypeVar("T")
log = logging.getLogger(__name__)
FAULTS = (DockerError, aiohttp.ClientError, OSError, TimeoutError)
ASK_SECONDS = 1.8
"""For a question that an engine in order answers in milliseconds: one that hangs is refused within 2 s."""
END_SECONDS = 10.0
DEFAULT_URL = "unix:///var/run/docker.sock"
_PINNED = re.compile(r"^(?:[^\s@]+@)?sha256:[0-9a-f]{64}$")


def connect(url: str | None) -> aiodocker.Docker:
    """A client; nothing is sent yet, so an engine that is down is found by the session that needs it."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=ASK_SECONDS)
    try:
        docker = aiodocker.Docker(url, timeout=timeout)
    except (AssertionError, ValueError) as error:  # aiodocker asserts that it has found some engine
        if url:
            raise SettingsError(f"backends.docker.url: {error}") from error
        docker = aiodocker.Docker(DEFAULT_URL, timeout=timeout)
    # aiohttp's default of 100 connections would be a limit on sessions, each of which holds two of them; aiodocker
    # leaves no public way to say so without giving up its own reading of contexts and TLS.
    docker.connector._limit = 0
    return docker


def url(docker: aiodocker.Docker, path: str) -> URL:
    """The engine's URL for a request that aiodocker has no word for.  Some request must have been made before."""
    return URL(f"{docker.docker_host}/{docker.api_version}/{path}")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn whatever the engine or the way to it says into WorkspaceUnavailable; the original is its cause."""
    try:
        yield
    except FAULTS as error:
        if isinstance(error, DockerError) and error.status < 900:
            raise WorkspaceUnavailable(f"the container engine {what}") from error
        raise WorkspaceUnavailable(
            "the container engine does not answer",
            remedy="Nothing is wrong with your grant. Tell the platform team; try again when the engine answers.",
        ) from error


async def remove(container: DockerContainer) -> None:
    """Kill and remove; return when it has gone.  One that has gone already, or is just going, is no error."""
    try:
        await container.delete(force=True, v=True)
    except DockerError as error:
        if error.status == 409:  # AutoRemove was faster, and is not done yet
            await wait_removed(container)
        elif error.status != 404:
            raise


async def removed(container: DockerContainer) -> bool:
    """Remove within bounds; whether that worked is said and logged, not raised: closing must not fail to go on."""
    try:
        async with asyncio.timeout(END_SECONDS):
            await remove(container)
    except FAULTS as error:
        log.error("docker_container_not_removed", extra={"container": container.id[:12], "error": str(error)})
        return False
    return True


async def wait_removed(container: DockerContainer) -> None:
    try:
        await container.wait(condition="removed")
    except DockerError as error:
        if error.status != 404:
            raise


@dataclass(frozen=True, slots=True)
class Image:
    """What a container needs to know of an image: its volumes, and its id, so that nothing is swapped in between."""

    id: str
    volumes: Sequence[str]


async def image(docker: aiodocker.Docker, reference: str) -> Image:
    """Find it on the engine.  Raises WorkspaceUnavailable, naming the permit's field, if unpinned or not there."""
    if not _PINNED.match(reference):
        raise WorkspaceUnavailable(
            "the workspace's image is not pinned by digest",
            remedy="In the policy, set workspace.image to name@sha256:<digest> or to an image id sha256:<id>.",
        )
    with translated("refused to look at the workspace's image"):
        try:
            async with asyncio.timeout(ASK_SECONDS):
                found = await docker.images.inspect(reference)
        except DockerError as error:
            if error.status != 404:
                raise
            raise WorkspaceUnavailable(
                "the workspace's image is not on the container engine",
                remedy="Platform team: load the image that the permit's workspace.image names onto the engine.",
            ) from error
    return Image(id=found["Id"], volumes=sorted((found.get("Config") or {}).get("Volumes") or ()))
