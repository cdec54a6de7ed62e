"""The composition root: the only file that names every concrete class."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from gateway import assets, plugins
from gateway.approvals import Approvals
from gateway.audit.journal import Journal
from gateway.audit.log import AuditLog
from gateway.audit.rotation import Keeping
from gateway.authn import Checked, Verifier, Verifiers
from gateway.authn.questions import AnythingVerifier, QuestionsVerifier
from gateway.backends import Backend
from gateway.concurrency import background
from gateway.credentials import Issuer
from gateway.door.admin import Admin
from gateway.door.clients import Clients
from gateway.door.documents import Documents
from gateway.door.doorman import Doorman
from gateway.door.grants import GrantsDoor
from gateway.door.lint import Lint
from gateway.door.strangers import Strangers
from gateway.errors import SettingsError, WorkspaceUnavailable
from gateway.front import Front
from gateway.glass import Glass
from gateway.hooks import Hooks
from gateway.host_keys import HostKeys
from gateway.live import Live
from gateway.metrics import metering
from gateway.obliged import Obligations, TellingPolicy
from gateway.policy.bundles import BundleWatch
from gateway.policy.census import Census
from gateway.policy.opa import Opa
from gateway.pools import Pools
from gateway.session import Sessions
from gateway.settings import EmbeddedIssuerSettings, Offered, Settings
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
        tracer = stack.enter_context(tracing(settings))
        audit = await stack.enter_async_context(AuditLog.open(settings.audit_file, Keeping.of(settings.audit)))

        def journal() -> Journal:
            return Journal(audit, tracer, gateway=settings.instance)

        opa = await stack.enter_async_context(Opa.open(settings.policy))
        hooks = await stack.enter_async_context(Hooks.open(settings.hooks, settings.instance))
        census = Census()
        meter = stack.enter_context(metering(settings))
        policy = TellingPolicy(opa, settings.instance, hooks, census, meter)
        live = Live(policy, audit, journal(), settings.policy.sweep_seconds, settings.audit.grace_seconds)
        instance = _instance(settings)
        backends = {b.name: b for b in [await stack.enter_async_context(b) for b in open_backends(settings, instance)]}
        backends |= {backend.name: backend for backend in more_backends}
        issuers = {i.name: i for i in [await stack.enter_async_context(i) for i in open_issuers(settings)]}
        pools = await stack.enter_async_context(Pools.open(settings, backends, reaching(settings.redis), meter))
        await stack.enter_async_context(background(_reap(pools.backends, live)))
        await stack.enter_async_context(background(live.sweep()))
        await stack.enter_async_context(background(live.watch_audit()))
        lint = Lint(opa, journal(), settings.instance, settings.policy.lint_seconds, meter)
        await stack.enter_async_context(background(lint.sweep()))
        await stack.enter_async_context(background(BundleWatch(opa, settings.policy.bundles_seconds).sweep()))
        documents = Documents(policy, opa, live)
        clients = await stack.enter_async_context(Clients.open(settings.door))
        doorman = Doorman(settings.door, clients, Strangers(settings.ssh))
        door = await stack.enter_async_context(GrantsDoor(settings.door.listen, doorman, documents, journal).open())
        status: dict[str, Any] = {"instance": settings.instance, "door": list(door) if door else None}
        approvals = Approvals()
        api = Admin(live, approvals, policy, doorman, journal, status)
        await stack.enter_async_context(api.open(settings.admin_socket))
        admin = await stack.enter_async_context(api.open_tcp(settings.door.admin_listen))
        found = open_verifiers(settings)
        verifiers = {kind: await stack.enter_async_context(verifier) for kind, verifier in found.items()}
        known = Verifiers({**verifiers, **(more_verifiers or {})})
        obligations = Obligations(policy, hooks, approvals, Glass(opa), settings.policy.sweep_seconds)
        sessions = Sessions(policy, pools.backends, issuers, pools.connect, live, obligations, census)
        front = Front(settings.ssh, policy, known, sessions, live, audit, tracer)
        keys = HostKeys(settings)
        # The last to open and the first to close: sessions drain while all they need still works.
        await front.present(keys.identity)
        await stack.enter_async_context(keys.kept(front.present))
        await stack.enter_async_context(front.open())
        status |= {
            "ssh": list(front.address),
            "admin": list(admin) if admin else None,
            "front": front.describe,
            "pools": pools.describe,
        }
        yield Gateway(front, door, admin, keys, live, pools)


def open_backends(settings: Settings, instance: str) -> list[AbstractAsyncContextManager[Backend]]:
    """A context manager for each backend that is configured.  Only what is configured is imported."""
    found: list[AbstractAsyncContextManager[Backend]] = []
    if settings.backends.docker is not None:
        from gateway.backends.docker.backend import DockerBackend

        docker = settings.backends.docker
        agent = docker.agent or assets.agent_binary()
        found.append(DockerBackend.open(docker, instance, agent, assets.seccomp_profile(), settings.state))
    if settings.backends.kubernetes is not None:
        from gateway.backends.kubernetes.backend import KubernetesBackend

        found.append(KubernetesBackend.open(settings.backends.kubernetes, instance))
    if settings.backends.sandbox is not None:
        from gateway.backends.sandbox.backend import SandboxBackend

        sandbox = settings.backends.sandbox
        agent = sandbox.agent or assets.agent_binary()
        found.append(nullcontext(SandboxBackend(sandbox, instance, agent, settings.state)))
    if settings.backends.sshproxy is not None:
        from gateway.backends.sshproxy.backend import SshProxyBackend

        found.append(SshProxyBackend.open(settings.backends.sshproxy, open_signer(settings)))
    return [*found, *_open_plugins(settings, settings.backends, instance)]


def open_signer(settings: Settings) -> AbstractAsyncContextManager[Any]:
    """A context manager for who signs the certificates of sessions on hosts; for None where nobody does."""
    sshproxy, vault = settings.backends.sshproxy, settings.credentials.vault
    if sshproxy is None or sshproxy.vault is None:
        return nullcontext()
    if vault is None:
        raise SettingsError("backends.sshproxy.vault needs credentials.vault", remedy="Say where Vault is.")
    from gateway.credentials.vault_signer import UserSigner

    return UserSigner.open(vault, sshproxy.vault.mount)


def _open_plugins(settings: Settings, section: Offered, instance: str) -> list[AbstractAsyncContextManager[Any]]:
    """A context manager for each of the section's parts that is not ours."""
    found: list[AbstractAsyncContextManager[Any]] = []
    for name, own in section.plugins.items():
        state = settings.state / "plugins" / name
        make_private(state)
        place = plugins.Place(instance, assets.agent_binary(), state)
        found.append(_opened(name, plugins.find(section.group, name).open(own, place)))
    return found


@asynccontextmanager
async def _opened(name: str, plugin: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
    async with plugin as part:
        if part.name != name:
            raise SettingsError(f"the plugin {name} calls itself {part.name}", remedy="Its name is the section's name.")
        yield part


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
    return [*found, *_open_plugins(settings, settings.credentials, settings.instance)]


@asynccontextmanager
async def _embedded_issuer(settings: EmbeddedIssuerSettings) -> AsyncIterator[Issuer]:
    from gateway.credentials.embedded import EmbeddedIssuer

    issuer = EmbeddedIssuer(settings)
    async with background(issuer.keep_swept()):
        yield issuer


def open_verifiers(settings: Settings) -> dict[str, AbstractAsyncContextManager[Verifier]]:
    """A context manager for each way of proving that is configured, by the kind of verification that it does."""
    found: dict[str, AbstractAsyncContextManager[Verifier]] = {
        **open_checked_verifiers(settings),
        "questions": nullcontext(QuestionsVerifier()),
        "anything": nullcontext(AnythingVerifier()),
    }
    if settings.authn.oidc or settings.authn.github:
        from gateway.authn.oidc import OidcVerifier

        found["oidc"] = OidcVerifier.open(settings.authn)
    return found


def open_checked_verifiers(settings: Settings) -> dict[str, AbstractAsyncContextManager[Checked]]:
    """Those of them that `doorward check` tries by themselves."""
    found: dict[str, AbstractAsyncContextManager[Checked]] = {}
    authn = settings.authn
    if authn.password_file is not None:
        from gateway.authn.argon2 import Argon2Verifier

        found["argon2"] = Argon2Verifier.open(authn.password_file)
    if authn.vault is not None:
        from gateway.authn.vault_password import VaultPasswordVerifier

        found["vault_password"] = VaultPasswordVerifier.open(authn.vault)
    if authn.webhooks:
        from gateway.authn.webhook import WebhookVerifier

        found["webhook"] = WebhookVerifier.open(authn.webhooks)
    if authn.key_lists is not None:
        from gateway.authn.key_list import KeyListVerifier

        found["key_list"] = KeyListVerifier.open(authn.key_lists)
    if authn.totp is not None:
        from gateway.authn.totp import TotpVerifier

        found["totp"] = TotpVerifier.open(authn.totp, authn.vault, settings.state)
    return found


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


def make_private(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(
            f"state_dir {folder} cannot be made: {error}", remedy="Name a folder that this user may make."
        ) from error


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
