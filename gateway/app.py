"""The composition root: the only file that names every concrete class."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import asyncssh

from gateway import assets
from gateway.audit.journal import Journal
from gateway.audit.log import AuditLog
from gateway.backends import Backend
from gateway.concurrency import background
from gateway.credentials import Issuer
from gateway.door.admin import Admin
from gateway.door.grants import GrantsDoor
from gateway.door.lint import Lint
from gateway.errors import SettingsError, WorkspaceUnavailable
from gateway.front import Front
from gateway.live import Live
from gateway.policy import Policy
from gateway.policy.opa import Opa
from gateway.session import Sessions
from gateway.settings import EmbeddedIssuerSettings, Settings
from gateway.ssh.agent import connected
from gateway.telemetry import tracing

log = logging.getLogger(__name__)

REAP_SECONDS = 30.0


class Gateway:
    """A running gateway: where it listens, and how it is asked to stop."""

    def __init__(self, ssh: tuple[str, int], door: tuple[str, int] | None, fingerprints: list[str], live: Live) -> None:
        self.ssh = ssh
        self.door = door
        self.fingerprints = fingerprints
        self.live = live


@asynccontextmanager
async def gateway(settings: Settings, *, more_backends: Sequence[Backend] = ()) -> AsyncIterator[Gateway]:
    """Everything, running.  On exit sessions drain and nothing is left."""
    _make_private(settings.state)
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(tracing(settings))
        audit = await stack.enter_async_context(AuditLog.open(settings.audit_file))

        def journal() -> Journal:
            return Journal(audit, tracer, gateway=settings.instance)

        opa = await stack.enter_async_context(Opa.open(settings.policy))
        policy = Policy(opa, settings.instance)
        live = Live(policy, audit, journal(), settings.policy.sweep_seconds, settings.audit.grace_seconds)
        instance = _instance(settings)
        backends = {b.name: b for b in [await stack.enter_async_context(b) for b in open_backends(settings, instance)]}
        backends |= {backend.name: backend for backend in more_backends}
        issuers = {i.name: i for i in [await stack.enter_async_context(i) for i in open_issuers(settings)]}
        await stack.enter_async_context(background(_reap(backends, live)))
        await stack.enter_async_context(background(live.sweep()))
        await stack.enter_async_context(background(live.watch_audit()))
        lint = Lint(opa, journal(), settings.instance, settings.policy.lint_seconds)
        await stack.enter_async_context(background(lint.sweep()))
        door = await stack.enter_async_context(GrantsDoor(settings.door, policy, opa, live, journal).open())
        status: dict[str, Any] = {"instance": settings.instance, "door": list(door) if door else None}
        await stack.enter_async_context(Admin(live, journal(), status).open(settings.admin_socket))
        front = Front(settings.ssh, policy, Sessions(policy, backends, issuers, connected, live), live, audit, tracer)
        keys = host_keys(settings)
        # The last to open and the first to close: sessions drain while all they need still works.
        await stack.enter_async_context(front.open(keys))
        status["ssh"] = list(front.address)
        yield Gateway(front.address, door, [key.get_fingerprint() for key in keys], live)


def open_backends(settings: Settings, instance: str) -> list[AbstractAsyncContextManager[Backend]]:
    """A context manager for each backend that is configured.  Only what is configured is imported."""
    found: list[AbstractAsyncContextManager[Backend]] = []
    if settings.backends.docker is not None:
        from gateway.backends.docker import DockerBackend

        docker = settings.backends.docker
        agent = docker.agent or assets.agent_binary()
        found.append(DockerBackend.open(docker, instance, agent, assets.seccomp_profile()))
    if settings.backends.sandbox is not None:
        from gateway.backends.sandbox import SandboxBackend

        sandbox = settings.backends.sandbox
        agent = sandbox.agent or assets.agent_binary()
        found.append(nullcontext(SandboxBackend(sandbox, instance, agent, settings.state)))
    return found


def _instance(settings: Settings) -> str:
    """This gateway's own name on what it starts: two gateways on one engine must not reap each other's workspaces."""
    path = settings.state / "instance-id"
    if not path.exists():
        path.write_text(secrets.token_hex(4))
    return f"{settings.instance}-{path.read_text().strip()}"


def open_issuers(settings: Settings) -> list[AbstractAsyncContextManager[Issuer]]:
    """A context manager for each issuer that is configured."""
    found: list[AbstractAsyncContextManager[Issuer]] = []
    if settings.credentials.vault is not None:
        from gateway.credentials.vault import VaultIssuer

        found.append(VaultIssuer.open(settings.credentials.vault))
    if settings.credentials.embedded is not None:
        found.append(_embedded_issuer(settings.credentials.embedded))
    return found


@asynccontextmanager
async def _embedded_issuer(settings: EmbeddedIssuerSettings) -> AsyncIterator[Issuer]:
    from gateway.credentials.embedded import EmbeddedIssuer

    issuer = EmbeddedIssuer(settings)
    async with background(issuer.keep_swept()):
        yield issuer


async def _reap(backends: dict[str, Backend], live: Live) -> None:
    """The second line: remove what a session left behind, at start and now and then."""
    while True:
        for name, backend in backends.items():
            try:
                for session in await backend.reap(live.ids()):
                    log.warning("workspace_reaped", extra={"backend": name, "session": session})
            except WorkspaceUnavailable as error:
                log.warning("reaper_failed", extra={"backend": name, "code": error.reasons[0].code})
        await asyncio.sleep(REAP_SECONDS)


def host_keys(settings: Settings) -> list[asyncssh.SSHKey]:
    """The configured host keys, else one that is made on first start.  Raises SettingsError."""
    paths = list(settings.ssh.host_keys) or [_first_host_key(settings.state / "ssh_host_ed25519_key")]
    try:
        return [asyncssh.read_private_key(path) for path in paths]
    except (OSError, asyncssh.KeyImportError) as error:
        raise SettingsError(f"ssh.host_keys: {error}") from error


def _first_host_key(path: Path) -> Path:
    if not path.exists():
        key = asyncssh.generate_private_key("ssh-ed25519", comment="doorward")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(key.export_private_key())
        path.with_name(path.name + ".pub").write_bytes(key.export_public_key())
    return path


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(f"state_dir {folder} cannot be made: {error}") from error


async def serve(settings: Settings, ready: Callable[[Gateway], None]) -> None:
    """Run until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with gateway(settings) as running:
        ready(running)
        await stop.wait()


__all__ = ["Gateway", "gateway", "serve"]
