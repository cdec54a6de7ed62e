"""The register: which candidates there are for each reason code, and why for some there are none."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.policy.contract import Decision
from gateway.studies import remedies_grants as grants
from gateway.studies import remedies_logins as logins
from gateway.studies import remedies_targets as targets
from gateway.studies.remedies import Remedy

CANDIDATES: Mapping[str, tuple[Remedy, ...]] = {
    "not_recognised": (logins.enable, logins.register_key),
    "hardware_key_needed": (logins.use_hardware,),
    "certificate_not_yours": (logins.log_in_as_named,),
    "certificate_not_yet_valid": (logins.valid_later,),
    "certificate_expired": (logins.renewed,),
    "certificate_elsewhere": (logins.from_there,),
    "certificate_option_unknown": (logins.without_option,),
    "stronger_login_needed": (logins.prove_more,),
    "forced_command_conflict": (logins.log_in_unforced,),
    "person_disabled": (logins.enable,),
    "target_needed": (logins.choose_target,),
    "target_misconfigured": (targets.mend,),
    "no_grant": (grants.new,),
    "grant_deleted": (grants.new,),
    "grant_not_started": (grants.wait, grants.start_now),
    "grant_window_closed": (grants.wait, grants.open_window),
    "grant_not_approved": (grants.approve, grants.wait),
    "grant_approval_over": (grants.approve,),
    "grant_ended": (grants.extend, grants.new),
    "grant_ended_early": (grants.new,),
    "grant_ends_soon": (grants.extend,),
    "grant_target_changed": (grants.retarget,),
    "grant_malformed": (grants.mend,),
    "certificate_restricts": (logins.permission,),
    "shell_refused": (targets.allowing("shell"),),
    "exec_refused": (targets.allowing("exec"),),
    "terminal_refused": (targets.allowing("shell"), targets.allowing("exec")),
    "subsystem_refused": (targets.subsystem,),
    "forward_refused": (targets.listing("forwards", what="forwarding to", keys=("host", "port")),),
    "env_refused": (targets.listing("env", what="name"),),
    "x11_refused": (targets.allowing("x11"),),
    "agent_refused": (targets.allowing("agent"),),
    "remote_forward_refused": (targets.listener,),
    "unix_socket_refused": (targets.socket,),
    "sftp_path_refused": (targets.files,),
    "sftp_write_refused": (targets.files,),
    "sftp_rename_refused": (targets.files,),
    "sftp_link_refused": (targets.files,),
}

NEVER: Mapping[str, str] = {
    "weak_key": "which keys are too weak is said in the policies themselves; the person needs another key",
    "certificate_revoked": "what was revoked stays so; the person needs another certificate",
    "approval_refused": "somebody who may said no, and nobody else takes that back",
    "review_owed": "somebody else has to review what was done behind broken glass; nobody else pays that debt",
    "break_glass_refused": "the target says who breaks its glass, and why else not: that is for an emergency to show",
    "too_many_sessions": "a limit of sessions is reached: one of the person's has to end first",
    "restricted": "the target is closed for this on purpose, for now; whoever closed it opens it again",
    "copy_outdated": "the OPA that was asked has a copy of the data that is too old: see why it does not follow",
    "target_removed": "what the target was is not known; those who keep the targets can write it again",
    "schema_unknown": "gateway and policies are of different versions: install those that belong together",
    "malformed_input": "the question lacks what every question has: see docs/reference/input.md",
    "env_dangerous": "no target takes such a variable: it can change which programs run",
    "unix_socket_not_plain": "no target takes such a path: write it in full, without `.`, `..` or empty parts",
    "unix_socket_protected": "no target forwards sockets in this place",
    "request_unknown": "no target takes a kind of request that the policies do not name",
    "sftp_operation_unknown": "no target takes an operation that the policies do not name",
}
"""Why nothing is proposed for a code."""

IN_SESSIONS: Mapping[str, str] = {
    "grant_ended_early": "somebody ended the grant of this session on purpose; a new grant is for a new connection",
}
"""The same, where it is a session that stands on the grant already."""


def candidates(code: str, decision: str) -> tuple[Remedy, ...]:
    return () if why_none(code, decision) else CANDIDATES.get(code, ())


def why_none(code: str, decision: str) -> str:
    """Why nothing is tried for the code; empty where something is."""
    if code in IN_SESSIONS and decision in (Decision.AUTHZ, Decision.LIVE):
        return IN_SESSIONS[code]
    if code in CANDIDATES:
        return ""
    return NEVER.get(code, "no change is known for this code")
