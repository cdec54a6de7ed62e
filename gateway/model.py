"""The values the story is told in: frozen, without behaviour beyond reading themselves.

Everything here that comes out of a policy decision is a pydantic model with unknown keys forbidden, because the shape
of OPA's answer is a contract: an answer outside it is a deny (`policy/`).  JSON Schemas for Rego are generated from
these models into `schemas/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, NewType, Self

from pydantic import AwareDatetime, Field, SecretStr, field_validator, model_validator

from gateway.deliveries import CredentialSpec as CredentialSpec
from gateway.deliveries import clashes
from gateway.obligations import PERMIT, Obligation, misfits
from gateway.values import Name as Name
from gateway.values import Reason as Reason
from gateway.values import Value as Value
from gateway.workspaces import Address as Address
from gateway.workspaces import Beside as Beside
from gateway.workspaces import Egress as Egress
from gateway.workspaces import Host as Host
from gateway.workspaces import Limits as Limits
from gateway.workspaces import Network as Network
from gateway.workspaces import PodOptions as PodOptions
from gateway.workspaces import Port as Port
from gateway.workspaces import Toleration as Toleration
from gateway.workspaces import VaultLogin as VaultLogin
from gateway.workspaces import WorkspaceSpec as WorkspaceSpec
from gateway.workspaces import WorkspaceUser as WorkspaceUser

SessionId = NewType("SessionId", str)
"""One connection's id, on every record, span, label and lease of it."""

Restriction = Literal["pty", "port-forwarding", "agent-forwarding", "X11-forwarding"]


class Identity(Value):
    """Who Rego says this is, and by what."""

    person: Name = Field(description="their name: the key of their entry in data.people")
    groups: tuple[Name, ...] = Field(default=(), description="those of their entry, and those that a proof brought")
    via: tuple[Name, ...] = Field(default=(), description="what was proven, in policy's words, in order")
    key_id: str = Field(default="", max_length=1000, description="of the certificate, on every record")
    restrictions: tuple[Restriction, ...] = Field(default=(), description="what the certificate does not permit")
    force_command: str = Field(default="", max_length=65536, description="the certificate's, for the permit")
    honeypot: bool = Field(default=False, description="admitted without a proof")

    def ids(self) -> dict[str, str]:
        """What goes on every record from here on."""
        return {"person": self.person, **({"key_id": self.key_id} if self.key_id else {})}


class SessionLimits(Value):
    """The clocks that end a session, in seconds."""

    idle_seconds: float = Field(gt=0, description="without a byte either way")
    max_seconds: float = Field(gt=0, description="in all, whatever the grant says")
    warn_seconds: float = Field(ge=0, description="how long before an end by clock the terminal is warned")
    max_channels: int = Field(ge=1, le=1000, description="open at once; a number of channels, not seconds")
    policy_grace_seconds: float = Field(ge=0, description="how long a session outlives an OPA that does not answer")


class SessionCounts(Value):
    """How many sessions may be open at once, this one among them; absent: any number."""

    grant: int | None = Field(default=None, ge=1, description="on its grant")
    person: int | None = Field(default=None, ge=1, description="of its person")
    target: int | None = Field(default=None, ge=1, description="at its target, everybody's")


class Recording(Value):
    """What is recorded; `required` means no session without it."""

    what: tuple[str, ...] = Field(default=(), description="the streams")
    required: bool = Field(default=False, description="no session without it")


class Permit(Value):
    """What one session may be.  Only `gateway.policy` makes one, out of a config decision."""

    grant: str = Field(min_length=1, max_length=128, description="the id of the grant that it stands on")
    target: Name = Field(description="what it is for")
    expires_at: AwareDatetime = Field(description="when it ends at the latest: the grant's end, or before")
    ending: Reason | None = Field(default=None, description="why it is over at expires_at; absent: the grant ends")
    workspace: WorkspaceSpec = Field(description="what to start")
    credentials: tuple[CredentialSpec, ...] = Field(default=(), description="what to issue for it alone")
    session: SessionLimits = Field(description="the clocks that end it")
    max_sessions: SessionCounts = Field(default=SessionCounts(), description="how many may be open at once")
    recording: Recording = Field(default=Recording(), description="what is recorded of it")
    notice: str = Field(default="", max_length=500, description="a line for the engineer at the start")
    break_glass: bool = Field(default=False, description="whether it stands behind broken glass")
    capture_credentials: bool = Field(default=False, description="put what was typed at the door on record, in clear")
    obligations: tuple[Obligation, ...] = Field(default=(), max_length=50, description="on what conditions")

    @model_validator(mode="after")
    def _a_host_is_given_nothing(self) -> Self:
        if self.workspace.host is not None and self.credentials:
            raise ValueError("a host is given no credentials: there is no agent on it that would put them in place")
        return self

    @model_validator(mode="after")
    def _beside_a_service_is_given_nothing(self) -> Self:
        if self.workspace.pod.beside is not None and self.credentials:
            raise ValueError(
                "credentials cannot be given beside a service, for there is no place for them that is not its pod's "
                "too: leave them out, or leave workspace.pod.beside out"
            )
        return self

    @field_validator("obligations")
    @classmethod
    def _go_with_a_session(cls, value: tuple[Obligation, ...]) -> tuple[Obligation, ...]:
        if wrong := misfits(value, PERMIT):
            raise ValueError(f"a session cannot be obliged to this, or not twice: {', '.join(wrong)}")
        return value

    @model_validator(mode="after")
    def _credentials_go_together(self) -> Permit:
        ways_out = {(egress.host, egress.port) for egress in self.workspace.network.egress}
        if wrong := list(clashes(self.credentials, ways_out)):
            raise ValueError("; ".join(wrong))
        return self


class Choice(Value):
    """One target that a person may have now, as a menu offers it."""

    target: Name = Field(description="its name")
    login: str = Field(min_length=1, max_length=300, description="what to put before the @ to have it at once")
    label: str = Field(default="", max_length=1000, description="what tells it from the others, on one line")


class Desk(Value):
    """What the door itself tells a person, without starting anything."""

    words: tuple[str, ...] = Field(default=(), max_length=20, description="commands that the door answers")
    text: str = Field(default="", max_length=100_000, description="the answer, where the request is one of the words")
    choices: tuple[Choice, ...] = Field(default=(), max_length=100, description="for whoever has to name a target")
    seconds: float = Field(default=120, gt=0, le=3600, description="how long a menu waits")


class Verdict(StrEnum):
    """What becomes of a live session."""

    KEEP = "keep"
    WARN = "warn"
    RESTRICT = "restrict"
    END = "end"


class Droppable(StrEnum):
    """What a live session can lose while it goes on: requests by their names in SSH, and `sftp`."""

    SFTP = "sftp"
    DIRECT_TCPIP = "direct-tcpip"
    DIRECT_STREAMLOCAL = "direct-streamlocal@openssh.com"
    TCPIP_FORWARD = "tcpip-forward"
    STREAMLOCAL_FORWARD = "streamlocal-forward@openssh.com"
    X11 = "x11-req"
    AGENT = "auth-agent-req@openssh.com"


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a live session may not have for now, and why."""

    kinds: frozenset[str]
    """Of `Droppable`."""
    reasons: tuple[Reason, ...] = ()
    decision_id: str = ""
    """Of the judgement that it comes from."""


NOTHING_DROPPED = Dropped(frozenset())


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a lease or a workspace is for: the ids that tie ticket to SQL."""

    session: SessionId
    person: str
    grant: str
    target: str
    traceparent: str

    def labels(self) -> dict[str, str]:
        """The same ids as runtime labels and Vault metadata; what is nobody's yet has no person and no grant."""
        labels = {
            "doorward.session": self.session,
            "doorward.person": self.person,
            "doorward.grant": self.grant,
            "doorward.target": self.target,
        }
        return {name: value for name, value in labels.items() if value}


@dataclass(frozen=True, slots=True)
class Lease:
    """A credential that exists because this session does; or a static secret, which has no login and no lease."""

    spec: CredentialSpec
    lease_id: str
    username: str
    password: SecretStr = field(repr=False)
    expires_at: datetime
    secret: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What a static secret holds, by its keys; empty for a lease."""
    version: int = 0
    """Of a static secret."""

    def facts(self) -> dict[str, Any]:
        """What it is, for records, without the secret."""
        if self.spec.secret is not None:
            where = {"mount": self.spec.secret.mount, "path": self.spec.secret.path, "version": self.version}
            return {"name": self.spec.name, "lease_id": "", **where}
        login = {"role": self.spec.role, "username": self.username}
        return {"name": self.spec.name, "lease_id": self.lease_id, **login}


Logins = Mapping[tuple[str, int], Lease]
"""What the gateway itself logs in with, by host and port as the workspace names them; the first is the default."""


@dataclass(frozen=True, slots=True)
class DeliveredFile:
    """A file for the workspace's credentials tmpfs.  `data` never appears in a repr."""

    path: str
    mode: int
    data: bytes = field(repr=False)
