"""Who stands at the door, and what policy is asked about them for a permit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.model import Identity
from gateway.policy.census import Census
from gateway.policy.contract import Connection
from gateway.proofs import Attempt


@dataclass(frozen=True, slots=True)
class Subject:
    """Who stands at the door, before and after authentication."""

    connection: Connection
    login: str
    identity: Identity | None = None
    proofs: tuple[Attempt, ...] = ()

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"connection": self.connection.model_dump(), "login": {"user": self.login}}
        if self.identity is not None:
            facts["identity"] = self.identity.model_dump(mode="json")
        return facts


def permit_question(subject: Subject, request: Mapping[str, Any], census: Census) -> dict[str, Any]:
    person = subject.identity.person if subject.identity is not None else ""
    counted = census.counted(person, besides=subject.connection.id)
    return {**subject.facts(), "proofs": shown(subject.proofs), "request": request, **counted}


def shown(proofs: Sequence[Attempt]) -> list[dict[str, Any]]:
    return [proof.model_dump(mode="json") for proof in proofs]
