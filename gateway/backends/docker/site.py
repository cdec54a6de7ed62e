"""What an engine is, and what it can run: asked and tried, since Podman answers in Docker's words and means others."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiodocker

from gateway.backends import Order
from gateway.backends.docker.agent import AgentVolume
from gateway.backends.docker.engine import ASK_SECONDS, image, removed, translated
from gateway.backends.docker.spec import Site, container
from gateway.concurrency import to_the_end
from gateway.errors import SettingsError, WorkspaceUnavailable
from gateway.model import Holder, SessionId, WorkspaceSpec

PODMAN = "Podman Engine"
TRY_SECONDS = 30.0
"""A first start under a runtime of its own kind may take that long."""
TRIAL = Holder(SessionId("check"), "check", "check", "check", f"00-{'0' * 31}1-{'0' * 15}1-00")


class Engine:
    """One engine as the containers of one gateway see it."""

    def __init__(self, docker: aiodocker.Docker, instance: str, profile: Path | None, runtime: str | None) -> None:
        """Raises SettingsError for a seccomp profile that is none."""
        self._docker = docker
        self._instance = instance
        self._profile = profile
        self._json = _json(profile) if profile else None
        self._runtime = runtime
        self._site: Site | None = None
        self._has_tried = False

    async def site(self) -> Site:
        """Asked for once: an engine may be down when the gateway starts.  Raises WorkspaceUnavailable."""
        if self._site is None:
            with translated("refused to tell its version"):
                async with asyncio.timeout(ASK_SECONDS):
                    version = await self._docker.version()
            is_podman = any(part["Name"] == PODMAN for part in version.get("Components") or ())
            # Podman reads the profile itself, as a file on its own machine.
            seccomp = str(self._profile) if is_podman and self._profile else self._json
            self._site = Site(self._instance, seccomp, self._runtime, is_podman)
        return self._site

    async def check(self) -> None:
        """That the engine answers and knows the runtime.  Raises WorkspaceUnavailable."""
        with translated("refused to tell what it has"):
            async with asyncio.timeout(ASK_SECONDS):
                has = (await self._docker.system.info()).get("Runtimes") or {}
        if self._runtime is not None and self._runtime not in has:
            raise WorkspaceUnavailable(
                f"the container engine has no runtime {self._runtime!r}; it has {', '.join(sorted(has))}",
                remedy="Install it on the engine's machine and name it in the engine's configuration, "
                "or correct backends.docker.runtime.",
            )

    async def try_once(self, agent: AgentVolume, spec: WorkspaceSpec) -> None:
        """Start a container as a workspace would be, to print the agent's version; once that went well, never again.

        A runtime that is named may not be there, or not run here (Kata needs /dev/kvm); a profile may not be on
        Podman's machine; a kernel may lack a limit.  Raises WorkspaceUnavailable with what the engine said.
        """
        if self._has_tried:
            return
        found = await image(self._docker, spec.image)
        order = Order(spec, TRIAL, datetime.now(UTC) + timedelta(seconds=TRY_SECONDS))
        config = container(order, found, await agent.ready(found.id), await self.site())
        config |= {"Cmd": ["--version"], "OpenStdin": False, "StdinOnce": False}
        config["HostConfig"]["AutoRemove"] = False
        under = f" under the runtime {self._runtime!r}" if self._runtime else ""
        with translated(f"cannot run a workspace{under}"):
            status = await to_the_end(self._run(config))
        if status != 0:
            raise WorkspaceUnavailable(f"the agent does not run in a workspace{under}: it ended with status {status}")
        self._has_tried = True

    async def _run(self, config: dict[str, Any]) -> int:
        async with asyncio.timeout(TRY_SECONDS):
            created = await self._docker.containers.create(config)
            try:
                await created.start()
                return int((await created.wait())["StatusCode"])
            finally:
                await removed(created)


def _json(path: Path) -> str:
    try:
        return json.dumps(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"backends.docker.seccomp_profile: {path} cannot be used: {error}") from error
