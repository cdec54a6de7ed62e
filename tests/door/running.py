"""A gateway in this process, on a real OPA, and automation at its grants door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gateway.app import Gateway, gateway
from gateway.backends import Backend
from gateway.settings import Settings
from tests.e2e.world import merged
from tests.reading import records
from tests.stack import IN_THE_CLEAR
from tests.stack.example import OPEN, settings_toml
from tests.stack.opa import Opa
from tests.stack.process import write_secret

TOKEN = "ticketing-token"


@dataclass(frozen=True)
class Running:
    """A running gateway and what its caller knows."""

    gateway: Gateway
    settings: Settings
    file: Path
    """The same settings as TOML, for commands."""
    http: httpx.AsyncClient
    """Automation, with its token."""

    async def put(self, path: str, value: Any) -> httpx.Response:
        return await self.http.put(f"/v1/data/grants/{path}", json=value)

    def records(self, event: str = "") -> list[dict[str, Any]]:
        return records(self.settings.audit_file, event)

    async def raw(self, request: bytes) -> tuple[int, bytes]:
        """Send bytes as they are, `TOKEN` for the token; the status and all that came back."""
        assert self.gateway.door is not None
        reader, writer = await asyncio.open_connection(*self.gateway.door)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return int(answer.split(b" ", 2)[1]), answer

    async def at(self, target: str, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
        """One request for `target` exactly as written: no client tidies its path."""
        head = f"{method} {target} HTTP/1.1\r\nHost: door\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n"
        return await self.raw(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def settings_tree(directory: Path, opa: Opa, **changes: Any) -> dict[str, Any]:
    tree = {
        "state_dir": str(directory / "state"),
        "instance": "test",
        "ssh": {"listen": "127.0.0.1:0", "drain_seconds": 0, **OPEN},
        "policy": {
            "url": opa.url, "token": {"file": str(opa.token_files["gateway"])}, "sweep_seconds": 0.05,
            "lint_seconds": 0.1, "timeout_seconds": 2.5,
        },
        "door": {
            "listen": "127.0.0.1:0",
            "clients": {"ticketing": {"token": {"file": str(write_secret(directory / "door.token", TOKEN))}}},
        },
    }  # fmt: skip
    return merged(tree, changes)


@asynccontextmanager
async def running(
    directory: Path, opa: Opa, *, backends: Sequence[Backend] = (), **changes: Any
) -> AsyncIterator[Running]:
    """A gateway whose settings are the plain ones, merged with `changes`."""
    tree = settings_tree(directory, opa, **changes)
    file = directory / "doorward.toml"
    settings = Settings(**tree)
    async with gateway(settings, more_backends=backends) as opened:
        assert opened.door is not None
        listen = f"{opened.door[0]}:{opened.door[1]}"
        file.write_text(settings_toml(merged(tree, {"door": {"listen": listen}})))
        headers = {"authorization": f"Bearer {TOKEN}"}
        url = f"http://{listen}"
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, verify=IN_THE_CLEAR) as http:
            yield Running(opened, settings, file, http)
