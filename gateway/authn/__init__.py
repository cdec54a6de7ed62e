"""The verifier contract: prove what an attempt claims, by the way that policy named, and say what was found.

A verifier judges nothing: whose proof it is and what it is worth is Rego's.  It sees secrets and lets none of them out:
not in its claims, its errors or its logs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import JsonValue, SecretStr

from gateway.errors import VerifierUnavailable
from gateway.proofs import Key


@dataclass(frozen=True, slots=True)
class Prompt:
    """One line to be answered (RFC 4256 section 3.2)."""

    text: str
    echo: bool


class Ask(Protocol):
    """Put prompts to whoever is at the door, over keyboard-interactive."""

    async def __call__(self, instruction: str, prompts: Sequence[Prompt]) -> Sequence[SecretStr]:
        """One answer for each prompt; `instruction` alone, with no prompt, is shown and answered with nothing.

        Cancelled when they leave, when they try another method, and when the login grace is over.
        """
        ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verifier may look at."""

    login: str
    """The user name exactly as typed."""
    connection_id: str
    client_address: str
    client_port: int = 0
    client_software: str = ""
    """The client's own name for itself, such as `SSH-2.0-OpenSSH_9.2`."""
    password: SecretStr | None = field(default=None, repr=False)
    """method `password`"""
    key: Key | None = None
    """method `publickey`: the key, whose possession is proven apart from this"""
    ask: Ask | None = None
    """method `keyboard-interactive`"""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found.  `claims` are facts for policy, also of a failure, and never hold a secret."""

    proven: bool
    claims: Mapping[str, JsonValue] = field(default_factory=dict)


class Verifier(Protocol):
    """One way of proving.  One object serves all connections."""

    async def verify(self, verification: Any, evidence: Evidence) -> Verified:
        """Prove `evidence` as `verification` (the model of this verifier's kind) says.

        A wrong password, code or key is `Verified(False)`; raises VerifierUnavailable when it cannot be told.
        A wrong answer and an unknown name take the same path.  Bounded in time by the verifier itself, except where a
        person is waited for.  Cancelled, it lets go of all it holds; it may be cancelled at any moment.
        """
        ...


class Checked(Verifier, Protocol):
    """A verifier that can be tried without anybody at the door."""

    async def check(self) -> None:
        """Raise VerifierUnavailable, with a remedy, when what it needs cannot be reached or used.  Logs nobody in."""
        ...


class Verifiers:
    """All verifiers of this gateway, by the `kind` of verification they do."""

    def __init__(self, verifiers: Mapping[str, Verifier]) -> None:
        self._verifiers = verifiers

    async def verify(self, verification: Any, evidence: Evidence) -> Verified:
        """See `Verifier.verify`; a kind that this gateway has not set up raises VerifierUnavailable."""
        verifier = self._verifiers.get(verification.kind)
        if verifier is None:
            raise VerifierUnavailable(
                f"the policy names a verification of kind {verification.kind!r}, which this gateway has not set up",
                remedy="Tell the platform team: a section of [authn] is missing in the gateway's settings.",
            )
        return await verifier.verify(verification, evidence)


__all__ = ["Ask", "Checked", "Evidence", "Prompt", "Verified", "Verifier", "Verifiers"]
