"""Breaking the glass: the grant that policy wants written before anything is started.

It is created and never replaced (`If-None-Match: *`), so of two logins at once that choose the same id only one writes
it; the other is judged by what it finds.  What is owed afterwards follows from the grant alone: nothing is kept here.
"""

from __future__ import annotations

from gateway.audit.journal import Journal
from gateway.errors import DoorwardError
from gateway.model import Permit
from gateway.obligations import BreakGlass, of_kind
from gateway.policy.opa import Opa
from gateway.telemetry import Step

MAX_TRIES = 3
"""Grants that one session tries to write: somebody else may have been quicker, each time."""


class Glass:
    """How the grant is written."""

    def __init__(self, opa: Opa) -> None:
        self._opa = opa

    async def broken(self, journal: Journal, person: str, permit: Permit, wanted: BreakGlass) -> bool:
        """Write the grant; False, and nothing is written, where there is one of its id.

        Raises PolicyUnavailable, or AuditUnavailable.
        """
        path, value = ("grants", person, permit.grant), wanted.grant.model_dump()
        async with journal.step(Step.BREAKGLASS, path="/".join(path), new=value) as step:
            created = await self._opa.create(*path, value=value)
            step.note(outcome="ok" if created else "conflict")
            return created


def wanted_by(permit: Permit) -> BreakGlass | None:
    """What the permit wants written first, if anything."""
    return next(iter(of_kind(BreakGlass, permit.obligations)), None)


def unbroken() -> DoorwardError:
    return DoorwardError(
        "the grant that breaking the glass needs could not be written: others were quicker each time",
        code="break_glass_conflict",
        remedy="Connect again.",
    )
