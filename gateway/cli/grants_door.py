"""How commands speak with the grants door: as one of its clients, on conditions, with its refusals in its own words."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from gateway.cli import settings_of, token_of
from gateway.cli.admin import ask_door, refusal
from gateway.errors import DoorwardError, SettingsError
from gateway.model import Reason
from gateway.settings import Settings


class Conflict(DoorwardError):
    """Somebody else has written meanwhile, and what they wrote stays."""

    code = "conflict"
    remedy = "Look at what is there now (doorward grants show), and decide again."


class Exists(DoorwardError):
    """There is one already, and it stays."""

    code = "exists"


class UnknownGrant(DoorwardError):
    """There is none of this name."""

    code = "unknown_grant"

    def __init__(self, person: str, grant: str) -> None:
        super().__init__(f"{person} has no grant {grant}", remedy=f"See which there are: doorward grants list {person}")


@dataclass(frozen=True, slots=True)
class Door:
    """The door, for one client of it.  Every method raises DoorwardError with each fault, its field and its remedy."""

    url: str
    token: str
    ca_file: Path | None = None

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> Door:
        """The one that was named, or the settings' own."""
        settings = settings_of(parsed)
        return cls(parsed.door or _door_of(settings), token_of(parsed, settings), parsed.ca_file)

    def ask(self, method: str, path: str, value: Any = None, **headers: str) -> httpx.Response:
        """Its answer, whatever it is."""
        return ask_door(self.url, self.token, method, path, value, ca_file=self.ca_file, headers=headers)

    def read(self, path: str) -> tuple[Any, str]:
        """What is there, or None, and its ETag."""
        answer = _good(self.ask("GET", path))
        return _body(answer).get("result"), answer.headers.get("etag", "")

    def write(self, path: str, value: Any, *, if_match: str = "", only_new: bool = False) -> str:
        """Its ETag then.  Raises Conflict where `if_match` is not what is there, Exists where `only_new` is not new."""
        headers = {"if-match": if_match} if if_match else {"if-none-match": "*"} if only_new else {}
        answer = self.ask("PUT", path, value, **headers)
        if answer.status_code == 304:
            raise Exists(f"{path} is there already")
        if answer.status_code == 412:
            raise Conflict(f"{path} was changed by somebody else meanwhile")
        return str(_good(answer).headers.get("etag", ""))

    def remove(self, path: str) -> bool:
        """Whether anything was there; also where this client may not read, and so cannot tell."""
        seen = self.ask("GET", path)
        _good(self.ask("DELETE", path))
        return not seen.is_success or "result" in _body(seen)


def path_of(root: str, *names: str) -> str:
    """Of a document.  Names that nobody can have are refused by policy, in its words."""
    return "/".join([root, *(quote(name, safe="") for name in names)])


def add_to(action: argparse.ArgumentParser) -> None:
    """The options of every command that goes through the door."""
    action.add_argument("--door", metavar="URL", help="default: the door of the settings, on this machine")
    action.add_argument("--ca-file", type=Path, metavar="FILE", help="the door's own certificate authority")
    action.add_argument(
        "--token-file", type=Path, metavar="FILE", help="default: $DOORWARD_TOKEN_FILE, else the only client's token"
    )


def _good(answer: httpx.Response) -> httpx.Response:
    body = _body(answer)  # also of a success: a page with 200 is no door's
    if answer.is_success:
        return answer
    raise refusal(answer, body, [_reason(error) for error in body.get("errors", []) if isinstance(error, dict)])


def _reason(error: dict[str, Any]) -> Reason:
    field = f"{error['field']}: " if error.get("field") else ""
    message = f"{field}{error.get('message') or 'refused'}"
    return Reason(
        code=str(error.get("code", "refused")), message=message[:500], remedy=str(error.get("remedy", ""))[:500]
    )


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json() if answer.content else {}
    except ValueError as error:
        raise DoorwardError(f"{answer.url.host} answered with no JSON: is it the right address?") from error
    if not isinstance(body, dict):
        raise DoorwardError(f"{answer.url.host} answered with no object: is it the right address?")
    return body


def _door_of(settings: Settings) -> str:
    if settings.door.listen is None:
        raise SettingsError("door.listen: this gateway has no grants door", remedy="Set it, or name one with --door.")
    return f"{'https' if settings.door.tls_certificate else 'http'}://{settings.door.listen}"
