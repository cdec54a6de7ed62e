"""The questions Python asks OPA and the answers it accepts, as strict models.

Unknown keys, missing keys and wrong types make an answer unusable, and an unusable answer is a deny.  The JSON Schemas
in `schemas/` that `opa check` uses are held to these models by `tests/policy/test_contract.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from gateway import __version__
from gateway.model import Desk, Droppable, Identity, Permit, Reason, Value, Verdict
from gateway.obligations import Obligation
from gateway.proofs import Verification

SCHEMA = 1
Method = Literal["publickey", "password", "keyboard-interactive"]
"""What SSH calls the ways to authenticate (RFC 4252, RFC 4256)."""


Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339, UTC, as `rfc3339` writes it."""


class Decision(StrEnum):
    """Paths of the decisions under `data`."""

    AUTHN = "gateway/authn/decision"
    CONFIG = "gateway/config/decision"
    AUTHZ = "gateway/authz/decision"
    LIVE = "gateway/authz/live"
    ADMISSION = "gateway/admission/decision"
    ADMIN = "gateway/admin/decision"
    MALFORMED = "gateway/grants/malformed"
    UNFIT = "gateway/authn/malformed"

    @property
    def asked_at(self) -> str:
        """Where it is asked for: of one that comes with its basis that is not its own path."""
        return self.value.replace("/decision", "").replace("gateway/", "gateway/basis/") if self.has_basis else self

    @property
    def has_basis(self) -> bool:
        """Whether its answer says what it stands on, for the record alone."""
        return self.value.endswith("/decision")


BASIS = "basis"
"""The field of an answer that says what the decision stands on."""


class Outcome(StrEnum):
    ACCEPT = "accept"
    CONTINUE = "continue"
    REJECT = "reject"


class Answer(Value):
    """What every answer may hold beside its own: the version it is written in, which is else taken for the same."""

    version: Literal[1] = Field(
        default=1, alias="schema", description="the version of this contract; absent, the question's"
    )


class AuthnAnswer(Answer):
    """What the proofs are worth.

    `continue` with `verify` says how the attempt is to be proven: it is, and policy is asked again.  `continue` without
    says that more is needed: `methods` are those that may come next, and a proven attempt counts (RFC 4252 section 5.1,
    partial success).
    """

    outcome: Outcome = Field(description="accept, continue or reject")
    identity: Identity | None = Field(default=None, description="accept: who it is")
    methods: tuple[Method, ...] = Field(default=(), description="what may come next")
    verify: Verification | None = Field(default=None, description="continue: how this attempt is to be proven")
    tell: bool = Field(default=False, description="reject: the reasons are for whoever signed, too")
    banner: str = Field(default="", max_length=4096, description="shown once, before anybody is authenticated")
    reasons: tuple[Reason, ...] = Field(default=(), description="reject: why")

    @model_validator(mode="after")
    def _of_one_piece(self) -> AuthnAnswer:
        if self.outcome is Outcome.ACCEPT and self.identity is None:
            raise ValueError("accept needs an identity")
        if self.outcome is not Outcome.CONTINUE and self.verify is not None:
            raise ValueError("only continue can ask for a verification")
        return self


class ConfigAnswer(Answer):
    """What this session may be, or why there is none."""

    allow: bool = Field(description="whether there is a permit")
    permit: Permit | None = Field(default=None, description="allow: the whole of it")
    desk: Desk = Field(default=Desk(), description="what the door itself can tell, with a permit or without")
    reasons: tuple[Reason, ...] = Field(default=(), description="why not")

    @model_validator(mode="after")
    def _allowed_with_a_permit(self) -> ConfigAnswer:
        if self.allow and self.permit is None:
            raise ValueError("allow needs a permit")
        return self


class AuthzAnswer(Answer):
    """Whether this request may pass, and on what conditions."""

    allow: bool = Field(description="whether it may")
    obligations: tuple[Obligation, ...] = Field(
        default=(), max_length=50, description="allow: the conditions, every one to be kept"
    )
    reasons: tuple[Reason, ...] = Field(default=(), description="why not")


class Judgement(Value):
    """What becomes of one live session."""

    verdict: Verdict = Field(description="keep, warn, restrict (it goes on without what is in `drop`) or end")
    drop: tuple[Droppable, ...] = Field(
        default=(),
        max_length=50,
        description="restrict: what is ended where it is open, and refused from now on, until another verdict",
    )
    reasons: tuple[Reason, ...] = Field(default=(), description="what its terminal is told: why, unless it is kept")

    @model_validator(mode="after")
    def _says_what_and_why(self) -> Judgement:
        if self.verdict is not Verdict.KEEP and not self.reasons:
            raise ValueError("warn, restrict and end need a reason")
        if (self.verdict is Verdict.RESTRICT) != bool(self.drop):
            raise ValueError("restrict names what is dropped, and no other verdict does")
        return self


class LiveAnswer(Answer):
    """What becomes of live sessions.  One whose judgement does not fit, or is not there, is not judged."""

    sessions: dict[str, Judgement] = Field(description="by session id: every one that was asked about")


class AdmissionAnswer(Answer):
    """Whether an automation may do this to a grant."""

    allow: bool = Field(description="whether it may")
    reasons: tuple[Reason, ...] = Field(default=(), description="everything that is wrong, by field")
    value: dict[str, JsonValue] | None = Field(default=None, description="PUT: what is stored, defaults filled in")


class AdminAnswer(Answer):
    """Whether an automation may do this at the admin API."""

    allow: bool = Field(description="whether it may")
    reasons: tuple[Reason, ...] = Field(default=(), description="why not")


class Facts(Value):
    """Facts of which some are there and some are not; one with a default may be absent."""


class ClientCertificate(Value):
    """Of a TLS connection, by an authority that the door trusts."""

    names: tuple[str, ...] = Field(description="its subject's common name and its alternative names: CN:, DNS:, URI:")
    fingerprint: str = Field(description="SHA-256, hexadecimal")


class Automation(Facts):
    """A client of the grants door or the admin API, and how it was proven."""

    name: str = Field(
        description="as the settings call it; of a JWT its issuer's name, a colon and the claim that names the client"
    )
    proof: Literal["token", "jwt", "certificate"] = Field(description="how it was proven")
    claims: dict[str, JsonValue] = Field(default_factory=dict, description="of a JWT: all of them")
    certificate: ClientCertificate | None = Field(default=None, description="also beside another proof")


class MalformedGrant(Value):
    """One grant that has no effect, and why."""

    person: str
    id: str
    problems: tuple[JsonValue, ...] = ()


class Connection(Value):
    """Facts of the TCP and SSH connection."""

    id: str = Field(description="on every record of it")
    client_address: str = Field(description="where it comes from")
    client_port: int = Field(description="and from which port")
    client_software: str = Field(default="", description="what the client calls itself; it may lie")


class LiveSession(Value):
    """One live session, as its judge sees it."""

    id: str = Field(description="the session's id, under which it is answered")
    person: str = Field(description="whose it is")
    grant: str = Field(description="the id of the grant that it stands on")
    target: str = Field(description="what it is for")
    started_at: Moment = Field(description="when it began")
    expires_at: Moment = Field(description="when it ends by its permit: it has a clock for that")
    idle_seconds: float = Field(description="since the last byte either way")


class OpenSession(Value):
    """One open session of whoever asks for another."""

    id: str = Field(description="the session's id")
    grant: str = Field(description="the id of the grant that it stands on")
    target: str = Field(description="what it is for")
    started_at: Moment = Field(description="when it began")


def common(instance: str) -> dict[str, Any]:
    """What every question holds.  `now` is the gateway's clock, UTC."""
    now = datetime.now(UTC)
    return {
        "schema": SCHEMA,
        "now": rfc3339(now),
        "now_ns": int(now.timestamp() * 1_000_000) * 1000,
        "gateway": {"instance": instance, "version": __version__},
    }


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
