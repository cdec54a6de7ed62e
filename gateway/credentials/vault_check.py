"""Can this Vault be used?  Found out by doing: a session's token is made, renewed and revoked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from hvac import exceptions as vault_errors
from hvac.api.auth_methods.token import Token
from hvac.api.system_backend.health import Health
from hvac.api.system_backend.lease import Lease as Leasing
from pydantic import SecretStr

from gateway.credentials.vault_client import VaultClient, in_our_words, token_in
from gateway.errors import CredentialsUnavailable

PROBE_SECONDS = 10


def probe(client: VaultClient, read_token: Callable[[], SecretStr]) -> None:
    """Raises CredentialsUnavailable with what to do.  To be run on a thread of `client`.

    Asking `sys/capabilities` instead would need the right to ask, and says nothing of `allowed_parameters` or of what
    the token role allows.
    """
    _health(client)
    policy = client.settings.session_policy
    gateway = Token(client.adapter(read_token()))
    with _permitted("auth/token/lookup-self", "the gateway's token (is it revoked or expired?)"):
        gateway.lookup_self()
    with _permitted(f"auth/token/create/{policy}", "the policy of the gateway's token"):
        answer = gateway.create(
            role_name=policy,
            policies=[policy],
            no_default_policy=True,
            ttl=f"{PROBE_SECONDS}s",
            display_name="doorward-check",
        )
    session = client.adapter(token_in(answer).client_token)
    no_lease = f"{client.settings.mount}/creds/doorward-check/none"
    with _permitted("auth/token/renew-self", f"the policy {policy!r}"):
        Token(session).renew_self(increment=f"{PROBE_SECONDS}s")
    with _permitted("sys/leases/renew", f"the policy {policy!r}"), suppress(vault_errors.InvalidRequest):
        Leasing(session).renew_lease(no_lease)
    with _permitted("sys/leases/revoke", f"the policy {policy!r}"), suppress(vault_errors.InvalidRequest):
        session.put("/v1/sys/leases/revoke", json={"lease_id": no_lease, "sync": True})
    with _permitted("auth/token/revoke-self", f"the policy {policy!r}"):
        Token(session).revoke_self()


def _health(client: VaultClient) -> None:
    # hvac hands out 503 as a plain response here.  No namespace: /sys/health is not to be had in one.
    adapter = client.adapter(None)
    adapter.namespace = None
    with in_our_words("answering at all"):
        health = Health(adapter).read_health_status(method="GET")
        if getattr(health, "status_code", 200) in (501, 503):
            raise vault_errors.VaultDown("sealed or not initialised", method="get", url="sys/health")


@contextmanager
def _permitted(path: str, whose: str) -> Iterator[None]:
    with in_our_words(f"using {path}"):
        try:
            yield
        except (vault_errors.Forbidden, vault_errors.InvalidRequest) as error:
            raise CredentialsUnavailable(
                f"Vault refuses {path}",
                code="vault_denied",
                remedy=f"Platform team: let {whose} update {path}; secrets/vault/setup.sh writes all that is needed.",
            ) from error
