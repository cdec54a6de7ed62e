"""Those who come to a door of a gateway in this process, and what they say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import String

from tests.fakes import Known
from tests.ssh.world import ALICE, BOB, Site, running
from tests.stack.opa import Opa

PASSWORD, CODE = "hunter2-correct", "492816"
VERIFY = {
    "password": {"kind": "argon2"},
    "totp": {"kind": "totp", "source": "local", "prompt": "Code: "},
    "questions": {"kind": "questions", "instruction": "Before you come in", "questions": [
        {"name": "why", "prompt": "Why? "}, {"name": "ticket", "prompt": "Ticket? "},
    ]},
}  # fmt: skip


@contextlib.asynccontextmanager
async def door(opa: Opa, directory: Path, rules: dict[str, Any], **changes: Any) -> AsyncIterator[Site]:
    """A gateway whose OPA says `rules` for everybody."""
    verifiers = {"argon2": Known({ALICE: PASSWORD, BOB: "bobs"}), "totp": Known({ALICE: CODE})}
    try:
        async with running(opa, directory, verifiers={**verifiers, **changes.pop("verifiers", {})}, **changes) as site:
            opa.put("door", rules)
            yield site
    finally:
        for root in ("door", "authorities"):
            opa.put(root, {})


class Person(asyncssh.SSHClient):
    """A client that answers what it is asked, and notes what it saw."""

    def __init__(self, *answers: str, password: str | None = None, hold: asyncio.Event | None = None) -> None:
        self._answers = list(answers)
        self._password = password
        self._hold = hold
        self.asked: list[tuple[str, str, tuple[Any, ...]]] = []
        self.banners: list[str] = []

    def auth_banner_received(self, msg: str, lang: str) -> None:
        self.banners.append(msg)

    def password_auth_requested(self) -> str | None:
        given, self._password = self._password, None
        return given

    def kbdint_auth_requested(self) -> str | None:
        return "" if self._answers else None

    async def kbdint_challenge_received(self, name: str, instructions: str, lang: str, prompts: Any) -> Any:
        self.asked.append((name, instructions, tuple(prompts)))
        if self._hold is not None:
            await self._hold.wait()
        return [self._answers.pop(0) for _ in prompts] if len(prompts) <= len(self._answers) else None


async def comes_in(site: Site, person: Person, login: str = ALICE, **options: Any) -> str:
    """Log in and run one command; what it printed."""
    wanted: dict[str, Any] = {
        "username": login, "client_keys": None, "preferred_auth": ["publickey", "password", "keyboard-interactive"],
    }  # fmt: skip
    options = site.options(ALICE, **{**wanted, **options})
    connection, _ = await asyncssh.create_connection(lambda: person, "127.0.0.1", site.port, **options)
    async with connection:
        ran = await connection.run("echo in", check=True)
    return str(ran.stdout).strip()


async def is_refused(site: Site, person: Person, login: str = ALICE, **options: Any) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await comes_in(site, person, login, **options)


def request(method: str, body: bytes = b"", login: str = ALICE) -> bytes:
    """A request to be authenticated, without its first byte."""
    return String(login) + String("ssh-connection") + String(method) + body


def judged(site: Site) -> list[tuple[str, bool, str, str]]:
    """Each question about an attempt, and its answer: method, proven, verified_by, outcome."""
    return [
        (
            record["input"]["attempt"]["method"],
            record["input"]["attempt"]["proven"],
            record["input"]["attempt"]["verified_by"],
            record["outcome"],
        )
        for record in site.audit("authn")
        if "input" in record
    ]
