"""Targets that are real hosts, and a host that turned against the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncssh

from tests.e2e.world import merged
from tests.ssh.world import HostileBackend, Owner, Script, target
from tests.stack.sshd import USER, Sshd

STARTED_WITH = ("image", "limits", "home", "network", "credentials")
KEY = {"key": "main"}
EVERYTHING = {"agent": True, "x11": True, "listen": [{"host": "localhost", "port": 0}], "env": ["FIXED", "GREETING"]}
"""Of `allow`, beside what a target of these tests allows."""


def host_target(port: int, host_keys: list[str], login: Mapping[str, Any] = KEY, **changes: Any) -> dict[str, Any]:
    """A target on the loopback address; `changes` are merged in."""
    plain = {key: value for key, value in target("sshproxy").items() if key not in STARTED_WITH}
    host = {"address": "127.0.0.1", "port": port, "user": USER, "host_keys": host_keys, **login}
    return merged({**plain, "host": host}, changes)


def on(server: Sshd, login: Mapping[str, Any] = KEY, **changes: Any) -> dict[str, Any]:
    return host_target(server.port, [server.host_key], login, **changes)


def known(server: Sshd, **settings: Any) -> dict[str, Any]:
    """The gateway's settings for it."""
    return {"sshproxy": {"keys": {"main": server.key}, **settings}}


@asynccontextmanager
async def hostile_host(script: Script, **attributes: Any) -> AsyncIterator[tuple[int, str]]:
    """A server that lets everybody in and then does as `script` says; its port and its key."""
    backend = HostileBackend(script, **attributes)
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=lambda: Owner(backend), server_host_keys=[backend.key], config=[]
    )
    try:
        yield server.get_port(), backend.key.export_public_key().decode().strip()
    finally:
        server.close()
        for connection in backend.connections:
            connection.abort()
        await server.wait_closed()
