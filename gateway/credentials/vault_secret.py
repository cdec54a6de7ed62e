"""Static secrets out of Vault's KV engine, version 2: read with the session's own token, and kept by nobody here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hvac import exceptions as vault_errors
from hvac.api.secrets_engines.kv_v2 import KvV2
from pydantic import Field, SecretStr

from gateway.credentials.vault_client import Answer, VaultAdapter, in_our_words, parsed
from gateway.deliveries import StaticSecret
from gateway.errors import CredentialsUnavailable
from gateway.model import CredentialSpec, Lease


class Metadata(Answer):
    version: int = Field(ge=1)


class Version(Answer):
    data: dict[str, Any]
    metadata: Metadata


class Read(Answer):
    """Vault's answer to `<mount>/data/<path>`."""

    data: Version


def static_lease(adapter: VaultAdapter, spec: CredentialSpec, secret: StaticSecret, seconds: int) -> Lease:
    """The secret as a lease without an id.  On a thread.  Raises CredentialsUnavailable, which quotes none of it."""
    where = f"{secret.mount}/data/{secret.path}"
    with in_our_words(f"reading the credential {spec.name!r}"):
        try:
            answer = KvV2(adapter).read_secret_version(
                secret.path, version=secret.version, mount_point=secret.mount, raise_on_deleted_version=True
            )
        except vault_errors.InvalidPath as error:
            version = "" if secret.version is None else f" in version {secret.version}"
            raise CredentialsUnavailable(
                f"Vault has no secret {where}{version}, which the credential {spec.name!r} needs",
                code="credential_secret_unknown",
                remedy="Nothing is wrong with your grant. Platform team: write it in Vault (a version may be deleted), "
                "or correct its place in the policy.",
            ) from error
    read = parsed(Read, answer).data
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    return Lease(spec, "", "", SecretStr(""), until, secret=read.data, version=read.metadata.version)
