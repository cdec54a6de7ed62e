"""What the settings name, opened: backends, issuers of credentials, ways of proving.  Nothing else is imported."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from gateway import assets, plugins
from gateway.authn import Checked, Verifier
from gateway.authn.questions import AnythingVerifier, QuestionsVerifier
from gateway.backends import Backend
from gateway.concurrency import background
from gateway.credentials import Issuer
from gateway.errors import SettingsError
from gateway.settings import EmbeddedIssuerSettings, Offered, Settings


def open_backends(settings: Settings, instance: str) -> list[AbstractAsyncContextManager[Backend]]:
    """A context manager for each backend that is configured."""
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


def make_private(folder: Path) -> None:
    """Raises SettingsError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(
            f"state_dir {folder} cannot be made: {error}", remedy="Name a folder that this user may make."
        ) from error
