"""The issuer contract: credentials that exist because a session does, and end with it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from gateway.model import CredentialSpec, Holder, Lease


class Leases(Protocol):
    """What one issuer leased to one session; valid until its context is left."""

    @property
    def items(self) -> Sequence[Lease]: ...

    async def wait_lost(self) -> str:
        """Return when the leases can no longer be kept (renewal failed until the end, or revoked from outside),
        with one safe sentence on why.  While they are kept it never returns.  Cancelling it changes nothing.
        """
        ...


class Issuer(Protocol):
    """Something that makes short-lived credentials."""

    name: str

    def lease(self, credentials: Sequence[CredentialSpec], holder: Holder) -> AbstractAsyncContextManager[Leases]:
        """Issue on enter, renew while inside, revoke on exit.

        Enter raises CredentialsUnavailable within 2 s of an issuer that does not answer, and has then left nothing
        behind that outlives `ttl_seconds`; cancelled on the way, likewise.  Exit returns when each lease is revoked
        *and the database connections opened with it are ended*, or after a bounded time (10 s) with an error logged:
        then the issuer itself ends them within `ttl_seconds`.  A gateway that is killed leaves nothing that outlives
        `ttl_seconds`.
        """
        ...

    async def check(self) -> None:
        """Raise CredentialsUnavailable, with a remedy, when the issuer cannot be used."""
        ...
