"""What can go wrong with a study."""

from __future__ import annotations

from gateway.errors import DoorwardError


class StudyError(DoorwardError):
    """What is to be studied cannot be: the message names the file or the field, the remedy what to do."""

    code = "study"
    remedy = "See docs/policy-tools.md."


class PolicyFailed(StudyError):
    """OPA was asked, and the policy failed on the way: a builtin, or two rules that say different things."""
