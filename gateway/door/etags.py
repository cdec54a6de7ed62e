"""Conditional requests (RFC 9110 section 13), so that two automations do not overwrite each other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from aiohttp import ETag, web
from multidict import istr

from gateway.door.http import Refused

IF_MATCH, IF_NONE_MATCH = istr("if-match"), istr("if-none-match")


def etag(value: Any) -> str:
    """A strong one: of the value, however it was written down."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the request wants to be true of what is stored.  None: nothing."""

    match: tuple[ETag, ...] | None = None
    none_match: tuple[ETag, ...] | None = None

    @classmethod
    def of(cls, request: web.Request) -> Conditions:
        """Raises Refused for a header that nobody can read: a condition that is not kept is no condition."""
        return cls(_read(request, IF_MATCH, request.if_match), _read(request, IF_NONE_MATCH, request.if_none_match))

    @property
    def only_new(self) -> bool:
        return self.none_match is not None and any(tag.value == "*" for tag in self.none_match)

    def holds_match(self, stored: Any) -> bool:
        """If-Match, by strong comparison; where nothing is stored it never holds."""
        return self.match is None or (stored is not None and _among(stored, self.match, weak=False))

    def holds_none_match(self, stored: Any) -> bool:
        return self.none_match is None or stored is None or not _among(stored, self.none_match, weak=True)


NONE = Conditions()


def _read(request: web.Request, name: istr, parsed: tuple[ETag, ...] | None) -> tuple[ETag, ...] | None:
    if name not in request.headers:
        return None
    if not parsed or len(request.headers.getall(name)) > 1:
        raise Refused(400, "invalid_parameter", f'{name}: write it as "tag", "tag", or as *')
    return parsed


def _among(stored: Any, tags: tuple[ETag, ...], *, weak: bool) -> bool:
    own = etag(stored)
    return any(tag.value == "*" or (tag.value == own and (weak or not tag.is_weak)) for tag in tags)
