"""SFTP under rules where the workspace has walls: Docker, also with an image that holds no program, and the sandbox."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.ssh.world import Site, running, target
from tests.stack.opa import Opa
from tests.stack.require import require

RULES = {"read": ["/tmp/in/**", "/usr/bin/**"], "write": ["/tmp/in", "/tmp/in/**"]}
ALLOW = {"sftp": RULES, "shell": False, "exec": False}
ROOMY = {"limits": {"memory_bytes": 256 * 2**20, "tmpfs_bytes": 64 * 2**20}, "home": "/home/debug", "allow": ALLOW}


@pytest.fixture(params=["docker", "docker without a program", "sandbox"])
def walled(request: pytest.FixtureRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a backend with walls, and a target on it."""
    if request.param == "sandbox":
        require("bwrap")
        return {"sandbox": {}}, target("sandbox", **{**ROOMY, "image": "host"})
    site = request.getfixturevalue("site")
    image = site.images.debug if request.param == "docker" else site.images.noshell
    return {"docker": {"url": site.docker.host}}, target("docker", **{**ROOMY, "image": image})


@asynccontextmanager
async def opened(opa: Opa, directory: Path, walled: Any) -> AsyncIterator[tuple[Site, asyncssh.SFTPClient]]:
    backends, there = walled
    async with running(opa, directory, targets={"walled": there}, backends=backends) as site:
        async with site.connect() as connection, connection.start_sftp_client() as client:
            yield site, client
        await site.nothing_left(20)


async def test_files_go_where_the_rules_say_and_nowhere_else(opa_server: Opa, tmp_path: Path, walled: Any) -> None:
    data = os.urandom(20 * 2**20)
    (tmp_path / "up").write_bytes(data)
    async with opened(opa_server, tmp_path, walled) as (site, client):
        assert await client.realpath(".") == "/home/debug"  # as words: it may not be read
        await client.mkdir("/tmp/in")
        await client.put(tmp_path / "up", "/tmp/in/up")
        await client.chmod("/tmp/in/up", 0o600)
        await client.rename("/tmp/in/up", "/tmp/in/there")
        await client.get("/tmp/in/there", tmp_path / "down")
        assert (tmp_path / "down").read_bytes() == data
        assert [entry.filename for entry in await client.readdir("/tmp/in")] == ["there"]
        assert (await client.stat("/tmp/in/there")).permissions == 0o100600
        await client.symlink("/etc/passwd", "/tmp/in/passwd")
        await client.symlink("/", "/tmp/in/root")
        for path in (
            "/etc/passwd", "/tmp/in/passwd", "/tmp/in/root/etc/passwd", "/proc/self/root/etc/passwd", "/proc/1/environ",
            "/proc/self/environ", "/proc/1/root/etc/passwd", "/proc/self/fd/0", "/dev/stdin", "/run/doorward/x",
            "/tmp/x",
        ):  # fmt: skip
            for mode in ("rb", "wb"):
                with pytest.raises(asyncssh.SFTPPermissionDenied):
                    await client.open(path, mode)
        for folder in ("/", "/etc", "/run/doorward", "/proc", "/tmp", "/home/debug", "/tmp/in/root"):
            with pytest.raises(asyncssh.SFTPPermissionDenied):
                await client.listdir(folder)
    asked = [r["input"]["request"] for r in site.audit("request") if r["input"]["request"]["kind"] == "sftp"]
    assert "/etc/passwd" in [one["path"] for one in asked]
    assert {one["path"] for one in asked if one["operation"] == "symlink"} == {"/tmp/in/passwd", "/tmp/in/root"}


@pytest.mark.parametrize("walled", ["docker", "sandbox"], indirect=True)
async def test_a_link_of_the_image_is_judged_as_what_it_leads_to(opa_server: Opa, tmp_path: Path, walled: Any) -> None:
    """In both, /bin is a link to /usr/bin."""
    async with opened(opa_server, tmp_path, walled) as (site, client), client.open("/bin/ls", "rb") as file:
        head: Any = await file.read(4)
        assert head == b"\x7fELF"
    asked = [record["input"]["request"] for record in site.audit("request")]
    assert [one["path"] for one in asked if one.get("operation") == "open"] == ["/usr/bin/ls"]
