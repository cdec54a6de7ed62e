"""The bundles of the OPA that decides: which revision of each is active, and whether the next one fails.

OPA keeps the bundle it has when a new one cannot be had, does not compile or is signed by nobody it trusts; it stays
healthy, so nobody would notice.  Here it is noticed: in the log when it begins and when it is over, and by
`doorward check`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from gateway.errors import PolicyUnavailable
from gateway.policy.opa import Opa

log = logging.getLogger(__name__)

LIVE_ROOTS = frozenset({"grants", "roster", "approvals", "reviews"})
"""Written while OPA runs.  A bundle that owns one wipes it, and OPA then refuses every write to it."""
MESSAGE_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Bundle:
    """One bundle as its OPA tells of it."""

    name: str
    revision: str
    """The active one; empty where there is none yet."""
    roots: tuple[str, ...]
    trouble: str
    """Why the next one does not become active; empty where nothing is wrong, or where OPA does not tell."""

    @property
    def taken(self) -> list[str]:
        """Roots that are not a bundle's to own."""
        return [root for root in self.roots if root.strip("/").split("/")[0] in LIVE_ROOTS | {""}]


async def look(opa: Opa) -> tuple[tuple[Bundle, ...], bool]:
    """The bundles by name, and whether OPA would tell of one that fails.  Raises PolicyUnavailable."""
    active = await opa.read("system", "bundles") or {}
    status = await opa.status()
    try:
        told = (status or {}).get("bundles") or {}
        names = sorted({*active, *told})
        return tuple(_bundle(name, active.get(name, {}), told.get(name, {})) for name in names), status is not None
    except (AttributeError, TypeError) as error:
        raise PolicyUnavailable("the policy engine answered nonsense", code="policy_malformed") from error


def _bundle(name: str, active: dict[str, Any], told: dict[str, Any]) -> Bundle:
    manifest = active.get("manifest") or {}
    return Bundle(
        name=name,
        revision=str(manifest.get("revision", "")),
        roots=tuple(map(str, manifest.get("roots") or ())),
        trouble=_trouble(told) if told.get("code") else "",
    )


def _trouble(told: dict[str, Any]) -> str:
    errors = [str(error.get("message", "")) for error in told.get("errors") or () if isinstance(error, dict)]
    return "; ".join([str(told.get("message") or told["code"]), *errors])[:MESSAGE_LENGTH]


class BundleWatch:
    """Looks now and then, and logs what is new."""

    def __init__(self, opa: Opa, seconds: float) -> None:
        self._opa = opa
        self._seconds = seconds
        self._known: dict[str, Bundle] = {}
        self._unseen = False

    async def sweep(self) -> None:
        while True:
            try:
                found, _ = await look(self._opa)
            except PolicyUnavailable as error:
                self._not_told(error)
            else:
                self._unseen = False
                self._tell(found)
            await asyncio.sleep(self._seconds)

    def _not_told(self, error: PolicyUnavailable) -> None:
        if not self._unseen:
            log.warning("policy_bundles_unknown", extra={"code": error.reasons[0].code})
        self._unseen = True

    def _tell(self, found: tuple[Bundle, ...]) -> None:
        for bundle in found:
            known = self._known.get(bundle.name)
            facts = {"bundle": bundle.name, "revision": bundle.revision}
            if known is None or known.revision != bundle.revision:
                log.info("policy_bundle_active", extra=facts)
            if bundle.trouble and (known is None or known.trouble != bundle.trouble):
                log.error("policy_bundle_failing", extra={**facts, "why": bundle.trouble})
            if known is not None and known.trouble and not bundle.trouble:
                log.info("policy_bundle_recovered", extra=facts)
            if bundle.taken and (known is None or known.taken != bundle.taken):
                log.error("policy_bundle_owns_live_data", extra={**facts, "roots": bundle.taken})
        self._known = {bundle.name: bundle for bundle in found}
