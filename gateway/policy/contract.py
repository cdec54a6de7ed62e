"""The questions Python asks OPA and the answers it accepts, as strict models.

Unknown keys, missing keys and wrong types make an answer unusable, and an unusable answer is a deny.  The JSON Schemas
in `schemas/` that `opa check` uses are held to these models by `tests/policy/test_contract.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import JsonValue, model_validator

from gateway import __version__
from gateway.model import Identity, Permit, Reason, Value, Verdict

SCHEMA = 1


class Decision(StrEnum):
    """Paths of the decisions under `data`."""

    AUTHN = "gateway/authn/decision"
    CONFIG = "gateway/config/decision"
    AUTHZ = "gateway/authz/decision"
    LIVE = "gateway/authz/live"
    ADMISSION = "gateway/admission/decision"
    MALFORMED = "gateway/grants/malformed"


class Outcome(StrEnum):
    ACCEPT = "accept"
    CONTINUE = "continue"
    REJECT = "reject"


class AuthnAnswer(Value):
    outcome: Outcome
    identity: Identity | None = None
    methods: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()

    @model_validator(mode="after")
    def _accepted_as_someone(self) -> AuthnAnswer:
        if self.outcome is Outcome.ACCEPT and self.identity is None:
            raise ValueError("accept needs an identity")
        return self


class ConfigAnswer(Value):
    allow: bool
    permit: Permit | None = None
    reasons: tuple[Reason, ...] = ()

    @model_validator(mode="after")
    def _allowed_with_a_permit(self) -> ConfigAnswer:
        if self.allow and self.permit is None:
            raise ValueError("allow needs a permit")
        return self


class AuthzAnswer(Value):
    allow: bool
    obligations: tuple[JsonValue, ...] = ()
    reasons: tuple[Reason, ...] = ()

    @model_validator(mode="after")
    def _no_unknown_obligation(self) -> AuthzAnswer:
        if self.allow and self.obligations:
            raise ValueError("an allow carries an obligation that this gateway does not know")
        return self


class Judgement(Value):
    verdict: Verdict
    reasons: tuple[Reason, ...] = ()

    @model_validator(mode="after")
    def _an_end_says_why(self) -> Judgement:
        if self.verdict is not Verdict.KEEP and not self.reasons:
            raise ValueError("warn and end need a reason")
        return self


class LiveAnswer(Value):
    sessions: dict[str, Judgement]


class AdmissionAnswer(Value):
    allow: bool
    reasons: tuple[Reason, ...] = ()
    value: dict[str, JsonValue] | None = None


class MalformedGrant(Value):
    """One grant that has no effect, and why."""

    person: str
    id: str
    problems: tuple[JsonValue, ...] = ()


class Connection(Value):
    """Facts of the TCP and SSH connection."""

    id: str
    client_address: str
    client_port: int
    client_software: str = ""


class Key(Value):
    """A public key as facts."""

    type: str
    fingerprint: str
    public_key: str
    bits: int | None = None


class Attempt(Value):
    """One authentication method tried; `proven` only after its signature was verified."""

    method: str
    proven: bool
    key: Key | None = None


class LiveSession(Value):
    """One live session, as its judge sees it."""

    id: str
    person: str
    grant: str
    target: str
    started_at: str
    expires_at: str
    idle_seconds: float


def common(instance: str) -> dict[str, Any]:
    """What every question holds.  `now` is the gateway's clock, UTC."""
    now = datetime.now(UTC)
    return {
        "schema": SCHEMA,
        "now": rfc3339(now),
        "now_ns": int(now.timestamp() * 1_000_000) * 1000,
        "gateway": {"instance": instance, "version": __version__},
    }


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
