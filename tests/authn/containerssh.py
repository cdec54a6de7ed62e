"""A webhook server as ContainerSSH's documentation and code have it: what it takes, and what it answers.

It refuses, as a strict implementation may, whatever lacks a field that the documentation requires.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

PENDING = {"username", "remoteAddress", "connectionId", "clientVersion"}
REQUIRED = {
    "/password": PENDING | {"passwordBase64"},
    "/pubkey": PENDING | {"publicKey"},
    "/authz": PENDING | {"authenticatedUsername"},
    "/config": PENDING | {"authenticatedUsername"},
}


def values(sensitive: bool = False, **names: str) -> dict[str, Any]:
    return {name: {"value": value, "sensitive": sensitive} for name, value in names.items()}


@dataclass
class Directory:
    """Who is known, and what else is said of them."""

    passwords: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    authorized: set[str] = field(default_factory=set)
    also: dict[str, Any] = field(default_factory=dict)
    """Added to each answer of /password, /pubkey and /authz."""
    config: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        if request.method != "POST" or request.path not in REQUIRED:
            return web.Response(status=404)
        body = json.loads(await request.read())
        self.asked.append((request.path, body))
        self.headers.append(dict(request.headers))
        if missing := REQUIRED[request.path] - body.keys():
            return web.Response(status=400, text=f"missing: {missing}")
        if request.path == "/config":
            return web.json_response({"config": self.config})
        return web.json_response({"success": self._is_right(request.path, body), **self.also})

    def _is_right(self, path: str, body: dict[str, Any]) -> bool:
        name = body["username"]
        if path == "/password":
            return base64.b64decode(body["passwordBase64"], validate=True).decode() == self.passwords.get(name)
        if path == "/pubkey":
            return bool(body["publicKey"] == self.keys.get(name))
        return body["authenticatedUsername"] in self.authorized
