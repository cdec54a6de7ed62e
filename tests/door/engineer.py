"""An engineer at the door of a gateway in this process: a real SSH client, and workspaces that are plain processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from gateway import assets
from tests.door.running import Running, running
from tests.fakes import ProcessBackend
from tests.policy.world import ALICE, data, grant, inhabited
from tests.stack.opa import Opa

KEY = asyncssh.generate_private_key("ssh-ed25519")

WORKSPACE = {
    "backend": "process", "image": "none", "credentials": [], "network": {},
    "home": "/tmp", "shell": "/bin/sh", "env": {},
}  # fmt: skip


@asynccontextmanager
async def granted(directory: Path, server: Opa, **changes: Any) -> AsyncIterator[Running]:
    """A gateway where alice has a grant; `changes` are to its settings."""
    with inhabited(server, **WORKSPACE):
        server.put(f"people/{ALICE}", {**data()["people"][ALICE], "keys": [KEY.export_public_key().decode()]})
        async with running(directory, server, backends=[ProcessBackend(assets.agent_binary())], **changes) as door:
            assert (await door.put(f"{ALICE}/INC-1", grant())).status_code == 204
            yield door


def connected(door: Running, login: str = ALICE) -> Any:
    """`async with connected(door) as connection`: authenticated, nothing asked for yet."""
    host, port = door.gateway.ssh
    return asyncssh.connect(
        host, port, username=login, client_keys=[KEY], known_hosts=None, config=None, agent_path=None
    )
