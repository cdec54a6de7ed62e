"""What a decision stood on, as the record keeps it: the documents that it may have read, each under its digest.

A record names its documents by digest, and each is written once for every file of the log, as a record of its own
before the first that names it: a file can be read, and its decisions asked again, without another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.audit.chain import canonical

MOST_BYTES = 2**20
"""The most that one decision puts on record.  What is beyond is named, and replay says that it is missing."""


@dataclass(frozen=True, slots=True)
class Basis:
    """Documents by name (their path, joined by `/`)."""

    digests: Mapping[str, str | None] = field(default_factory=dict)
    """None: there was no such document."""
    omitted: Sequence[str] = ()
    """Too long to be told, or to be kept."""
    documents: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """By digest."""

    def facts(self) -> dict[str, Any]:
        """What the decision's own record says of them."""
        facts: dict[str, Any] = {"basis": dict(self.digests)} if self.digests else {}
        return {**facts, "basis_omitted": sorted(self.omitted)} if self.omitted else facts


NOTHING = Basis()


def read(told: Any) -> Basis:
    """What the policy told with its answer: a list of {"path", "value"}, or "omitted" in place of the value.

    Raises ValueError or RecursionError on anything else.
    """
    if not isinstance(told, list):
        raise ValueError("a basis is a list")
    digests: dict[str, str | None] = {}
    omitted: list[str] = []
    documents: dict[str, Any] = {}
    room = MOST_BYTES
    for entry in told:
        name = _name(entry)
        if "value" in entry:
            text = canonical(entry["value"])
            if len(text) <= room:
                room -= len(text)
                digest = hashlib.sha256(text).hexdigest()
                digests[name], documents[digest] = digest, entry["value"]
        elif "omitted" not in entry:
            digests[name] = None
        if name not in digests:
            omitted.append(name)
    return Basis(digests, omitted, documents)


def _name(entry: Any) -> str:
    path = entry.get("path") if isinstance(entry, dict) and entry.keys() <= {"path", "value", "omitted"} else None
    if not isinstance(path, list) or not path or not all(isinstance(step, str) and "/" not in step for step in path):
        raise ValueError("a document of a basis has a path, and a value or none")
    return "/".join(path)
