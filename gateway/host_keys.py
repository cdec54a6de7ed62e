"""The gateway's own keys: read from files, certified by files or by Vault, and read again when asked to.

A certificate that cannot be had is told loudly and takes nothing away: the bare keys still prove the door.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncssh
from asyncssh.public_key import SSHOpenSSHCertificate

from gateway.concurrency import background
from gateway.credentials.vault_host import HostSigner
from gateway.errors import CredentialsUnavailable, SettingsError
from gateway.settings import Settings
from gateway.ssh.hosted import SIGNED_WITH, Identity

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""After a certificate could not be renewed."""
RENEWED_AT = 2 / 3
"""Of its life, a certificate is renewed when so much has passed."""
MIN_RSA_BITS = 3072
HOST = 2
"""The type of a host's certificate (OpenSSH's PROTOCOL.certkeys)."""

Present = Callable[[Identity], Awaitable[None]]


def read(settings: Settings) -> Identity:
    """What the files hold now.  Raises SettingsError that names the key and the file."""
    ssh = settings.ssh
    paths = ssh.host_keys or (_first_host_key(settings.state / "ssh_host_ed25519_key"),)
    keys = [_key("ssh.host_keys", path) for path in paths]
    next_keys = [_key("ssh.next_host_keys", path) for path in ssh.next_host_keys]
    if len({key.algorithm for key in keys}) < len(keys):
        raise SettingsError(
            "ssh.host_keys: two keys of one type",
            remedy="Only one of each type is used; name the one to come in ssh.next_host_keys.",
        )
    used = {key.public_data for key in keys}
    return Identity(keys, [key for key in next_keys if key.public_data not in used], _certificates(settings, keys))


def ended(certificate: SSHOpenSSHCertificate) -> bool:
    return certificate._valid_before <= time.time()


def _certificates(settings: Settings, keys: Sequence[asyncssh.SSHKey]) -> list[SSHOpenSSHCertificate]:
    found = []
    for path in settings.ssh.host_certificates:
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"ssh.host_certificates: {path}: {error}") from error
        found.append(_certificate("ssh.host_certificates", text, str(path), keys))
        if ended(found[-1]):
            log.error("host_certificate_ended", extra={"file": str(path)})
    return found


def _key(setting: str, path: Path) -> asyncssh.SSHKey:
    try:
        key = asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise SettingsError(f"{setting}: {path}: {error}") from error
    if key.algorithm not in SIGNED_WITH:
        raise SettingsError(
            f"{setting}: {path}: {key.get_algorithm()} keys cannot be host keys", remedy="Make an ed25519 key."
        )
    bits = getattr(key.pyca_key, "key_size", MIN_RSA_BITS)
    if key.algorithm == b"ssh-rsa" and bits < MIN_RSA_BITS:
        raise SettingsError(
            f"{setting}: {path}: an RSA key of {bits} bits",
            remedy=f"Make an ed25519 key, or one of {MIN_RSA_BITS} bits.",
        )
    return key


def _certificate(setting: str, text: str, whose: str, keys: Sequence[asyncssh.SSHKey]) -> SSHOpenSSHCertificate:
    try:
        certificate = asyncssh.import_certificate(text)
    except asyncssh.KeyImportError as error:
        raise SettingsError(f"{setting}: {whose}: {error}") from error
    if not isinstance(certificate, SSHOpenSSHCertificate) or certificate._cert_type != HOST:
        raise SettingsError(
            f"{setting}: {whose}: this is no certificate of a host", remedy="Sign it with `ssh-keygen -h`."
        )
    if certificate.key.public_data not in {key.public_data for key in keys}:
        raise SettingsError(f"{setting}: {whose}: it certifies none of ssh.host_keys")
    return certificate


def _first_host_key(path: Path) -> Path:
    if not path.exists():
        key = asyncssh.generate_private_key("ssh-ed25519", comment="doorward")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(key.export_private_key())
        path.with_name(path.name + ".pub").write_bytes(key.export_public_key())
    return path


class HostKeys:
    """What is shown to clients while the gateway runs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._present: Present | None = None
        self._signed: list[SSHOpenSSHCertificate] = []
        self._again = asyncio.Event()
        self.identity = read(settings)

    @property
    def fingerprints(self) -> list[str]:
        return [key.get_fingerprint() for key in self.identity.keys]

    @property
    def certificates(self) -> list[SSHOpenSSHCertificate]:
        return [*self._signed, *self.identity.certificates]

    @asynccontextmanager
    async def kept(self, present: Present) -> AsyncIterator[None]:
        """While the body runs, `present` is told of each change: keys read again, certificates renewed."""
        self._present = present
        vault, host = self._settings.credentials.vault, self._settings.ssh.host_certificate.vault
        if host is None:
            yield
            return
        if vault is None:
            raise SettingsError(
                "ssh.host_certificate.vault needs credentials.vault",
                remedy="Say where Vault is: credentials.vault.url.",
            )
        async with HostSigner.open(vault, host) as signer:
            await self._certify(signer)
            async with background(self._keep_certified(signer)):
                yield

    async def read_again(self) -> None:
        """Files that are wrong change nothing, and are told."""
        try:
            identity = read(self._settings)
        except SettingsError as error:
            log.error("host_keys_not_read", extra={"error": str(error)})
            return
        if [key.public_data for key in identity.keys] != [key.public_data for key in self.identity.keys]:
            self._signed = []  # they certify keys that are used no more
            self._again.set()
        self.identity = identity
        await self._show()
        log.warning("host_keys_read", extra={"fingerprints": self.fingerprints})

    async def _show(self) -> None:
        if self._present is not None:
            shown = Identity(self.identity.keys, self.identity.next_keys, self.certificates)
            await self._present(shown)

    async def _keep_certified(self, signer: HostSigner) -> None:
        while True:
            self._again.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_left()):
                    await self._again.wait()
            await self._certify(signer)

    def _seconds_left(self) -> float:
        """Until the next renewal is due; after a failure, until the next try."""
        now = time.time()
        ends = [(one._valid_before - one._valid_after) * RENEWED_AT + one._valid_after for one in self._signed]
        return max(min(ends, default=0.0) - now, RETRY_SECONDS)

    async def _certify(self, signer: HostSigner) -> None:
        keys = self.identity.keys
        lines = [key.export_public_key().decode("ascii").strip() for key in keys]
        try:
            signed = await signer.sign(lines)
            self._signed = [_certificate("ssh.host_certificate.vault", text, "Vault's answer", keys) for text in signed]
        except (CredentialsUnavailable, SettingsError) as error:
            ends = min((one._valid_before for one in self._signed), default=None)
            log.error(
                "host_certificate_not_renewed",
                extra={"code": error.reasons[0].code, "cause": str(error.__cause__ or error), "old_one_ends": ends},
            )
            return
        log.info("host_certificate_renewed", extra={"ends": min(one._valid_before for one in self._signed)})
        await self._show()
