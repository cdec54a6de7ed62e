"""What has to happen between a permit and its session: a reason, somebody else's word, a grant written, a webhook told.

Nothing is started meanwhile.  Whatever was waited for, config is asked again with it: a permit that was waited on says
what was so before, and it is policy that judges the reason and who may approve.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from opentelemetry.metrics import Meter

from gateway.approvals import Approvals, Waiting, Word
from gateway.audit.journal import Journal
from gateway.concurrency import first_done
from gateway.errors import Denied, DoorwardError, PolicyUnavailable
from gateway.glass import MAX_TRIES, Glass, unbroken, wanted_by
from gateway.hooks import Hooks
from gateway.masks import compiled
from gateway.model import Permit, SessionId
from gateway.narration import breaks_glass, waits_for
from gateway.obligations import AskReason, BreakGlass, FourEyes, Notify, of_kind
from gateway.parties import Client
from gateway.policy import Configured, Policy
from gateway.policy.census import Census
from gateway.policy.contract import rfc3339
from gateway.policy.opa import Opa
from gateway.telemetry import Step

MAX_REASONS = 3
"""Reasons that one session is asked for; policy may want another than it got."""


class Obligations:
    """How what a permit obliges to before a session is done."""

    def __init__(self, policy: Policy, hooks: Hooks, approvals: Approvals, glass: Glass, poll_seconds: float) -> None:
        self._policy = policy
        self._glass = glass
        self._hooks = hooks
        self._approvals = approvals
        self._poll_seconds = poll_seconds

    async def met(
        self, session: SessionId, client: Client, request: Mapping[str, Any], answer: Configured, journal: Journal
    ) -> Configured:
        """The answer as it is once all of that is done.  Raises DoorwardError: refused, too late, or not to be had."""
        facts, asked, tries = dict(request), 0, 0
        while True:
            permit = answer.granted()
            journal.bind(grant=permit.grant, target=permit.target)
            wanted = next((one for one in of_kind(AskReason, permit.obligations) if _unfit(one, facts)), None)
            eyes = next(iter(of_kind(FourEyes, permit.obligations)), None)
            if wanted is not None:
                if (asked := asked + 1) > MAX_REASONS:
                    raise _no_reason("no reason that you gave is one")
                facts["reason"] = await self._reason(client, wanted, answer, journal)
                answer = await self._policy.configure(journal, client.subject, facts)
            elif eyes is not None:
                answer = await self._joined(session, client, facts, answer, eyes, journal)
            elif (grant := wanted_by(permit)) is not None:
                if (tries := tries + 1) > MAX_TRIES:
                    raise unbroken()
                answer = await self._broken(client, facts, permit, grant, journal)
            else:
                break
        await self._tell(client, facts, permit, journal)
        return answer

    # -- a reason -------------------------------------------------------------------------------------------------

    async def _reason(self, client: Client, wanted: AskReason, answer: Configured, journal: Journal) -> str:
        client.desk.hold(answer)
        async with journal.step(Step.REASON, prompt=wanted.prompt) as step:
            first = await client.wait_request()
            text = await client.desk.reason(wanted, first, lambda text: unfit(wanted, text))
            step.note(reason=text)
            return text

    # -- four eyes ------------------------------------------------------------------------------------------------

    async def _joined(
        self,
        session: SessionId,
        client: Client,
        facts: dict[str, Any],
        answer: Configured,
        eyes: FourEyes,
        journal: Journal,
    ) -> Configured:
        """Wait until config's permit no longer wants anybody to join."""
        permit = answer.granted()
        client.desk.hold(answer)
        shown = _shown(client, permit, eyes, facts)
        async with journal.step(Step.APPROVAL, approvers=eyes.approvers, seconds=eyes.seconds) as step:
            if eyes.hook is not None:
                await self._hooks.tell(journal, "approval_wanted", {**shown, "request": facts}, [(eyes.hook, False)])
            client.desk.tell(waits_for(session, client, permit, eyes))
            with self._approvals.waits(session, journal.masks.facts(shown)) as waiting:
                try:
                    async with asyncio.timeout(eyes.seconds):
                        answer = await first_done(
                            self._answered(client, facts, answer, waiting, journal), client.desk.left()
                        )
                except TimeoutError as error:
                    raise DoorwardError(
                        f"nobody who may has joined within {eyes.seconds:g} s",
                        code="approval_timeout",
                        remedy=f"Ask {eyes.approvers} first, then connect again.",
                    ) from error
            step.note(approvals=facts.get("approvals", []))
        client.desk.tell("doorward: approved.")
        return answer

    async def _answered(
        self, client: Client, facts: dict[str, Any], answer: Configured, waiting: Waiting, journal: Journal
    ) -> Configured:
        """Ask config again at every answer, and now and then for those in its data, until it wants nobody to join."""
        unanswered = time.monotonic()
        while True:
            word = await waiting.next(self._poll_seconds)
            try:
                if word is not None:
                    answer = await self._judged(client, facts, word, journal)
                else:
                    answer = await self._policy.reconsider(journal, client.subject, facts, answer) or answer
            except PolicyUnavailable:
                if time.monotonic() - unanswered >= answer.granted().session.policy_grace_seconds:
                    raise
                continue
            unanswered = time.monotonic()
            if not of_kind(FourEyes, answer.granted().obligations):
                return answer

    async def _judged(self, client: Client, facts: dict[str, Any], word: Word, journal: Journal) -> Configured:
        """Config's answer with one more word; whoever said it is told what became of it.

        Of one person the last word counts.  One that could not be judged is forgotten.
        """
        others = [one for one in facts.get("approvals", []) if one["by"] != word.by]
        approvals = [*others, {"by": word.by, "approve": word.approve}]
        try:
            answer = await self._policy.configure(journal, client.subject, {**facts, "approvals": approvals})
            permit = answer.granted()
        except Denied as refused:
            facts["approvals"] = approvals
            word.settle("refused", refused.reasons)
            raise
        except DoorwardError as error:
            word.settle("waiting", error.reasons)
            raise
        facts["approvals"] = approvals
        eyes = of_kind(FourEyes, permit.obligations)
        word.settle("waiting" if eyes else "approved", eyes[0].not_counted if eyes else ())
        return answer

    # -- breaking the glass ---------------------------------------------------------------------------------------

    async def _broken(
        self, client: Client, facts: Mapping[str, Any], permit: Permit, wanted: BreakGlass, journal: Journal
    ) -> Configured:
        """Config's answer with the grant there, whoever wrote it."""
        identity = client.subject.identity
        assert identity is not None
        if await self._glass.broken(journal, identity.person, permit, wanted):
            client.desk.tell(breaks_glass(permit, wanted))
        return await self._policy.configure(journal, client.subject, facts)

    # -- webhooks -------------------------------------------------------------------------------------------------

    async def _tell(self, client: Client, facts: Mapping[str, Any], permit: Permit, journal: Journal) -> None:
        hooks = [(notify.hook, notify.required) for notify in of_kind(Notify, permit.obligations)]
        if hooks:
            about = {
                "client_address": client.subject.connection.client_address,
                "login": client.subject.login,
                "expires_at": rfc3339(permit.expires_at),
                "request": dict(facts),
            }
            await self._hooks.tell(journal, "break_glass" if permit.break_glass else "session", about, hooks)


def unfit(wanted: AskReason, text: str) -> str:
    """Why `text` is not what is wanted, in words; empty where it is."""
    if len(text.strip()) < wanted.min_length:
        return f"it needs at least {wanted.min_length} characters"
    if wanted.pattern is not None and compiled(wanted.pattern).search(text) is None:
        return f"it has to hold something like {wanted.pattern}"
    return ""


def _unfit(wanted: AskReason, facts: Mapping[str, Any]) -> bool:
    return "reason" not in facts or bool(unfit(wanted, facts["reason"]))


def _no_reason(message: str) -> DoorwardError:
    return DoorwardError(message, code="reason_missing", remedy="Connect again with a reason that fits.")


def _shown(client: Client, permit: Permit, eyes: FourEyes, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What an approver has to know."""
    identity = client.subject.identity
    now = datetime.now(UTC)
    return {
        "person": identity.person if identity is not None else "",
        "target": permit.target,
        "grant": permit.grant,
        "approvers": eyes.approvers,
        "reason": facts.get("reason", ""),
        "since": rfc3339(now),
        "until": rfc3339(now + timedelta(seconds=eyes.seconds)),
        "client_address": client.subject.connection.client_address,
    }


class TellingPolicy(Policy):
    """Policy, where whom an allowed request obliges to tell is told before it counts as allowed."""

    def __init__(self, opa: Opa, instance: str, hooks: Hooks, census: Census, meter: Meter) -> None:
        super().__init__(opa, instance, hooks.names, census, meter)
        self._tell = hooks.tell

    async def authorize(self, journal: Journal, subject: Any, permit: Permit, request: Mapping[str, Any]) -> Any:
        """See `Policy.authorize`.  Raises HookUnavailable too."""
        obliged = await super().authorize(journal, subject, permit, request)
        hooks = [(notify.hook, notify.required) for notify in of_kind(Notify, obliged)]
        if hooks:
            await self._tell(journal, "request", {"request": dict(request)}, hooks)
        return obliged
