"""Logging in to a real host: what it must prove itself by, by what we prove ourselves, and what is said of a failure.

The private key of a certificate is made here, for one session, and never leaves this process.
"""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import asyncssh

from gateway.backends import Login, Order
from gateway.errors import WorkspaceUnavailable
from gateway.model import Holder, Host, VaultLogin
from gateway.settings_sshproxy import SshProxySettings
from gateway.words import printable

AUTHORITY = "@cert-authority "
OTHERS = stat.S_IRWXG | stat.S_IRWXO
SIGNATURES = {
    "ssh-ed25519": ["ssh-ed25519"],
    "ssh-rsa": ["rsa-sha2-512", "rsa-sha2-256"],
    **{f"ecdsa-sha2-nistp{bits}": [f"ecdsa-sha2-nistp{bits}"] for bits in (256, 384, 521)},
}
"""What a pinned key of each type may sign with: nothing with SHA-1."""
CERTIFIED = "-cert-v01@openssh.com"
NOT_YOURS = "Nothing is wrong with your grant. "


class Signer(Protocol):
    """Signs a session's public key; Vault's SSH secrets engine does (`credentials/vault_signer.py`)."""

    async def sign(self, public_key: str, login: VaultLogin, user: str, key_id: str, seconds: int) -> str:
        """A user certificate as a line of OpenSSH's.  Raises CredentialsUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Pinned:
    """The keys of which a host must prove one."""

    keys: list[asyncssh.SSHKey]
    authorities: list[asyncssh.SSHKey]

    @property
    def fingerprints(self) -> str:
        names = [key.get_fingerprint() for key in self.keys]
        return " or ".join([*names, *(f"one certified by {key.get_fingerprint()}" for key in self.authorities)])

    def options(self) -> dict[str, Any]:
        """For asyncssh's client.  Types that are pinned come first; others too, so that a stranger shows its key."""
        plain = [name for key in self.keys for name in SIGNATURES[key.get_algorithm()]]
        every = [name for names in SIGNATURES.values() for name in names]
        certified = [f"{name}{CERTIFIED}" for name in every] if self.authorities else []
        return {
            "known_hosts": (self.keys, self.authorities, []),
            "server_host_key_algs": [*certified, *dict.fromkeys(plain + every)],
            "x509_trusted_certs": None,
        }


def pinned(host: Host) -> Pinned:
    """Raises WorkspaceUnavailable for a line that is no key."""
    found = Pinned([], [])
    for line in host.host_keys:
        try:
            key = asyncssh.import_public_key(line.removeprefix(AUTHORITY))
        except asyncssh.KeyImportError as error:
            raise WorkspaceUnavailable(
                f"a host key that policy pins for {host} cannot be read",
                remedy=f"{NOT_YOURS}Security team: write the line anew in the target's host.host_keys.",
            ) from error
        (found.authorities if line.startswith(AUTHORITY) else found.keys).append(key)
    return found


async def login(order: Order, host: Host, settings: SshProxySettings, signer: Signer | None) -> Login:
    """Raises WorkspaceUnavailable or CredentialsUnavailable."""
    known = pinned(host)
    options = {
        **known.options(),
        "host": host.address,
        "port": host.port,
        "username": host.user,
        "client_keys": [await _client_key(order, host, settings, signer)],
        "preferred_auth": "publickey",
        "agent_path": None,
        "compression_algs": None,
        "keepalive_interval": settings.keepalive_seconds,
        "keepalive_count_max": settings.keepalive_count,
    }
    return Login(str(host), known.fingerprints, options, settings.connect_seconds, order.environment())


async def _client_key(order: Order, host: Host, settings: SshProxySettings, signer: Signer | None) -> Any:
    if host.vault is None:
        assert host.key is not None, "the model has exactly one"
        if host.key not in settings.keys:
            raise WorkspaceUnavailable(
                f"the permit names the key {host.key!r}, which this gateway does not have",
                remedy=f"Tell the platform team: the settings lack backends.sshproxy.keys.{host.key}.",
            )
        return await asyncio.to_thread(private_key, host.key, settings.keys[host.key])
    if signer is None or settings.vault is None:
        raise WorkspaceUnavailable(
            "the permit wants a certificate of Vault's, and this gateway has none signed",
            remedy="Tell the platform team: [backends.sshproxy.vault] is missing in the gateway's settings.",
        )
    left = int((order.expires_at - datetime.now(UTC)).total_seconds())
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key().decode("ascii").strip()
    seconds = max(1, min(left, settings.vault.certificate_seconds))
    signed = await signer.sign(public, host.vault, host.user, key_id(order.holder), seconds)
    return key, _certificate(signed, key)


def _certificate(signed: str, key: asyncssh.SSHKey) -> asyncssh.SSHCertificate:
    try:
        certificate = asyncssh.import_certificate(signed)
    except asyncssh.KeyImportError as error:
        raise WorkspaceUnavailable("what was signed for this session is no certificate") from error
    if certificate.key.public_data != key.public_data:
        raise WorkspaceUnavailable("what was signed for this session certifies another key")
    return certificate


def key_id(holder: Holder) -> str:
    """On the certificate, and so in the log of the host's own sshd: who, on what grant, in which session."""
    parts = (holder.person, holder.grant, holder.session)
    return "/".join(["doorward", *(re.sub(r"[^A-Za-z0-9.@+-]", "_", part) for part in parts)])


def private_key(name: str, path: Path) -> asyncssh.SSHKey:
    """Raises WorkspaceUnavailable; where the file is, is nothing to who is at the door, and stands in the cause."""
    try:
        if path.stat().st_mode & OTHERS:
            raise PermissionError(f"{path}: others may read or write it: run `chmod 600` on it")
        return asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise WorkspaceUnavailable(
            f"the gateway's own key {name!r} cannot be used",
            remedy=f"{NOT_YOURS}Platform team: see backends.sshproxy.keys.{name}; `doorward check` says what it is.",
        ) from error


def unreachable(name: str) -> WorkspaceUnavailable:
    return WorkspaceUnavailable(
        f"the host {name} does not answer",
        code="host_unreachable",
        remedy=f"{NOT_YOURS}Tell who runs the host, or the platform team if others cannot reach it either.",
    )


@contextmanager
def in_our_words(login: Login) -> Iterator[None]:
    """Translate what connecting and logging in raise into WorkspaceUnavailable, which says whose failure it was."""
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise WorkspaceUnavailable(
            f"{login.name} is not the host that policy knows: {printable(error.reason[:200])}, not {login.known_by}",
            code="host_key_mismatch",
            remedy="Nothing was sent to it. Tell the security team: its key has changed, or somebody poses as it.",
        ) from error
    except asyncssh.PermissionDenied as error:
        raise _not_logged_in(
            login, f"refused the login as {login.options['username']}; this door had let you in"
        ) from error
    except TimeoutError as error:
        what = f"was not logged in to within {login.seconds:g} s"
        raise _not_logged_in(login, what, code="host_unreachable") from error
    except asyncssh.Error as error:
        raise _not_logged_in(login, f"could not be logged in to: {printable(error.reason[:200])}") from error
    except OSError as error:  # that it was not there at all was told by the backend
        raise _not_logged_in(login, "could not be logged in to: it hung up") from error


def _not_logged_in(login: Login, what: str, code: str = "host_refused") -> WorkspaceUnavailable:
    remedy = f"{NOT_YOURS}Tell who runs the host: the log of its sshd says more."
    return WorkspaceUnavailable(f"the host {login.name} {what}", code=code, remedy=remedy)
