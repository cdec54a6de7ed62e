"""The gateway's questions, as a study asks them: the same shape (`schemas/input.*.json`), at any moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.policy.contract import common, rfc3339

ADDRESS = "192.0.2.1"
"""Where a study's people come from, when nobody says (RFC 5737: nobody's)."""

Facts = Mapping[str, Any]
IDENTITY = {"groups": [], "via": [], "key_id": "", "restrictions": [], "force_command": "", "honeypot": False}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When and where from it is asked."""

    at: datetime
    address: str = ADDRESS
    instance: str = "doorward"

    def facts(self, login: str) -> dict[str, Any]:
        ns = int(self.at.timestamp() * 1_000_000) * 1000
        client = {"id": "study", "client_address": self.address, "client_port": 50022,
                  "client_software": "SSH-2.0-study"}  # fmt: skip
        return {
            **common(self.instance), "now": rfc3339(self.at), "now_ns": ns,
            "connection": client, "login": {"user": login},
        }  # fmt: skip


def login_name(person: str, target: str) -> str:
    return f"{person}+{target}" if target else person


def authn(when: Circumstances, login: str, attempt: Facts, proofs: Sequence[Facts]) -> dict[str, Any]:
    return {**when.facts(login), "attempt": attempt, "proofs": list(proofs)}


def config(when: Circumstances, login: str, identity: Facts, proofs: Sequence[Facts], request: Facts) -> dict[str, Any]:
    return {
        **when.facts(login), "identity": {**IDENTITY, **identity}, "proofs": list(proofs), "request": request,
        "open": [], "open_at": {},
    }  # fmt: skip


def authz(when: Circumstances, login: str, identity: Facts, permit: Facts, request: Facts) -> dict[str, Any]:
    """As the gateway does, a summary of the permit goes along."""
    forced = (permit.get("workspace") or {}).get("force_command")
    summary = {
        "grant": permit["grant"],
        "target": permit["target"],
        "expires_at": permit["expires_at"],
        **({} if forced is None else {"force_command": forced}),
    }
    return {**when.facts(login), "identity": {**IDENTITY, **identity}, "permit": summary, "request": request}
