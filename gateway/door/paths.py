"""Where documents are at the grants door: `/v1/data/<root>/...`, the same names and depths as in OPA."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from aiohttp import web

from gateway.door.http import Refused

Path = tuple[str, ...]

PREFIX = "/v1/data/"
SEGMENT = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,128}")

DEPTHS = {"grants": 3, "approvals": 4, "reviews": 3, "roster": 2}
"""Segments of a document's path, its root's name among them.  What may be there is policy's to say."""


def path_of(request: web.Request) -> Path:
    """The path as it was typed, in segments.  Raises Refused for what is under no `/v1/data/`."""
    path = request.raw_path.partition("?")[0]
    if not path.startswith(PREFIX):
        raise Refused(404, "resource_not_found", f"only {PREFIX}grants/<person>/<id> and its like are offered here")
    # Split before unquoting: a %2F inside a segment stays inside it, and policy sees it.
    return tuple(unquote(segment) for segment in path.removeprefix(PREFIX).split("/"))


def is_document(path: Sequence[str]) -> bool:
    """Whether there can be a value: nothing else is read for a client before policy has spoken."""
    return len(path) == DEPTHS.get(path[0]) and all(map(SEGMENT.fullmatch, path[1:]))


def is_above_documents(path: Sequence[str]) -> bool:
    """Whether documents can be below it: a root, or one person's share of it."""
    return 0 < len(path) < DEPTHS.get(path[0], 0) and all(map(SEGMENT.fullmatch, path[1:]))


def whose(path: Path) -> str | None:
    """The person whose sessions may stand on this document; None for one that can concern anybody."""
    return None if path[0] == "roster" else path[1]
