"""What Python asks OPA, as strict models: `schemas/input.*.json` are generated from them, and every question is held to
its model before it is sent.

A question that does not fit is not asked: it would be judged by rules that were checked against another shape.  What
is not in here cannot be in a rule either: `opa check --schema schemas` refuses a field that no question has.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError

from gateway.errors import PolicyUnavailable
from gateway.model import Identity, Value
from gateway.policy.contract import Automation, Connection, Decision, Facts, LiveSession, Moment, OpenSession
from gateway.proofs import Attempt

log = logging.getLogger(__name__)

FileOperation = Literal[
    "open", "opendir", "stat", "lstat", "readlink", "realpath", "statvfs", "setstat", "lsetstat", "fsetstat",
    "mkdir", "rmdir", "remove", "rename", "symlink", "hardlink",
]  # fmt: skip
OpenFlag = Literal["read", "write", "append", "create", "truncate", "exclusive"]
Change = Literal["size", "owner", "mode", "times"]


class Gateway(Value):
    """The gateway that asks."""

    instance: str = Field(description="its name, as its settings say")
    version: str = Field(description="the version of Doorward that it runs")


class Login(Value):
    """What was typed."""

    user: str = Field(description="what stood before the @, exactly as typed")


class Approval(Value):
    """What somebody else said to this session."""

    by: str = Field(description="who, as they were proven")
    approve: bool = Field(description="yes or no")


class Request(Facts):
    """A request of SSH, or a channel that is opened: `kind` says which, and so which of the other facts are there."""

    kind: str = Field(description="the request's or channel's name in SSH; `sftp` for an operation on files")
    term: str = Field(default="", description="of pty-req: the kind of terminal")
    columns: int = Field(default=0, description="of pty-req and window-change")
    rows: int = Field(default=0, description="of pty-req and window-change")
    name: str = Field(default="", description="of env: the variable; of subsystem and signal: which")
    value: str = Field(default="", description="of env: what the variable is to be")
    command: str = Field(default="", description="of exec: the command line, as typed")
    command_base64: str = Field(
        default="", description="of exec: the exact bytes, where `command` cannot show them: not UTF-8"
    )
    milliseconds: int = Field(default=0, description="of break: how long the line is held")
    host: str = Field(default="", description="of direct-tcpip: where to; of tcpip-forward: where to listen")
    port: int = Field(
        default=0, description="of direct-tcpip, tcpip-forward and its cancel; 0 is one of its own choice"
    )
    originator_host: str = Field(default="", description="of direct-tcpip: where the client says that it came from")
    originator_port: int = Field(default=0, description="of direct-tcpip: beside originator_host")
    path: str = Field(
        default="",
        description="of a unix socket; of a file, over SFTP, canonical: no link, no .. and no . is in it",
    )
    single_connection: bool = Field(default=False, description="of x11-req: for one connection only")
    auth_protocol: str = Field(default="", description="of x11-req; the cookie is never here")
    screen: int = Field(default=0, description="of x11-req")
    operation: FileOperation = Field(default="open", description="of sftp; symlink: path is the link's place")
    to: str = Field(default="", description="of sftp: the second path of rename and hardlink, canonical")
    target: str = Field(
        default="",
        description="of sftp: what a symlink is to say, which nothing follows unjudged; else, asked for a permit: "
        "what was chosen at the desk, where the login names none",
    )
    read: bool = Field(default=False, description="of sftp, open: to read")
    write: bool = Field(default=False, description="of sftp, open: to write, append, create or truncate")
    flags: list[OpenFlag] = Field(default=[], description="of sftp, open: as SFTP names them")
    changes: list[Change] = Field(
        default=[], description="of sftp, setstat, lsetstat, fsetstat and mkdir: what is to become other"
    )
    reason: str = Field(default="", description="asked for a permit: what was typed where a reason is asked for")
    approvals: list[Approval] = Field(
        default=[], description="asked for a permit: answers of others to this session, where somebody has to join"
    )


class PermitSummary(Facts):
    """What the session stands on."""

    grant: str = Field(description="the grant's id")
    target: str = Field(description="what the session is for")
    expires_at: Moment = Field(description="when the session ends at the latest")
    force_command: str = Field(
        default="",
        description="what runs in place of any shell, command or subsystem; absent: what is asked for",
    )


class Question(Value):
    """What every question holds."""

    version: Literal[1] = Field(alias="schema", description="the version of this contract that the gateway speaks")
    now: Moment = Field(description="the gateway's clock, RFC 3339, UTC")
    now_ns: int = Field(description="the same moment, in nanoseconds since 1970: compare with this one")
    gateway: Gateway = Field(description="the gateway that asks")


class AuthnQuestion(Question, Facts):
    """What are the proofs so far worth?"""

    connection: Connection = Field(description="the connection that is to be admitted")
    login: Login = Field(description="who they say they are")
    attempt: Attempt = Field(description="what is tried now")
    proofs: list[Attempt] = Field(description="what was proven before, on this connection")
    verifiers: list[str] = Field(
        default=[],
        description="in the question of the report `malformed` alone: the kinds of verification that the gateway has",
    )


class ConfigQuestion(Question):
    """What may this session be?"""

    connection: Connection = Field(description="the connection that the session is on")
    login: Login = Field(description="what they typed")
    identity: Identity = Field(description="who they are, as authn answered")
    proofs: list[Attempt] = Field(description="what was proven to log in")
    request: Request = Field(description="the first request, or what was chosen at the desk")
    open: list[OpenSession] = Field(description="the other open sessions of this person at this gateway")
    open_at: dict[str, int] = Field(
        description="how many other sessions are open at this gateway, everybody's, by target"
    )


class AuthzQuestion(Question):
    """May this request pass?"""

    connection: Connection = Field(description="the connection that the request is on")
    login: Login = Field(description="what they typed")
    identity: Identity = Field(description="who they are, as authn answered")
    permit: PermitSummary = Field(description="the permit of the session")
    request: Request = Field(description="what is asked for")


class LiveQuestion(Question):
    """May these sessions go on?"""

    sessions: list[LiveSession] = Field(description="live sessions of this gateway, up to 500 in one question")


class AdmissionQuestion(Question):
    """May this automation do this to a grant?"""

    client: Automation = Field(description="who writes")
    verb: str = Field(description="PUT, PATCH, DELETE or GET; of a PATCH to many documents, what happens to this one")
    path: list[str] = Field(description="as typed, in segments")
    old: JsonValue = Field(description="what is stored now, or null")
    new: JsonValue = Field(description="what shall be stored, or null; of a PATCH the whole document that results")


class Handled(Value):
    """The session that something is to be done to."""

    id: str = Field(description="the session's id")
    person: str = Field(description="whose it is")
    grant: str = Field(description="the id of its grant")
    target: str = Field(description="what it is for")


class AdminQuestion(Question):
    """May this automation do this at the admin API?"""

    client: Automation = Field(description="who asks")
    action: str = Field(
        description="status, sessions:list, sessions:end, reevaluate, approvals:list or approvals:answer"
    )
    session: Handled | None = Field(
        description="of sessions:end a live session, of approvals:answer one that waits; null: there is none of that id"
    )
    reason: str = Field(description="of sessions:end: what the session's terminal is told, or nothing")
    by: str = Field(description="of approvals:answer: who answers, on the client's word")


QUESTIONS: Mapping[Decision, type[Question]] = {
    Decision.AUTHN: AuthnQuestion,
    Decision.CONFIG: ConfigQuestion,
    Decision.AUTHZ: AuthzQuestion,
    Decision.LIVE: LiveQuestion,
    Decision.ADMISSION: AdmissionQuestion,
    Decision.ADMIN: AdminQuestion,
}


def fitting(decision: Decision, question: Mapping[str, Any]) -> Mapping[str, Any]:
    """`question`, if it is one that `decision` is asked.  Raises PolicyUnavailable: what is outside is not asked."""
    try:
        # What is no Unicode (half a pair of surrogates) OPA reads as another sign; of the shape it says nothing.
        shown = json.dumps(question, ensure_ascii=False).encode("utf-8", "replace")
        QUESTIONS[decision].model_validate_json(shown)
    except ValidationError as error:
        # Without the input: a question holds what people typed.
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False)]
        log.error("question_malformed", extra={"decision": decision, "faults": faults})
        raise PolicyUnavailable(
            "the gateway would ask policy a question outside their contract",
            code="question_malformed",
            remedy="This is a fault of the gateway. Tell the platform team the session id.",
        ) from None
    return question
