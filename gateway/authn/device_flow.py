"""The device authorization grant (RFC 8628): a code is shown, a person approves elsewhere, the gateway asks until then.

GitHub's is the same but for two things, which are taken from everybody: errors come with status 200, and `slow_down`
brings the new interval.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

from gateway.authn.web import Answer, Malformed, Unreachable, Web
from gateway.errors import VerifierUnavailable
from gateway.words import printable

log = logging.getLogger(__name__)

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER_SECONDS = 5.0
"""Added for each `slow_down` (RFC 8628 section 3.5)."""
TRIES = 3
"""So often in a row a provider may fail to answer before it counts as down."""

Url = Annotated[str, StringConstraints(max_length=300, pattern=r"^https?://[\x21-\x7e]+$")]
Sleep = Callable[[float], Awaitable[None]]


class Invitation(BaseModel):
    """What a person is shown, and how the gateway asks for the outcome (RFC 8628 section 3.2)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    device_code: SecretStr = Field(min_length=1, max_length=4096)
    user_code: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,64}$")]
    verification_uri: Url = Field(validation_alias=AliasChoices("verification_uri", "verification_url"))  # Google's
    verification_uri_complete: Url | None = None
    expires_in: float = Field(gt=0, le=86400)
    interval: float = Field(default=5, ge=0.1, le=300)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an approval brings.  Secret: looked at, then forgotten."""

    access: SecretStr = field(repr=False)
    id: SecretStr | None = field(default=None, repr=False)
    refresh: SecretStr | None = field(default=None, repr=False)


class NotGranted(Exception):
    """No approval, and there will be none: `why` is `denied` or `expired`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


async def invite(web: Web, endpoint: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Invitation:
    """Ask for a code.  Raises VerifierUnavailable."""
    answer = await web.call("POST", endpoint, data=form, headers=headers)
    if answer.status != 200 or "error" in answer.members():
        raise refused("device code", answer)
    try:
        return Invitation.model_validate(answer.body)
    except ValidationError as error:
        names = [".".join(map(str, one["loc"])) for one in error.errors()]
    # Raised out here, for what pydantic complains with holds the device code.
    log.error("device_code_malformed", extra={"members": names})
    raise Malformed("the identity provider's device code is of no use")


async def granted(
    web: Web,
    endpoint: str,
    form: Mapping[str, str],
    headers: Mapping[str, str],
    invitation: Invitation,
    sleep: Sleep = asyncio.sleep,
) -> Tokens:
    """Poll until the person has approved.  Not bounded in time.

    Raises NotGranted, or VerifierUnavailable when the provider fails `TRIES` times in a row or says what none says.
    """
    form = {**form, "grant_type": GRANT_TYPE, "device_code": invitation.device_code.get_secret_value()}
    interval, failures = invitation.interval, 0
    while True:
        await sleep(interval)
        try:
            answer = await web.call("POST", endpoint, data=form, headers=headers)
        except Unreachable:
            failures += 1
            if failures == TRIES:
                raise
            interval *= 2  # RFC 8628 section 3.5
            continue
        failures = 0
        match answer.members().get("error"):
            case None if answer.status == 200:
                return _tokens(answer.members())
            case "authorization_pending":
                pass
            case "slow_down":
                interval = _slower(interval, answer.members().get("interval"))
            case "access_denied":
                raise NotGranted("denied")
            case "expired_token" | "token_expired":  # GitHub's documentation has both names
                raise NotGranted("expired")
            case _:
                raise refused("token", answer)


def _slower(interval: float, asked: Any) -> float:
    named = float(asked) if isinstance(asked, int | float) and 0 < asked <= 300 else 0.0
    return max(interval + SLOWER_SECONDS, named)


def _tokens(members: Mapping[str, Any]) -> Tokens:
    access, identity, refresh = (members.get(name) for name in ("access_token", "id_token", "refresh_token"))
    if not isinstance(access, str) or not access or str(members.get("token_type", "")).lower() != "bearer":
        raise Malformed("the identity provider's token is of no use")
    return Tokens(SecretStr(access), _secret(identity), _secret(refresh))


def _secret(value: Any) -> SecretStr | None:
    return SecretStr(value) if isinstance(value, str) and value else None


def refused(what: str, answer: Answer) -> VerifierUnavailable:
    """The provider refuses the gateway itself; what it said is for the operator.  Only an error's members are read:
    nothing else in a body is safe to log."""
    body = answer.body if isinstance(answer.body, dict) else {}
    said = {name: printable(str(body.get(name, "")))[:200] for name in ("error", "error_description")}
    log.error("provider_refused", extra={"what": what, "status": answer.status, **said})
    return VerifierUnavailable(
        "the identity provider refused the gateway",
        code="provider_refused",
        remedy="Nothing is wrong with what you typed. Platform team: the gateway's log has the provider's error.",
    )
