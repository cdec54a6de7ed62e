"""Malformed grants: what was written straight to OPA and fits no schema has no effect, and is reported here."""

from __future__ import annotations

import asyncio
import json
import logging

from opentelemetry.metrics import Meter
from pydantic import TypeAdapter, ValidationError

from gateway.audit.journal import Journal
from gateway.errors import AuditUnavailable, PolicyUnavailable
from gateway.metrics import Metric
from gateway.policy.contract import Decision, MalformedGrant, common
from gateway.policy.opa import Opa
from gateway.telemetry import Step

log = logging.getLogger(__name__)
FOUND = TypeAdapter(tuple[MalformedGrant, ...])


class Lint:
    """Looks for malformed grants on a slow sweep, and says each once."""

    def __init__(self, opa: Opa, journal: Journal, instance: str, seconds: float, meter: Meter) -> None:
        self._opa = opa
        self._journal = journal
        self._instance = instance
        self._seconds = seconds
        self._said: set[str] = set()
        self._count = meter.create_gauge(Metric.MALFORMED, description="documents without effect")

    async def find(self) -> tuple[MalformedGrant, ...]:
        """All malformed grants now.  Raises PolicyUnavailable.  It walks every grant: never part of a decision."""
        answer = await self._opa.query(Decision.MALFORMED, common(self._instance), {})
        try:
            return FOUND.validate_json(json.dumps(answer.result if answer.defined else []))
        except ValidationError as error:
            raise PolicyUnavailable("the policy answered outside its contract", code="policy_malformed") from error

    async def sweep(self) -> None:
        while True:
            try:
                await self._report(await self.find())
            except (PolicyUnavailable, AuditUnavailable) as error:
                log.warning("grants_lint_failed", extra={"code": error.reasons[0].code})
            await asyncio.sleep(self._seconds)

    async def _report(self, found: tuple[MalformedGrant, ...]) -> None:
        self._count.set(len(found), {"root": "grants"})
        now = {grant.model_dump_json() for grant in found}
        for grant in found:
            if grant.model_dump_json() not in self._said:
                log.warning("grant_malformed", extra={"person": grant.person, "grant": grant.id})
                await self._journal.record(Step.GRANT, "malformed", **grant.model_dump(mode="json"))
        self._said = now
