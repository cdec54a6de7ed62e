"""Honeypots: anyone comes in, and what they typed is written down; nobody else's is."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.e2e.world import grant_of
from tests.ssh.visitors import Person, comes_in, door, is_refused, judged
from tests.ssh.world import ALICE, Site, target
from tests.stack.opa import Opa


@contextlib.asynccontextmanager
async def trap(opa: Opa, directory: Path, **entry: Any) -> AsyncIterator[Site]:
    """A honeypot for `root` and `admin` that leads to a target of its own, and captures."""
    rules = {"honeypots": {"trap": {"person": "bait", "logins": ["root", "admin"], **entry}}}
    targets = {"plain": target(), "trap": target(capture_credentials=True)}
    async with door(opa, directory, rules, targets=targets) as site:
        opa.put("people/bait", {"keys": []})
        opa.put("grants/bait/g9", grant_of(target="trap"))
        yield site


async def test_a_honeypot_takes_anyone_and_writes_down_what_they_typed(
    opa_server: Opa, tmp_path: Path, unexpected: Any
) -> None:
    async with trap(opa_server, tmp_path, methods=["password", "keyboard-interactive"]) as site:
        assert await comes_in(site, Person(password="toor123"), "root") == "in"
        assert await comes_in(site, Person("letmein456"), "admin") == "in"

        assert [record["typed"] for record in site.audit("capture")] == [
            [{"method": "password", "prompt": "", "typed": "toor123"}],
            [{"method": "keyboard-interactive", "prompt": "Password: ", "typed": "letmein456"}],
        ]
        assert {record["person"] for record in site.audit("capture")} == {"bait"}
        assert {record["target"] for record in site.audit("relay")} == {"trap"}
        await is_refused(site, Person(password="toor123"), "zoe")


async def test_a_honeypot_can_take_even_those_who_prove_nothing(
    opa_server: Opa, tmp_path: Path, unexpected: Any
) -> None:
    async with trap(opa_server, tmp_path) as site:
        assert await comes_in(site, Person(), "root") == "in"
        assert judged(site) == [("none", False, "", "accept")]
        assert await comes_in(site, Person(), ALICE, client_keys=[site.keys[ALICE]]) == "in"
        assert site.audit("config")[-1]["input"]["identity"]["honeypot"] is False
