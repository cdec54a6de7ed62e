"""The values the story is told in: frozen, without behaviour beyond reading themselves.

Everything here that comes out of a policy decision is a pydantic model with unknown keys forbidden, because the shape
of OPA's answer is a contract: an answer outside it is a deny (`policy/`).  JSON Schemas for Rego are generated from
these models into `schemas/`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, NewType

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr

SessionId = NewType("SessionId", str)
"""One connection's id, on every record, span, label and lease of it."""

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._-]+$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class Value(BaseModel):
    """A frozen value that refuses keys it does not know and types it was not promised."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_timedelta="float")


class Reason(Value):
    """Why: a stable code for machines, one sentence for the engineer, and what to do next."""

    code: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_]+$")
    message: str = Field(min_length=1, max_length=500)
    remedy: str = Field(default="", max_length=500)
    field: str = Field(default="", max_length=200, description="The field at fault, where one is (grants door)")


class Identity(Value):
    """Who Rego says this is."""

    person: Name
    groups: tuple[Name, ...] = ()


class WorkspaceUser(Value):
    """The unprivileged account everything in the workspace runs as."""

    name: Name = "debug"
    uid: int = Field(default=65532, ge=1)
    gid: int = Field(default=65532, ge=1)


class Limits(Value):
    """What the workspace may use at most.  Every limit is enforced by the runtime, none is advice."""

    memory_bytes: int = Field(ge=16 * 2**20)
    cpus: float = Field(gt=0, le=1024)
    pids: int = Field(ge=8)
    tmpfs_bytes: int = Field(ge=2**20, description="size of /tmp and of the home directory, each")


class Address(Value):
    """A TCP destination."""

    host: str = Field(min_length=1, max_length=253)
    port: Port


class Egress(Value):
    """One destination the workspace may reach: named `host:port` inside, dialled by the gateway at `address`."""

    host: str = Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._-]+$")
    port: Port
    address: Address | None = Field(default=None, description="where the gateway dials; host:port when absent")

    @property
    def dial(self) -> Address:
        return self.address or Address(host=self.host, port=self.port)


class Network(Value):
    """Everything the workspace can reach.  Empty: nothing but itself."""

    egress: tuple[Egress, ...] = ()


class WorkspaceSpec(Value):
    """What to start."""

    backend: Name
    image: str = Field(min_length=1, description="by digest where the backend has images; a root's name in the sandbox")
    user: WorkspaceUser = WorkspaceUser()
    home: str = Field(default="/home/debug", pattern=r"^/")
    shell: str = Field(default="", description="login shell; empty: bash, else sh")
    limits: Limits
    network: Network = Network()
    env: dict[str, str] = Field(default_factory=dict, description="visible to every process; never a secret")
    read_only: bool = True


class PostgresDelivery(Value):
    """Deliver as a libpq service file, so that `psql` works with no argument."""

    kind: str = Field(default="postgres", pattern="^postgres$")
    host: str
    port: Port
    dbname: str


class CredentialSpec(Value):
    """One credential to issue for this session alone."""

    name: Name
    issuer: Name
    role: Name
    ttl_seconds: int = Field(ge=5, le=86400, description="how long it may outlive a gateway that died")
    deliver: PostgresDelivery


class SessionLimits(Value):
    """The clocks that end a session, in seconds."""

    idle_seconds: float = Field(gt=0)
    max_seconds: float = Field(gt=0)
    warn_seconds: float = Field(ge=0, description="how long before an end by clock the terminal is warned")
    max_channels: int = Field(ge=1, le=1000)
    policy_grace_seconds: float = Field(ge=0, description="how long a session outlives an OPA that does not answer")


class Recording(Value):
    """What is recorded; `required` means no session without it."""

    what: tuple[str, ...] = ()
    required: bool = False


class Permit(Value):
    """What one session may be.  Only `gateway.policy` makes one, out of a config decision."""

    grant: str = Field(min_length=1, max_length=128)
    target: Name
    expires_at: AwareDatetime
    workspace: WorkspaceSpec
    credentials: tuple[CredentialSpec, ...] = ()
    session: SessionLimits
    recording: Recording = Recording()
    notice: str = Field(default="", max_length=500)


class Verdict(StrEnum):
    """What becomes of a live session."""

    KEEP = "keep"
    WARN = "warn"
    END = "end"


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a lease or a workspace is for: the ids that tie ticket to SQL."""

    session: SessionId
    person: str
    grant: str
    target: str
    traceparent: str

    def labels(self) -> dict[str, str]:
        """The same ids as runtime labels and Vault metadata."""
        return {
            "doorward.session": self.session,
            "doorward.person": self.person,
            "doorward.grant": self.grant,
            "doorward.target": self.target,
        }


@dataclass(frozen=True, slots=True)
class Lease:
    """A credential that exists because this session does."""

    spec: CredentialSpec
    lease_id: str
    username: str
    password: SecretStr = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class DeliveredFile:
    """A file for the workspace's credentials tmpfs.  `data` never appears in a repr."""

    path: str
    mode: int
    data: bytes = field(repr=False)
