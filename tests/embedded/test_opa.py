"""The embedded OPA is a real one, set up as in production."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.assets import folder
from gateway.embedded.children import ChildUnavailable
from gateway.embedded.opa import ROLES, EmbeddedOpa, opa
from gateway.embedded.tools import OPA, find_or_build
from tests.waiting import until

AUTHZ = """package system.authz
default allow := false
allow if data.tokens[crypto.sha256(input.identity)]
allow if input.path == ["health"]
"""
GRANT = {"target": "orders", "reason": "x"}


@pytest.fixture(scope="session")
def binary() -> Path:
    return find_or_build(OPA)


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    bundle = tmp_path / "policies"
    (bundle / "gateway").mkdir(parents=True)
    (bundle / ".manifest").write_text('{"roots": ["gateway", "system/authz"], "rego_version": 1}')
    (bundle / "authz.rego").write_text(AUTHZ)
    (bundle / "gateway" / "answer.rego").write_text("package gateway\nanswer := 42\n")
    return bundle


async def ask(server: EmbeddedOpa, method: str, path: str, role: str | None = "admin", **body: Any) -> tuple[int, Any]:
    headers = {} if role is None else {"authorization": f"Bearer {server.token_of(role).get_secret_value()}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, f"{server.url}/v1/data/{path}", **body) as response,
    ):
        return response.status, await response.json(content_type=None)


@pytest.fixture
async def server(binary: Path, policies: Path, tmp_path: Path) -> AsyncIterator[EmbeddedOpa]:
    async with opa(binary, policies, tmp_path / "state") as running:
        yield running


async def test_it_decides_and_keeps_a_decision_log(server: EmbeddedOpa) -> None:
    status, answer = await ask(server, "POST", "gateway/answer", "gateway", json={"input": {}})
    assert (status, answer["result"]) == (200, 42)
    assert answer["decision_id"]
    await until(lambda: f'"decision_id":"{answer["decision_id"]}"' in server.log_file.read_text())


async def test_nothing_is_answered_without_a_token(server: EmbeddedOpa) -> None:
    assert (await ask(server, "GET", "gateway/answer", None))[0] == 401
    assert server.token.get_secret_value() == server.token_of("gateway").get_secret_value()
    for role in ROLES:
        assert (await ask(server, "GET", "gateway/answer", role))[0] == 200
        assert stat.S_IMODE(server.token_files[role].stat().st_mode) == 0o600


async def test_nobody_can_add_a_token_or_change_a_policy(server: EmbeddedOpa) -> None:
    status, _ = await ask(server, "PUT", "tokens/mine", json={"name": "me", "role": "admin"})
    assert status == 400
    status, _ = await ask(server, "PUT", "gateway/other", json=1)
    assert status == 400


async def test_grants_outlive_a_kill_and_the_address_and_tokens_stay(
    binary: Path, policies: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with opa(binary, policies, state) as first:
        url, token = first.url, first.token.get_secret_value()
        assert (await ask(first, "PUT", "grants/alice/g1", json=GRANT))[0] == 204
        assert (await ask(first, "PUT", "people/alice", json={"groups": []}))[0] == 204
        os.kill(first.child.pid, signal.SIGKILL)
        assert await first.child.wait_ended() == -signal.SIGKILL
    async with opa(binary, policies, state) as second:
        assert (second.url, second.token.get_secret_value()) == (url, token)
        assert (await ask(second, "GET", "grants/alice/g1"))[1]["result"] == GRANT
        assert (await ask(second, "GET", "people/alice"))[1]["result"] == {"groups": []}


async def test_a_policy_that_was_removed_is_gone_at_the_next_start(
    binary: Path, policies: Path, tmp_path: Path
) -> None:
    async with opa(binary, policies, tmp_path / "state"):
        pass
    (policies / "gateway" / "answer.rego").rename(policies / "gateway" / "renamed.rego")
    (policies / "gateway" / "renamed.rego").write_text("package gateway\nother := 1\n")
    async with opa(binary, policies, tmp_path / "state") as server:
        assert (await ask(server, "GET", "gateway"))[1]["result"] == {"other": 1}


async def test_policies_that_do_not_compile_are_told(binary: Path, policies: Path, tmp_path: Path) -> None:
    (policies / "gateway" / "broken.rego").write_text("package gateway\nbroken if nonsense(\n")
    with pytest.raises(ChildUnavailable, match=r"broken\.rego"):
        async with opa(binary, policies, tmp_path / "state"):
            pass


async def test_our_own_policies_load(binary: Path, tmp_path: Path) -> None:
    async with opa(binary, folder("policies"), tmp_path / "state") as server:
        status, answer = await ask(server, "POST", "gateway/authn/decision", "gateway", json={"input": {}})
    assert status == 200
    assert answer["result"]["outcome"] == "reject"
