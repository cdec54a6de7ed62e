"""What recorded decisions stood on: each document once, by digest, on disk but for the ones that were just used."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import IO, Any

from gateway.audit.chain import canonical

RECENT_BYTES = 16 * 2**20
"""Of text: what is kept in memory, beside an entry of some hundred bytes for each document there is."""


class Missing(KeyError):
    """A document that is named and was not written."""


class Documents:
    """Contents by digest.  `spool` is a file of our own that nobody else sees."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._end = 0
        self._places: dict[bytes, tuple[int, int]] = {}
        self._recent: OrderedDict[bytes, tuple[int, Any]] = OrderedDict()
        self._recent_bytes = 0

    def keep(self, digest: str, value: Any) -> bool:
        """Whether it is what its digest says; only then it is kept."""
        text = canonical(value)
        if hashlib.sha256(text).hexdigest() != digest:
            return False
        key = bytes.fromhex(digest)
        if key not in self._places:
            self._spool.seek(self._end)
            self._spool.write(text)
            self._places[key] = (self._end, len(text))
            self._end += len(text)
            self._remember(key, len(text), value)
        return True

    def get(self, digest: str) -> Any:
        """Raises Missing."""
        key = _key(digest)
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key][1]
        if key not in self._places:
            raise Missing(digest)
        start, length = self._places[key]
        self._spool.seek(start)
        value = json.loads(self._spool.read(length))
        self._remember(key, length, value)
        return value

    def holds(self, basis: Mapping[str, str | None]) -> bool:
        """Whether all that are named are on record."""
        return all(digest is None or _key(digest) in self._places for digest in basis.values())

    def tree(self, basis: Mapping[str, str | None]) -> dict[str, Any]:
        """The base documents as far as the basis knows them: `people/alice` stands under people, there under alice.

        Raises Missing.
        """
        tree: dict[str, Any] = {}
        # A whole root or person before a part of it, which is then the same.
        for path, digest in sorted(basis.items()):
            if digest is not None:
                *above, last = path.split("/")
                place = tree
                for step in above:
                    place = place.setdefault(step, {})
                    if not isinstance(place, dict):
                        raise Missing(path)
                place[last] = _own(self.get(digest))
        return tree

    def _remember(self, key: bytes, length: int, value: Any) -> None:
        self._recent[key] = (length, value)
        self._recent_bytes += length
        while self._recent_bytes > RECENT_BYTES and len(self._recent) > 1:
            _, (gone, _) = self._recent.popitem(last=False)
            self._recent_bytes -= gone


def _key(digest: str) -> bytes:
    """Empty, which is nobody's, for what is no digest."""
    try:
        return bytes.fromhex(digest)
    except ValueError:
        return b""


def _own(value: Any) -> Any:
    """A copy of the top, so that a document inside another can be put there."""
    return dict(value) if isinstance(value, dict) else value
