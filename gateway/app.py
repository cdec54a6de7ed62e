"""The composition root: with what `parts.py` opens by the settings, the only file that names every concrete class."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from gateway.approvals import Approvals
from gateway.audit.journal import Journal
from gateway.audit.log import AuditLog
from gateway.audit.rotation import Keeping
from gateway.authn import Verifier, Verifiers
from gateway.backends import Backend
from gateway.concurrency import background
from gateway.door.admin import Admin
from gateway.door.clients import Clients
from gateway.door.documents import Documents
from gateway.door.doorman import Doorman
from gateway.door.grants import GrantsDoor
from gateway.door.lint import Lint
from gateway.door.strangers import Strangers
from gateway.errors import WorkspaceUnavailable
from gateway.front import Front
from gateway.glass import Glass
from gateway.hooks import Hooks
from gateway.host_keys import HostKeys
from gateway.live import Live
from gateway.metrics import metering
from gateway.obliged import Obligations, TellingPolicy
from gateway.parts import make_private, open_backends, open_issuers, open_verifiers
from gateway.policy.bundles import BundleWatch
from gateway.policy.census import Census
from gateway.policy.opa import Opa
from gateway.pools import Pools
from gateway.session import Sessions
from gateway.settings import Settings
from gateway.ssh.host import reaching
from gateway.telemetry import tracing

log = logging.getLogger(__name__)

REAP_SECONDS = 30.0


class Gateway:
    """A running gateway: where it listens, and how it is asked to stop."""

    def __init__(
        self,
        front: Front,
        door: tuple[str, int] | None,
        admin: tuple[str, int] | None,
        host_keys: HostKeys,
        live: Live,
        pools: Pools,
    ) -> None:
        self.front = front
        self.ssh = front.address
        self.door = door
        self.admin = admin
        self.host_keys = host_keys
        self.live = live
        self.pools = pools


@asynccontextmanager
async def gateway(
    settings: Settings, *, more_backends: Sequence[Backend] = (), more_verifiers: Mapping[str, Verifier] | None = None
) -> AsyncIterator[Gateway]:
    """Everything, running.  On exit sessions drain and nothing is left."""
    make_private(settings.state)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        tracer = stack.enter_context(tracing(settings))
        audit = await enter(AuditLog.open(settings.audit_file, Keeping.of(settings.audit)))

        def journal() -> Journal:
            return Journal(audit, tracer, gateway=settings.instance)

        opa = await enter(Opa.open(settings.policy))
        hooks = await enter(Hooks.open(settings.hooks, settings.instance))
        census, meter = Census(), stack.enter_context(metering(settings))
        policy = TellingPolicy(opa, settings.instance, hooks, census, meter)
        live = Live(policy, audit, journal(), settings.policy.sweep_seconds, settings.audit.grace_seconds)
        backends = {part.name: part for part in [await enter(b) for b in open_backends(settings, _instance(settings))]}
        backends |= {backend.name: backend for backend in more_backends}
        issuers = {part.name: part for part in [await enter(issuer) for issuer in open_issuers(settings)]}
        pools = await enter(Pools.open(settings, backends, reaching(settings.redis), meter))
        lint = Lint(opa, journal(), settings.instance, settings.policy.lint_seconds, meter)
        bundles = BundleWatch(opa, settings.policy.bundles_seconds)
        for endless in (_reap(pools.backends, live), live.sweep(), live.watch_audit(), lint.sweep(), bundles.sweep()):
            await enter(background(endless))
        clients = await enter(Clients.open(settings.door))
        doorman = Doorman(settings.door, clients, Strangers(settings.ssh))
        grants = GrantsDoor(settings.door.listen, doorman, Documents(policy, opa, live), journal)
        door = await enter(grants.open())
        status: dict[str, Any] = {"instance": settings.instance, "door": list(door) if door else None}
        approvals = Approvals()
        api = Admin(live, approvals, policy, doorman, journal, status)
        await enter(api.open(settings.admin_socket))
        admin = await enter(api.open_tcp(settings.door.admin_listen))
        verifiers = {kind: await enter(verifier) for kind, verifier in open_verifiers(settings).items()}
        known = Verifiers({**verifiers, **(more_verifiers or {})})
        obligations = Obligations(policy, hooks, approvals, Glass(opa), settings.policy.sweep_seconds)
        sessions = Sessions(policy, pools.backends, issuers, pools.connect, live, obligations, census)
        front = Front(settings.ssh, policy, known, sessions, live, audit, tracer)
        keys = HostKeys(settings)
        # The last to open and the first to close: sessions drain while all they need still works.
        await front.present(keys.identity)
        await enter(keys.kept(front.present))
        await enter(front.open())
        status["ssh"], status["admin"] = list(front.address), list(admin) if admin else None
        status["front"], status["pools"] = front.describe, pools.describe
        yield Gateway(front, door, admin, keys, live, pools)


def _instance(settings: Settings) -> str:
    """This gateway's own name on what it starts: two gateways on one engine must not reap each other's workspaces."""
    path = settings.state / "instance-id"
    if not path.exists():
        path.write_text(secrets.token_hex(4))
    return f"{settings.instance}-{path.read_text().strip()}"


async def _reap(backends: Mapping[str, Backend], live: Live) -> None:
    """The second line: remove what a session left behind, at start and now and then."""
    while True:
        for name, backend in backends.items():
            try:
                for session in await backend.reap(live.ids()):
                    log.warning("workspace_reaped", extra={"backend": name, "session": session})
            except WorkspaceUnavailable as error:
                log.warning("reaper_failed", extra={"backend": name, "code": error.reasons[0].code})
        await asyncio.sleep(REAP_SECONDS)


async def serve(settings: Settings, ready: Callable[[Gateway], None]) -> None:
    """Run until SIGTERM or SIGINT, then drain.  SIGHUP: read the host keys again."""
    stop, hang_up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up.set)
    async with gateway(settings) as running, background(_read_keys_at(hang_up, running.host_keys)):
        ready(running)
        await stop.wait()


async def _read_keys_at(hang_up: asyncio.Event, host_keys: HostKeys) -> None:
    while True:
        await hang_up.wait()
        hang_up.clear()
        await host_keys.read_again()


__all__ = ["Gateway", "gateway", "serve"]
