"""Forwards where the workspace has a network and a file system of its own: they leave from there and listen there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ssh.openssh import X_CLIENT, KeyAgent, Master, OpenSSH, answering, listens, x_server
from tests.ssh.world import Site, running, target
from tests.stack.opa import Opa
from tests.stack.require import require
from tests.waiting import until

ALLOW = {
    "listen": [{"host": "localhost", "port": 0}, {"host": "*", "port": 0}],
    "sockets": {"connect": ["/tmp/**"], "listen": ["/tmp/**"]},
    "agent": True,
    "x11": True,
}
ROOMY = {"limits": {"memory_bytes": 256 * 2**20}, "home": "/home/debug", "allow": ALLOW}


@pytest.fixture(params=["docker", "sandbox"])
def walled(request: pytest.FixtureRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a backend with walls, and a target on it."""
    if request.param == "sandbox":
        require("bwrap")
        return {"sandbox": {}}, target("sandbox", **{**ROOMY, "image": "host"})
    site = request.getfixturevalue("site")
    return {"docker": {"url": site.docker.host}}, target("docker", **{**ROOMY, "image": site.images.debug})


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


@asynccontextmanager
async def connected(
    opa: Opa, directory: Path, short: Path, walled: tuple[dict[str, Any], dict[str, Any]], *options: str, **env: str
) -> AsyncIterator[tuple[Site, Master]]:
    backends, there = walled
    async with running(opa, directory, targets={"walled": there}, backends=backends) as site:
        async with OpenSSH(site, short).master(*options, env={**os.environ, **env}) as master:
            yield site, master
        await site.nothing_left(20)


async def test_listeners_are_in_the_workspaces_network_and_end_when_they_are_cancelled(
    opa_server: Opa, tmp_path: Path, short: Path, walled: Any
) -> None:
    async with answering() as answer, connected(opa_server, tmp_path, short, walled) as (site, master):
        for number, host in enumerate(("", "*:")):
            forward = ("-R", f"{host}0:127.0.0.1:{answer}")
            status, said = await master.tell("forward", *forward)
            assert status == 0, said
            port = int(said.split()[-1])
            inside = f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected"
            assert (await master.run(inside))[1] == "connected\n"
            await have_come_in(site, number + 1)
            assert not listens(port), "and not on the gateway's host"
            status, said = await master.tell("cancel", *forward)
            assert status == 0, said
            status, _, error = await master.run(inside)
            assert status != 0
            assert "refused" in error
        assert len(site.gone("listener")) == 2


async def have_come_in(site: Site, connections: int) -> None:
    await until(lambda: [record["outcome"] for record in site.audit("arrival")] == ["ok"] * connections)


async def test_what_is_behind_the_client_can_be_reached_from_inside_and_back(
    opa_server: Opa, tmp_path: Path, short: Path, walled: Any
) -> None:
    """Sockets at both ends, the key agent and the display, each tried by a program of the workspace."""
    async with x_server() as (display, seen):
        with KeyAgent(short) as env:
            keys, back = env["SSH_AUTH_SOCK"], "/tmp/back.sock"
            x11 = ("-X", "-o", "XAuthLocation=/nonexistent")
            options = ("-A", *x11, "-R", f"{back}:{keys}", "-L", f"{short}/there:/tmp/there.sock")
            ways = {"SSH_AUTH_SOCK": keys, "DISPLAY": display}
            async with connected(opa_server, tmp_path, short, walled, *options, **ways) as (site, master):
                for command in ("ssh-add -l", f"SSH_AUTH_SOCK={back} ssh-add -l"):
                    _, out, error = await master.run(command, options=("-A",), env={**os.environ, **ways})
                    assert "(ED25519)" in out, error
                _, out, error = await master.run(X_CLIENT, options=x11, env={**os.environ, **ways})
                assert out == "hello\n", error
                assert len(seen) == 1
                await master.run("ssh-agent -a /tmp/there.sock > /dev/null")
                asked = await asyncio.create_subprocess_exec(
                    "ssh-add", "-l", env={**os.environ, "SSH_AUTH_SOCK": f"{short}/there"},
                    stdout=asyncio.subprocess.PIPE,
                )  # fmt: skip
                out_bytes, _ = await asyncio.wait_for(asked.communicate(), 30)
                assert b"no identities" in out_bytes
    assert {r["kind"] for r in site.audit("arrival")} == {
        "auth-agent@openssh.com", "forwarded-streamlocal@openssh.com", "x11",
    }  # fmt: skip
