"""What every answer is looked at for: the basis that comes with it, its version, and what a reader can search for."""

from __future__ import annotations

from typing import Any

from gateway.audit.basis import NOTHING, Basis, read
from gateway.errors import PolicyUnavailable
from gateway.model import Value
from gateway.policy.contract import (
    BASIS,
    SCHEMA,
    AdminAnswer,
    AdmissionAnswer,
    AuthnAnswer,
    AuthzAnswer,
    ConfigAnswer,
)


def basis_of(result: Any) -> Basis:
    """What the answer stands on, taken out of it.  Raises ValueError when it does not fit."""
    return read(result.pop(BASIS, [])) if isinstance(result, dict) else NOTHING


def check_version(result: Any) -> None:
    """Raises PolicyUnavailable for an answer that says that it is written in another version of the contract."""
    version = result.get("schema", SCHEMA) if isinstance(result, dict) else SCHEMA
    if version != SCHEMA:
        raise PolicyUnavailable(
            f"the policy answers by another version of the contract than this gateway's, {SCHEMA}",
            code="policy_version",
            remedy="Tell the platform team: policies and gateway of the same version belong together.",
        )


def outcome_of(answer: Value) -> str:
    """What a reader of records can search for."""
    match answer:
        case AuthnAnswer():
            return answer.outcome.value
        case ConfigAnswer() | AuthzAnswer() | AdmissionAnswer() | AdminAnswer():
            return "allow" if answer.allow else "deny"
    return "ok"
