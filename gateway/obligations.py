"""What an allow can be conditional on: one strict value for each kind, and where each may stand.

An allow on a condition that nobody keeps is no allow.  So one that is not here, is malformed, or stands where it does
not go (`PERMIT`, `REQUESTS`) makes the whole answer unusable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from gateway.values import Name, Reason, Value

Pattern = Annotated[str, Field(min_length=1, max_length=200)]
"""A regular expression in RE2's syntax, which is also Rego's."""
BytesPerSecond = Annotated[int, Field(ge=1024, le=2**40)]


class JudgeSftp(Value):
    """Of `subsystem sftp`: every operation that names a file is a decision of its own, kind `sftp`."""

    kind: Literal["judge_sftp"] = Field(description="this obligation")


class ReadOnlySftp(Value):
    """Whatever else allows it, SFTP writes nothing: no file, folder, link, name or attribute changes."""

    kind: Literal["read_only_sftp"] = Field(description="this obligation")


class AskReason(Value):
    """A reason typed now, before anything is started; config is asked again with it as `request.reason`."""

    kind: Literal["reason"] = Field(description="this obligation")
    prompt: str = Field(default="Why do you need this now?", min_length=1, max_length=200, description="what is asked")
    min_length: int = Field(default=1, ge=1, le=500, description="characters, blanks at the ends not counted")
    pattern: Pattern | None = Field(default=None, description="what must be found in it, as RE2 has it")
    seconds: float = Field(default=120, gt=0, le=3600, description="how long a terminal waits for it")


class FourEyes(Value):
    """Somebody else has to join.  While config's permit holds this, nothing is started."""

    kind: Literal["four_eyes"] = Field(description="this obligation")
    approvers: str = Field(min_length=1, max_length=300, description="who may answer, for the terminal")
    seconds: float = Field(gt=0, le=86400, description="how long the session waits for them")
    hook: Name | None = Field(default=None, description="the webhook that is told that somebody waits")
    not_counted: tuple[Reason, ...] = Field(
        default=(), max_length=100, description="why answers that were given do not count, one for each"
    )


class NewGrant(Value):
    """A grant of who breaks the glass, as it is to be written."""

    target: Name = Field(description="what it is for")
    starts_at: str = Field(min_length=1, max_length=40, description="now; RFC 3339")
    ends_at: str = Field(min_length=1, max_length=40, description="when it ends; RFC 3339")
    reason: str = Field(min_length=1, max_length=1000, description="what was typed")
    kind: Literal["break_glass"] = Field(description="what it is")
    requested_at: str = Field(min_length=1, max_length=40, description="now; RFC 3339")


class BreakGlass(Value):
    """Write this grant, the permit's, as its person's own, where there is none of its id.

    Config is asked again then.  While its permit holds this, nothing is started.
    """

    kind: Literal["break_glass"] = Field(description="this obligation")
    grant: NewGrant = Field(description="what is written")


class Notify(Value):
    """Tell a webhook that the settings name."""

    kind: Literal["notify"] = Field(description="this obligation")
    hook: Name = Field(description="of the settings' [hooks]")
    required: bool = Field(default=False, description="nothing goes on before it is delivered")


class RateLimit(Value):
    """No faster than this: the session in all, or one channel.  In is from the engineer, out is to them."""

    kind: Literal["rate_limit"] = Field(description="this obligation")
    bytes_in_per_second: BytesPerSecond | None = Field(default=None, description="from the engineer")
    bytes_out_per_second: BytesPerSecond | None = Field(default=None, description="to the engineer")
    operations_per_minute: int | None = Field(
        default=None, ge=1, le=10**6, description="programs, forwards, and what SFTP does by name"
    )

    @model_validator(mode="after")
    def _limits_something(self) -> RateLimit:
        if self.bytes_in_per_second is self.bytes_out_per_second is self.operations_per_minute is None:
            raise ValueError("a rate_limit limits something")
        return self


class Record(Value):
    """What is to be recorded.  `required`: not allowed where it cannot be."""

    kind: Literal["record"] = Field(description="this obligation")
    what: tuple[Name, ...] = Field(min_length=1, max_length=20, description="the streams")
    required: bool = Field(default=False, description="not allowed where it cannot be")


class Mask(Value):
    """What must not stand in any record of ours in clear, from this decision's own on.  Policy itself sees it."""

    kind: Literal["mask"] = Field(description="this obligation")
    patterns: tuple[Pattern, ...] = Field(default=(), max_length=32, description="what is hidden wherever it is found")
    env: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?]{1,128}$")], ...] = Field(
        default=(), max_length=100, description="names of variables whose values are hidden; * and ? as in a glob"
    )

    @model_validator(mode="after")
    def _masks_something(self) -> Mask:
        if not self.patterns and not self.env:
            raise ValueError("a mask hides something")
        return self


Obligation = Annotated[
    JudgeSftp | ReadOnlySftp | AskReason | FourEyes | BreakGlass | Notify | RateLimit | Record | Mask,
    Field(discriminator="kind"),
]

SEVERAL = frozenset({"notify", "mask"})
"""Those that an answer may hold more than once.  Of any other, nobody could say which of two holds."""

PERMIT = frozenset({"reason", "four_eyes", "break_glass", "notify", "read_only_sftp", "rate_limit", "record", "mask"})
"""What config can oblige a session to."""

_CARRIES = frozenset({"rate_limit", "notify", "record", "mask"})
_LISTENS = frozenset({"notify", "mask"})
REQUESTS: Mapping[str, frozenset[str]] = {
    "shell": _CARRIES,
    "exec": _CARRIES,
    "subsystem": _CARRIES,
    "direct-tcpip": _CARRIES,
    "direct-streamlocal@openssh.com": _CARRIES,
    "tcpip-forward": _LISTENS,
    "streamlocal-forward@openssh.com": _LISTENS,
    "x11-req": _LISTENS,
    "auth-agent-req@openssh.com": _LISTENS,
}
"""What authz can oblige a request to, by its kind; of any other kind of request: a mask."""

FILES = frozenset({"judge_sftp", "read_only_sftp"})
"""And of `subsystem sftp`, unless a forced command runs in its place: that serves files as it likes."""


def kinds_for(request: Mapping[str, Any], *, forced: bool) -> frozenset[str]:
    """The kinds that go with an allow of this request."""
    kinds = REQUESTS.get(str(request["kind"]), frozenset({"mask"}))
    if request["kind"] == "subsystem" and request.get("name") == "sftp" and not forced:
        kinds |= FILES
    return kinds


def misfits(obligations: Iterable[Any], fitting: Collection[str]) -> list[str]:
    """The kinds among `obligations` that do not go there, or not twice."""
    kinds = [obligation.kind for obligation in obligations]
    return sorted({kind for kind in kinds if kind not in fitting or (kinds.count(kind) > 1 and kind not in SEVERAL)})


O = TypeVar("O", bound=Value)  # noqa: E741


def of_kind(kind: type[O], obligations: Sequence[Any]) -> tuple[O, ...]:
    return tuple(obligation for obligation in obligations if isinstance(obligation, kind))
