"""Each operation asked of policy, on the canonical names of what it touches.

The agent resolves a name, policy judges exactly that string, and the agent opens exactly it without following
anything: whatever moves in between makes the operation fail, and never lead elsewhere.  A client's `..` is taken out
before anything is asked, as words: what is not there must not be told apart by what can be climbed out of.
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.ssh.sftp.operations import Request
from gateway.ssh.sftp.packets import MAX_PATH
from gateway.ssh.sftp.refusals import unreadable, unusable

Authorize = Callable[[Mapping[str, Any]], Awaitable[object]]
Resolve = Callable[[bytes, bool], Awaitable[bytes]]
"""The canonical name of an absolute one; the flag says whether its last link is followed."""


class Judge:
    """Policy's word on one channel's files."""

    def __init__(self, authorize: Authorize, resolve: Resolve) -> None:
        self._authorize = authorize
        self._resolve = resolve
        self.start = b"/"
        """Where relative names begin."""

    async def begin(self) -> None:
        """Learn where relative names begin.  Raises DoorwardError."""
        self.start = self._canonical(await self._resolve(b"", True))

    async def judge(self, request: Request, held: str = "") -> tuple[bytes, ...]:
        """The canonical names to open; `held` names what an open handle is.

        Raises Denied, and PolicyUnavailable or AuditUnavailable: every one of them is a no.
        """
        paths = await self._names(request)
        texts = [held] if held else [_text(path) for path in paths]
        facts = {"kind": "sftp", "operation": _operation(request), **request.parsed.facts, "path": texts[0]}
        if len(texts) > 1:
            facts["to"] = texts[1]
        await self._authorize(facts)
        return paths

    def plain(self, request: Request, place: int = 0) -> bytes:
        """The absolute name that a path of the request is as words: nothing of the file system is in it."""
        path = request.parsed.paths[place]
        if request.form.name == "expand-path" and (path == b"~" or path.startswith(b"~/")):
            path = self.start + path[1:]
        return b"/" + posixpath.normpath(posixpath.join(self.start, path)).lstrip(b"/")

    async def _names(self, request: Request) -> tuple[bytes, ...]:
        found = []
        for place in range(len(request.parsed.paths)):
            follows = request.follows and place == 0
            found.append(self._canonical(await self._resolve(self.plain(request, place), follows)))
        return tuple(found)

    @staticmethod
    def _canonical(name: bytes) -> bytes:
        """The agent's answer, if it is a canonical name at all."""
        clean = name.startswith(b"/") and posixpath.normpath(name) == name and not name.startswith(b"//")
        if not clean or b"\0" in name or len(name) > MAX_PATH:
            raise unusable()
        return name


def _operation(request: Request) -> str:
    return "realpath" if request.form.name == "expand-path" else request.form.name


def _text(path: bytes) -> str:
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError as error:
        raise unreadable() from error
