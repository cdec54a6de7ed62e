"""How commands reach a running gateway: its admin socket, or OPA."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx

from gateway.errors import DoorwardError, PolicyUnavailable, SettingsError
from gateway.model import Reason
from gateway.settings import Settings

NONE: Mapping[str, str] = {}
_NO_MORE = "The answer says no more; the log of whoever gave it may."


def admin(settings: Settings, method: str, path: str, value: Any = None) -> Any:
    """Ask the gateway on this machine.  Raises SettingsError when none runs, DoorwardError when it refuses."""
    transport = httpx.HTTPTransport(uds=str(settings.admin_socket))
    try:
        with httpx.Client(transport=transport, base_url="http://admin", timeout=10) as client:
            return _body(client.request(method, path, json=value))
    except httpx.TransportError as error:
        raise SettingsError(
            f"no gateway answers on {settings.admin_socket}",
            remedy="Start it with `doorward serve`, or name its settings with --config; only its own user may ask.",
        ) from error


def remote_admin(
    url: str, token: str, method: str, path: str, value: Any = None, *, ca_file: Path | None = None
) -> Any:
    """Ask a gateway's admin API over TCP, as automation would.  Raises SettingsError when there is no answer."""
    try:
        with _over_tcp(url, token, ca_file) as client:
            return _body(client.request(method, path, json=value))
    except (httpx.TransportError, httpx.UnsupportedProtocol, OSError) as error:
        raise SettingsError(
            f"the admin API at {url} cannot be reached: {error}",
            remedy="Its address is the gateway's door.admin_listen; with a private authority, name it with --ca-file.",
        ) from error


def opa(settings: Settings, method: str, path: str, value: Any = None) -> Any:
    """Ask the settings' OPA with the gateway's token.  Raises PolicyUnavailable."""
    policy = settings.policy
    headers = {"authorization": f"Bearer {policy.token.read().get_secret_value()}"} if policy.token else {}
    verify: Any = str(policy.ca_file) if policy.ca_file else True
    try:
        with httpx.Client(base_url=policy.url, headers=headers, verify=verify, timeout=10) as client:
            return _body(client.request(method, f"/v1/data/{path}", json=value))
    except httpx.TransportError as error:
        raise PolicyUnavailable(f"OPA at {policy.url} cannot be reached", code="policy_unreachable") from error


def ask_door(
    url: str,
    token: str,
    method: str,
    path: str,
    value: Any = None,
    *,
    ca_file: Path | None = None,
    headers: Mapping[str, str] = NONE,
) -> httpx.Response:
    """What the grants door answers a client of its own, whatever it is.  Raises SettingsError when there is nothing."""
    try:
        with _over_tcp(url, token, ca_file) as client:
            return client.request(method, f"/v1/data/{path}", json=value, headers=headers)
    except (httpx.TransportError, OSError) as error:
        raise SettingsError(
            f"the grants door at {url} cannot be reached: {error}",
            remedy="Its address is the gateway's door.listen; with a private authority, name it with --ca-file.",
        ) from error


def _over_tcp(url: str, token: str, ca_file: Path | None) -> httpx.Client:
    try:
        trust: Any = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
    except OSError as error:
        raise SettingsError(f"--ca-file: {ca_file}: {error}", remedy="Name a file of certificates in PEM.") from error
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, verify=trust, timeout=60)


def _body(answer: httpx.Response) -> Any:
    try:
        body = answer.json() if answer.content else {}
    except ValueError as error:
        raise DoorwardError(f"{answer.url.host} answered with no JSON: is it the right address?") from error
    if not isinstance(body, dict):
        raise DoorwardError(f"{answer.url.host} answered with no object: is it the right address?")
    if answer.is_error:
        raise refusal(answer, body)
    return body


def refusal(answer: httpx.Response, body: Mapping[str, Any], reasons: Iterable[Reason] = ()) -> DoorwardError:
    """What an answer that refuses says: `reasons` that were read from its body, else its own sentence and remedies."""
    errors = [error for error in body.get("errors", []) if isinstance(error, dict)]
    remedies = " ".join(str(error["remedy"]) for error in errors if error.get("remedy")) or _NO_MORE
    refused = DoorwardError(str(body.get("message", answer.reason_phrase)), code="refused", remedy=remedies)
    refused.reasons = tuple(reasons) or refused.reasons
    return refused
