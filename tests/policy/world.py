"""A small world for policy: the fixtures' people and targets in a real OPA, and a gateway's way of asking it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from opentelemetry.metrics import Meter
from opentelemetry.sdk.trace import TracerProvider

from gateway.audit.journal import Journal
from gateway.audit.log import AuditLog
from gateway.metrics import UNMETERED
from gateway.policy import Policy
from gateway.policy.contract import rfc3339
from gateway.policy.opa import Opa as Asked
from gateway.sections import SecretRef
from gateway.settings import PolicySettings
from tests.reading import records
from tests.stack.opa import Opa

FIXTURES = Path(__file__).parents[2] / "policy-tests" / "fixtures"
ALICE, BOB = "alice", "bob"
ORDERS, REPORTS = "orders-db", "reports"


def data() -> dict[str, Any]:
    """The fixtures' base data; its grants are in 2030."""
    found: dict[str, Any] = json.loads((FIXTURES / "data.json").read_text())
    return found


def question(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / "inputs" / name / "input.json").read_text())
    return found


def in_minutes(minutes: float) -> str:
    return rfc3339(datetime.now(UTC) + timedelta(minutes=minutes))


def grant(**fields: Any) -> dict[str, Any]:
    """A grant that holds now; `fields` replace its own, and one that is None is left out."""
    whole = {
        "target": ORDERS,
        "starts_at": in_minutes(-1),
        "ends_at": in_minutes(60),
        "reason": "orders are stuck",
        "approved_by": "erin",
        **fields,
    }
    return {field: value for field, value in whole.items() if value is not None}


def populate(server: Opa, **changes: Any) -> list[str]:
    """Write the fixtures' people, targets and automations, and no grants; what was written.

    `changes` are to each target.
    """
    world = data()
    for target in world["targets"].values():
        target.pop("recording", None)  # this gateway cannot record, and says so
        target.update(changes)
    for person in world["people"].values():
        person.pop("authn", None)  # nor can it verify codes
    server.put("grants", {})
    written = [f"{root}/{name}" for root in ("people", "targets", "automations") for name in world[root]]
    for path in written:
        root, name = path.split("/")
        server.put(path, world[root][name])
    return written


@contextmanager
def inhabited(server: Opa, **changes: Any) -> Iterator[Opa]:
    """`server` populated, and afterwards not."""
    written = populate(server, **changes)
    try:
        yield server
    finally:
        server.put("grants", {})
        with server.client() as client:
            for path in written:
                client.delete(f"/v1/data/{path}")  # a test may have done so


def settings_for(server: Opa, **changes: Any) -> PolicySettings:
    token = SecretRef(file=server.token_files["gateway"])
    return PolicySettings(**{"url": server.url, "token": token, "timeout_seconds": 2.5, **changes})


@dataclass(frozen=True)
class Asking:
    """A gateway's policy and what it puts on record."""

    policy: Policy
    opa: Asked
    audit: AuditLog
    file: Path

    def journal(self, **ids: str) -> Journal:
        return Journal(self.audit, TracerProvider(shutdown_on_exit=False).get_tracer("tests"), **ids)

    def records(self, event: str = "") -> list[dict[str, Any]]:
        return records(self.file, event)


@asynccontextmanager
async def asking(settings: PolicySettings, file: Path, meter: Meter = UNMETERED) -> AsyncIterator[Asking]:
    async with AuditLog.open(file) as audit, Asked.open(settings) as opa:
        yield Asking(Policy(opa, "test", meter=meter), opa, audit, file)
