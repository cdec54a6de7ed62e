"""Passwords and keys, proven by a server that speaks ContainerSSH's webhook protocol.

The shapes are those of ContainerSSH 0.5, as its own code has them (libcontainerssh: `auth/protocol.go`,
`auth/pubkey.go`, `config/protocol.go`, `metadata/connection.go`, `metadata/common.go`,
`internal/auth/webhook_client_impl.go`):

    POST url/password   {username, remoteAddress, connectionId, clientVersion, passwordBase64}
    POST url/pubkey     {..., publicKey}                    one line as in authorized_keys
    POST url/authz      {..., authenticatedUsername}
      -> 200 {success, authenticatedUsername?, metadata?, environment?, files?}
    POST config_url     {..., authenticatedUsername, metadata?, environment?}
      -> 200 {config, metadata?, environment?, files?}

where metadata and environment are {name: {value, sensitive}}.  Any other status means that it cannot tell.  Unlike
ContainerSSH, nothing is asked twice: who is at the door may try again.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, ValidationError

from gateway.authn import Evidence, Verified
from gateway.authn.fetch import Site, open_client
from gateway.errors import VerifierUnavailable
from gateway.proofs import Webhook
from gateway.settings_authn import WebhookSettings


class Shape(BaseModel):
    """Part of an answer.  Fields that are not known are not looked at, and no error quotes the answer."""

    model_config = ConfigDict(hide_input_in_errors=True, strict=True)


class Value(Shape):
    value: str = Field(repr=False)
    sensitive: bool = False


Values = Mapping[str, Value]


class Dynamic(Shape):
    """What every answer may bring along.  `files` have no place in a workspace here, so they are not looked at."""

    metadata: dict[str, Value] | None = None
    environment: dict[str, Value] | None = None

    def open_part(self) -> dict[str, JsonValue]:
        """What is not sensitive, as facts and as what the next request repeats."""
        parts = {"metadata": self.metadata, "environment": self.environment}
        return {
            part: {name: value.value for name, value in values.items() if not value.sensitive}
            for part, values in parts.items()
            if values
        }


class AuthAnswer(Dynamic):
    success: bool
    authenticated_username: str | None = Field(default=None, alias="authenticatedUsername")


class ConfigAnswer(Dynamic):
    config: dict[str, JsonValue] = Field(repr=False)


@dataclass(frozen=True, slots=True)
class Server:
    """One of the servers that the settings name."""

    site: Site
    settings: WebhookSettings
    token: SecretStr | None


class WebhookVerifier:
    """The verifier of kind `webhook`.

    `claims`: `webhook`, `authenticated_username`, and what is not sensitive of `metadata` and `environment`.  Where
    policy asks for them, and once the login itself succeeded: `authz` (true or false) and `config`, whole but for what
    lies under names that sound like a secret's.  A proof is the login's own success; /authz is a fact beside it.
    """

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Mapping[str, WebhookSettings]) -> AsyncIterator[WebhookVerifier]:
        """Raises SettingsError."""
        async with AsyncExitStack() as stack:
            servers = {}
            for name, one in settings.items():
                certificate, key = one.client_certificate, one.client_key
                http = open_client(f"authn.webhooks.{name}", ca_file=one.ca_file, certificate=certificate, key=key)
                await stack.enter_async_context(http)
                site = Site(f"the webhook server {name}", http, one.timeout_seconds)
                servers[name] = Server(site, one, one.token.read() if one.token else None)
            yield cls(servers)

    async def verify(self, verification: Webhook, evidence: Evidence) -> Verified:
        """See `Verifier.verify`."""
        server = self._server(verification.name)
        about = _about(verification, evidence)
        claims: dict[str, JsonValue] = {"webhook": verification.name}
        path, proof = _proof(evidence)
        answer = await _ask(server, f"{server.settings.url.rstrip('/')}/{path}", {**about, **proof}, AuthAnswer)
        name = answer.authenticated_username or verification.username
        claims |= {**answer.open_part(), "authenticated_username": name}
        if not answer.success:
            return Verified(False, claims)
        about |= {**_repeated(answer), "authenticatedUsername": name}
        if verification.authz:
            authz = await _ask(server, f"{server.settings.url.rstrip('/')}/authz", about, AuthAnswer)
            claims["authz"] = authz.success
            about |= _repeated(authz)
        if verification.config:
            claims["config"] = await self._config(server, about, verification.name)
        return Verified(True, claims)

    async def check(self) -> None:
        """Raises VerifierUnavailable for a server that does not answer at all; nobody is logged in to find out."""
        for server in self._servers.values():
            for url in filter(None, (server.settings.url, server.settings.config_url)):
                answer = await server.site.ask("GET", url)
                if answer.status >= 500:
                    raise VerifierUnavailable(f"{server.site.name} answers with status {answer.status}")

    def _server(self, name: str) -> Server:
        if name not in self._servers:
            raise VerifierUnavailable(
                f"the policy names the webhook server {name!r}, which this gateway does not have",
                remedy=f"Tell the platform team: the settings lack authn.webhooks.{name}.",
            )
        return self._servers[name]

    async def _config(self, server: Server, about: Mapping[str, Any], name: str) -> JsonValue:
        if server.settings.config_url is None:
            raise VerifierUnavailable(
                f"the policy asks the webhook server {name!r} for a configuration, and it has no address for that",
                remedy=f"Tell the platform team: the settings lack authn.webhooks.{name}.config_url.",
            )
        answer = await _ask(server, server.settings.config_url, about, ConfigAnswer)
        return without_secrets(answer.config)


async def _ask(server: Server, url: str, body: Mapping[str, Any], shape: type[Any]) -> Any:
    headers = {"authorization": f"Bearer {server.token.get_secret_value()}"} if server.token else {}
    answer = await server.site.ask("POST", url, json=dict(body), headers=headers)
    if answer.status != 200:
        raise VerifierUnavailable(f"{server.site.name} cannot tell") from OSError(f"status {answer.status}")
    try:
        return shape.model_validate_json(answer.body)
    except ValidationError:
        pass  # raised below, for what pydantic complains with holds all of the answer
    raise VerifierUnavailable(
        f"{server.site.name} answered with something that is not ContainerSSH's protocol", code="verifier_malformed"
    )


def _about(verification: Webhook, evidence: Evidence) -> dict[str, Any]:
    address = evidence.client_address
    try:
        host = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    except ValueError:
        host = address
    return {
        "username": verification.username,
        "remoteAddress": f"{host}:{evidence.client_port}",
        "connectionId": evidence.connection_id,
        "clientVersion": evidence.client_software,
    }


def _proof(evidence: Evidence) -> tuple[str, dict[str, str]]:
    if evidence.password is not None:
        password = evidence.password.get_secret_value().encode()
        return "password", {"passwordBase64": base64.b64encode(password).decode()}
    if evidence.key is not None:
        return "pubkey", {"publicKey": evidence.key.public_key}
    raise VerifierUnavailable("a password or a key is needed, and there is neither")


def _repeated(answer: Dynamic) -> dict[str, Any]:
    """What the next request repeats: "sensitive fields may not be exposed to subsequent webhooks"."""
    return {
        part: {name: {"value": value, "sensitive": False} for name, value in values.items()}
        for part, values in answer.open_part().items()
        if isinstance(values, dict)
    }


SECRET_WORDS = ("password", "passwd", "secret", "token", "credential", "privatekey", "clientkey", "accesskey", "bearer")
"""ContainerSSH's configuration holds secrets beside the rest (a registry's password, a cluster's token), unmarked."""


def without_secrets(config: JsonValue) -> JsonValue:
    """`config` as facts: what lies under a name that sounds like a secret's is left out, files' content too."""
    if isinstance(config, dict):
        return {name: without_secrets(value) for name, value in config.items() if not _sounds_secret(name)}
    if isinstance(config, list):
        return [without_secrets(value) for value in config]
    return config


def _sounds_secret(name: str) -> bool:
    plain = "".join(char for char in name.lower() if char.isalnum())
    return any(word in plain for word in SECRET_WORDS) or plain in ("env", "files", "key", "keydata", "hostkeys")


__all__ = ["WebhookVerifier", "without_secrets"]
