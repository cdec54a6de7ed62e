"""A refusal for every reason code: what is asked, and what is other in the fixtures' data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from gateway.policy.contract import Decision
from gateway.studies.engine import Change
from gateway.studies.remedies import applied, at
from tests.policy.world import data, question

HOUR = 3600 * 10**9
NS = 1896091200000000000
CA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNvcnBvcmF0ZS1jZXJ0aWZpY2F0ZS1hdXRob3JpdHkt corp CA"
SECURITY_KEY = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIHNr"
INC = ("grants", "alice", "INC-1")
DB = ("targets", "orders-db")


@dataclass(frozen=True)
class Refusal:
    """One way to get the code."""

    code: str
    decision: Decision
    asked: Mapping[str, Any]
    changes: Sequence[Change] = ()
    proposed: str = ""
    """What the first proposal says, in part."""

    @property
    def tree(self) -> dict[str, Any]:
        return applied(data(), self.changes)

    @property
    def question(self) -> dict[str, Any]:
        return dict(self.asked)


def put(*path: str, value: Any) -> Change:
    return Change(path, value)


def gone(*path: str) -> Change:
    return Change(path, remove=True)


def changed(name: str, **fields: Any) -> dict[str, Any]:
    """The fixture's question with these fields: `identity__via` is `via` in `identity`."""
    asked = deepcopy(question(name))
    for path, value in fields.items():
        *above, last = path.split("__")
        place = asked
        for step in above:
            place = place[step]
        place[last] = value
    return asked


def later(hours: float) -> dict[str, Any]:
    return {"now_ns": NS + int(hours * HOUR)}


def config(code: str, proposed: str, *changes: Change, **fields: Any) -> Refusal:
    return Refusal(code, Decision.CONFIG, changed("config", **fields), changes, proposed)


def authz(code: str, proposed: str, *changes: Change, **fields: Any) -> Refusal:
    return Refusal(code, Decision.AUTHZ, changed("authz", **fields), changes, proposed)


def request(code: str, proposed: str, *changes: Change, **facts: Any) -> Refusal:
    return authz(code, proposed, *changes, request=facts)


def file(code: str, proposed: str, operation: str, path: str, **facts: Any) -> Refusal:
    rules = put(*DB, "allow", "sftp", value={"read": ["/srv/**"], "write": ["/srv/in/**"]})
    return request(code, proposed, rules, kind="sftp", operation=operation, path=path, **facts)


def live(code: str, proposed: str, *changes: Change, **fields: Any) -> Refusal:
    return Refusal(code, Decision.LIVE, changed("live", **fields), changes, proposed)


def authn(code: str, proposed: str, *changes: Change, **fields: Any) -> Refusal:
    return Refusal(code, Decision.AUTHN, changed("authn", **fields), changes, proposed)


def certified(code: str, proposed: str, fields: Mapping[str, Any] = {}, **more: Any) -> Refusal:
    certificate = {
        "key_id": "alice@corp", "serial": 7, "ca": {**question("authn")["attempt"]["key"], "public_key": CA},
        "principals": ["alice"], "valid_after": NS // 10**9 - 60, "valid_before": NS // 10**9 + 3600,
        "critical_options": {}, "extensions": {}, **fields,
    }  # fmt: skip
    return authn(code, proposed, attempt__certificate=certificate, **more)


APPROVAL = put(*DB, "approval", value={"needed": 2, "by": {"groups": ["oncall"], "people": ["bob", "alice"]}})
EYES = put(*DB, "oblige", value={"four_eyes": {"people": ["bob"], "seconds": 60}})
LABELS = put("targets", "reports", "labels", value={"team": "orders"})
SECOND = put("grants", "alice", "INC-2", value={**data()["grants"]["alice"]["INC-1"], "target": "reports"})
NIGHT = [{"days": ["thu"], "from": "22:00", "to": "23:00", "zone": "UTC"}]
ON_SECURITY_KEY = {"type": "sk", "fingerprint": "SHA256:x", "public_key": SECURITY_KEY, "bits": None}

REFUSALS = [
    authn("not_recognised", "register this key for bob", gone("door", "verify"), login__user="bob"),
    authn("not_recognised", "enable carol's account", gone("door", "verify"), login__user="carol"),
    authn("not_recognised", "enable bob's account again; and register", gone("door", "verify"),
          put("people", "bob", "disabled", value=True), login__user="bob"),
    authn("weak_key", "", attempt__key={**question("authn")["attempt"]["key"], "public_key": "ssh-dss AAAA"},
          attempt__proven=False),
    authn("hardware_key_needed", "touch the security key", put("people", "alice", "keys", value=[SECURITY_KEY]),
          attempt__key={**ON_SECURITY_KEY, "touched": False, "pin_verified": False}),
    authn("hardware_key_needed", "and give its PIN", put("people", "alice", "keys", value=[SECURITY_KEY]),
          put("door", "require_pin", value=True),
          attempt__key={**ON_SECURITY_KEY, "touched": False, "pin_verified": False}),
    certified("certificate_not_yours", "log in as alice", login__user="bob"),
    certified("certificate_not_yet_valid", "wait until 2030-01-31 13:00:00", {"valid_after": NS // 10**9 + 3600,
                                                                            "valid_before": NS // 10**9 + 7200}),
    certified("certificate_expired", "have a new certificate", {"valid_before": NS // 10**9 - 1}),
    certified("certificate_revoked", "", {"serial": 13}),
    certified("certificate_elsewhere", "connect from 10.0.0.0/8",
              {"critical_options": {"source-address": "10.0.0.0/8"}}),
    certified("certificate_option_unknown", "without the critical option other",
              {"critical_options": {"other": "x", "source-address": "192.0.2.0/24"}}),
    config("stronger_login_needed", "prove totp too", put(*DB, "require", value=[["certificate", "oidc"], ["totp"]])),
    config("stronger_login_needed", "prove certificate too", put(*DB, "require", value=[["certificate"]]),
           identity__via=["publickey", "totp"]),
    config("stronger_login_needed", "prove totp too", put(*DB, "require", value=[["publickey", "totp"]])),
    config("forced_command_conflict", "without a forced command", put(*DB, "force_command", value="psql"),
           identity__force_command="top"),
    config("no_grant", "a grant for alice on reports", login__user="alice+reports"),
    config("no_grant", "a grant for alice on orders-db", gone("grants"), login__user="alice+orders-db"),
    config("no_grant", "a grant for bob on orders-db", login__user="bob", identity__person="bob"),
    config("no_grant", "a grant for alice on orders-db, for an hour; and 2 approvals", gone("grants"), APPROVAL,
           put("people", "dora", "disabled", value=False), login__user="alice+orders-db"),
    config("grant_not_started", "wait until 2030-01-31 13:00:00 UTC",
           put(*INC, "starts_at", value="2030-01-31T13:00:00Z")),
    config("grant_window_closed", "wait until 2030-01-31 22:00:00 UTC", put(*INC, "windows", value=NIGHT),
           put(*INC, "ends_at", value="2030-02-10T14:00:00Z")),
    config("grant_not_approved", "2 approvals of the grant INC-1: by bob, dora", APPROVAL),
    config("grant_not_approved", "say who approved the grant INC-1", put(*INC, "approved_by", value="Alice")),
    config("grant_ended", "extend the grant INC-1", **later(3)),
    config("grant_ended_early", "a grant for alice on orders-db", put(*INC, "ended_at", value="2030-01-31T11:00:00Z"),
           login__user="alice+orders-db"),
    config("target_needed", "ssh alice+orders-db@door", SECOND),
    config("target_misconfigured", "limits.pids as another target has it", gone(*DB, "limits", "pids")),
    config("target_misconfigured", "descripton is spelt description", gone(*DB, "description"),
           put(*DB, "descripton", value="The orders database")),
    config("target_misconfigured", "max_grant_seconds as another", put(*DB, "max_grant_seconds", value="long"),
           login__user="alice+orders-db"),
    config("person_disabled", "enable alice's account", put("people", "alice", "disabled", value=True)),
    config("approval_refused", "", EYES, request={"kind": "session", "approvals": [{"by": "bob", "approve": False}]}),
    config("schema_unknown", "", schema=2),
    config("malformed_input", "", connection={}),
    authz("person_disabled", "enable alice's account", put("people", "alice", "disabled", value=True)),
    authz("grant_deleted", "a grant for alice on orders-db", gone(*INC)),
    authz("grant_deleted", "a grant for alice on orders-db", gone("grants")),
    authz("target_removed", "", gone(*DB)),
    authz("grant_target_changed", "be for orders-db again", put(*INC, "target", value="reports")),
    authz("grant_malformed", "write the grant INC-1 anew", put(*INC, "starts_at", value="noon")),
    authz("grant_malformed", "write the grant INC-1 anew", gone(*INC, "reason")),
    authz("grant_malformed", "write the grant INC-1 anew", put(*INC, value={"target": "orders-db", "windows": 3})),
    authz("grant_target_changed", "write the grant INC-1 anew", put(*INC, value={"windows": 3})),
    authz("grant_not_started", "let the grant INC-1 start now", put(*INC, "starts_at", value="2030-01-31T13:00:00Z")),
    authz("grant_ended", "extend the grant INC-1", **later(3)),
    authz("grant_ended_early", "", put(*INC, "ended_at", value="2030-01-31T11:00:00Z")),
    authz("grant_approval_over", "2 approvals of the grant", APPROVAL),
    authz("grant_window_closed", "wait until", put(*INC, "windows", value=NIGHT),
          put(*INC, "ends_at", value="2030-02-10T14:00:00Z")),
    authz("certificate_restricts", "with permit-pty", identity__restrictions=["agent-forwarding", "pty"],
          request={"kind": "pty-req"}),
    request("shell_refused", "let orders-db allow shell", put(*DB, "allow", "shell", value=False), kind="shell"),
    request("exec_refused", "let orders-db allow exec", gone(*DB, "allow"), kind="exec", command="psql"),
    request("subsystem_refused", "let orders-db allow sftp", gone(*DB, "allow", "sftp"), kind="subsystem",
            name="sftp"),
    request("terminal_refused", "let orders-db allow shell", gone(*DB, "allow"), kind="pty-req"),
    request("forward_refused", "forwarding to other:5432", kind="direct-tcpip", host="other", port=5432),
    request("env_refused", "name EMAIL", kind="env", name="EMAIL", value="x"),
    request("env_dangerous", "", kind="env", name="LD_PRELOAD", value="x"),
    request("x11_refused", "let orders-db allow x11", kind="x11-req"),
    request("agent_refused", "let orders-db allow agent", kind="auth-agent-req@openssh.com"),
    request("remote_forward_refused", "listening at localhost:8080", kind="tcpip-forward", host="localhost",
            port=8080),
    request("unix_socket_refused", "path /tmp/x.sock", kind="direct-streamlocal@openssh.com", path="/tmp/x.sock"),
    request("unix_socket_not_plain", "", kind="direct-streamlocal@openssh.com", path="/tmp/../x.sock"),
    request("unix_socket_protected", "", kind="direct-streamlocal@openssh.com", path="/run/doorward/x.sock"),
    request("request_unknown", "", kind="something@example.com"),
    file("sftp_path_refused", "read /etc/motd", "stat", "/etc/motd"),
    file("sftp_write_refused", "write /srv/x", "mkdir", "/srv/x"),
    file("sftp_write_refused", "read /etc/x; write /etc/x", "open", "/etc/x", read=True, write=True),
    file("sftp_rename_refused", "/etc/**", "rename", "/etc/x", to="/srv/in/x"),
    file("sftp_link_refused", "write /srv/x, /srv/y", "hardlink", "/srv/x", to="/srv/y"),
    file("sftp_operation_unknown", "", "fly", "/srv/x"),
    live("grant_deleted", "a grant for alice on orders-db", gone("grants")),
    live("grant_ended", "extend the grant INC-1", **later(3)),
    live("grant_ends_soon", "extend the grant INC-1 to 2030-01-31T14:00:00Z",
         put(*INC, "ends_at", value="2030-01-31T12:02:00Z")),
    live("grant_ended_early", "", put(*INC, "ended_at", value="2030-01-31T11:00:00Z")),
    live("schema_unknown", "", schema=2),
]  # fmt: skip


def patched(tree: Mapping[str, Any], patch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """JSON Patch as far as it is used: `add` to an object that is there, and `remove` of what is there."""
    whole = deepcopy(dict(tree))
    for one in patch:
        *above, last = [step.replace("~1", "/").replace("~0", "~") for step in one["path"].split("/")[1:]]
        place = at(whole, above)
        assert isinstance(place, dict), f"nothing to add to at {one['path']}"
        if one["op"] == "add":
            place[last] = deepcopy(one["value"])
        else:
            assert one["op"] == "remove"
            del place[last]
    return whole
