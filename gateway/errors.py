"""Every error that may reach an engineer, and what they are told.

    DoorwardError              code, message, remedy: safe to show
    ├── Denied                 policy said no (reasons come from Rego)
    ├── PolicyUnavailable      OPA down, slow, undefined or outside the contract: a deny of ours
    ├── VerifierUnavailable    a proof could not be checked, so it proves nothing
    ├── CredentialsUnavailable the issuer could not issue
    ├── WorkspaceUnavailable   the runtime could not start, or lost, the workspace
    ├── AuditUnavailable       the record cannot be written, so nothing may happen
    ├── GatewayShutdown        whoever is inside, or on the way, is told to come again
    ├── SessionEnded           a running session was ended, with its reason
    └── SettingsError          the operator's file is wrong

Adapters translate their vendor's exceptions at the call, `raise ... from error`; what the vendor said goes to the log
by `__cause__`, never to the engineer.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.model import Reason

REFUSED = 254
"""Exit status of a refused or ended session.  255 is ssh's own failure, so a script can tell the two apart."""


class DoorwardError(Exception):
    """Base of all errors shown to people.  `reasons` is never empty; `decision_id` is what support asks for.

    `lines` are shown below the reasons where there is room for more than one line.
    """

    lines: Sequence[str] = ()
    code = "internal"
    remedy = "Try again; if it stays, tell the platform team the session id."

    def __init__(self, message: str, *, code: str = "", remedy: str = "", decision_id: str = "") -> None:
        super().__init__(message)
        self.decision_id = decision_id
        self.reasons: tuple[Reason, ...] = (
            Reason(code=code or self.code, message=message[:500], remedy=(remedy or self.remedy)[:500]),
        )


class Denied(DoorwardError):
    """Policy's own refusal, in policy's own words."""

    code = "denied"
    remedy = ""

    def __init__(self, reasons: Sequence[Reason], *, decision_id: str = "") -> None:
        first = reasons[0].message if reasons else "policy refused and gave no reason"
        super().__init__(first, decision_id=decision_id)
        if reasons:
            self.reasons = tuple(reasons)


class PolicyUnavailable(DoorwardError):
    """No usable decision could be had, so the answer is no."""

    code = "policy_unavailable"
    remedy = "Nothing is wrong with your grant. Tell the platform team; try again when OPA answers."


class VerifierUnavailable(DoorwardError):
    """What would prove the attempt does not answer, or answers nonsense."""

    code = "verifier_unavailable"
    remedy = "Nothing is wrong with what you typed. Tell the platform team; try again when it answers."


class CredentialsUnavailable(DoorwardError):
    """The issuer did not issue, or could not keep a lease alive."""

    code = "credentials_unavailable"
    remedy = "Nothing is wrong with your grant. Tell the platform team; try again when the issuer answers."


class WorkspaceUnavailable(DoorwardError):
    """The workspace could not be started, or is gone."""

    code = "workspace_unavailable"
    remedy = "Try again; if it stays, tell the platform team the session id."


class AuditUnavailable(DoorwardError):
    """What cannot be recorded does not happen."""

    code = "audit_unavailable"
    remedy = "Tell the platform team: the audit log cannot be written. Nothing will run until it can."


class SessionEnded(DoorwardError):
    """The session was running and had to end."""

    code = "session_ended"
    remedy = ""

    def __init__(self, reasons: Sequence[Reason], *, decision_id: str = "") -> None:
        super().__init__(reasons[0].message, decision_id=decision_id)
        self.reasons = tuple(reasons)


class GatewayShutdown(DoorwardError):
    """This gateway ends."""

    code = "gateway_shutdown"
    remedy = "Connect again in a minute."

    def __init__(self) -> None:
        super().__init__("the gateway is shutting down")


class SettingsError(DoorwardError):
    """The configuration is wrong; the message names the key and the remedy."""

    code = "settings"
    remedy = "See `doorward config schema`."
