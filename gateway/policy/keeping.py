"""Whether this gateway can keep the conditions of an allow; what it cannot is a deny, each with its own code."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gateway.audit.journal import Journal, StepRecord
from gateway.errors import PolicyUnavailable
from gateway.masks import BadPattern, compiled
from gateway.model import Permit, Value
from gateway.obligations import AskReason, FourEyes, Mask, Notify, RateLimit, ReadOnlySftp, Record, misfits, of_kind
from gateway.policy.contract import AuthzAnswer, ConfigAnswer


def keepable(obligations: Sequence[Any], fitting: Collection[str], hooks: Collection[str]) -> None:
    """Raises PolicyUnavailable: `policy_malformed`, `recording_unavailable`, `hook_unknown` or `pattern_broken`."""
    if wrong := misfits(obligations, fitting):
        raise PolicyUnavailable(
            f"the policy allowed this on a condition that does not go with it: {', '.join(wrong)}",
            code="policy_malformed",
            remedy="Nothing is wrong with your grant. Tell the security team the decision id.",
        )
    if any(record.required for record in of_kind(Record, obligations)):
        raise no_recorder("Tell the security team: `record` must not be `required` here.")
    named = {notify.hook for notify in of_kind(Notify, obligations)}
    named |= {eyes.hook for eyes in of_kind(FourEyes, obligations) if eyes.hook is not None}
    for hook in sorted(named - set(hooks)):
        raise PolicyUnavailable(
            f"the policy wants the webhook {hook} told, which this gateway does not have",
            code="hook_unknown",
            remedy=f"Nothing is wrong with your grant. Tell the platform team: the settings lack [hooks.{hook}].",
        )
    for asked in of_kind(AskReason, obligations):
        if asked.pattern is not None:
            _usable(asked.pattern)
    if any(limit.operations_per_minute is not None for limit in of_kind(RateLimit, obligations)):
        raise PolicyUnavailable(
            "the policy wants something that this gateway does not do yet: operations_per_minute of a rate_limit",
            code="obligation_unkept",
            remedy="Nothing is wrong with your grant. Tell the security team the decision id.",
        )


def standing_for(request: Mapping[str, Any], permit: Permit) -> tuple[Any, ...]:
    """What the session is obliged to and is kept where this request is."""
    is_files = request["kind"] == "subsystem" and request.get("name") == "sftp"
    return of_kind(ReadOnlySftp, permit.obligations) if is_files else ()


def no_recorder(remedy: str) -> PolicyUnavailable:
    return PolicyUnavailable(
        "the policy wants this recorded, and this gateway cannot record", code="recording_unavailable", remedy=remedy
    )


def conceal(journal: Journal, record: StepRecord, answer: Value) -> None:
    """Hide from now on what the answer's masks hide, in `record` too.  Raises PolicyUnavailable, `pattern_broken`.

    Where a mask cannot be used nobody knows what it was to hide: then what was asked is withheld from the record.
    """
    match answer:
        case AuthzAnswer():
            masks = of_kind(Mask, answer.obligations)
        case ConfigAnswer() if answer.permit is not None:
            masks = of_kind(Mask, answer.permit.obligations)
        case _:
            return
    try:
        journal.masks.add(masks)
    except BadPattern as error:
        record.withheld = True
        raise _broken(error) from error


def _usable(pattern: str) -> None:
    try:
        compiled(pattern)
    except BadPattern as error:
        raise _broken(error) from error


def _broken(error: BadPattern) -> PolicyUnavailable:
    return PolicyUnavailable(
        f"the policy has a pattern that cannot be used: {error}",
        code="pattern_broken",
        remedy="Nothing is wrong with your grant. Tell the security team the decision id.",
    )
