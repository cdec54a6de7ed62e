"""What is hidden in records: strings that match a pattern, and the values of some variables.

Patterns are RE2's: the time they take grows with the text, whatever the pattern, and they mean in a record what they
mean in a policy.  Only what must be there for a record to be found and read is never touched (`KEPT`): a fact that
somebody adds later is masked without a word of theirs.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import re2

from gateway.obligations import Mask

HIDDEN = "[masked]"
WITHHELD = "[withheld]"
PATTERN_BYTES = 2**20
"""Memory of one pattern, compiled."""

KEPT = frozenset(
    {
        "code", "decision", "decision_id", "gateway", "id", "kind", "now", "obligations", "of", "operation",
        "opa_decision_id", "outcome", "person", "policy_revision", "session", "trace_id",
    }
)  # fmt: skip
"""Names of facts that are not masked: what ties records together, and the masks themselves, which are policy's text."""


class BadPattern(ValueError):
    """A pattern that cannot be used."""


def compiled(pattern: str) -> Any:
    """Raises BadPattern for what RE2 does not take, or what matches where nothing stands."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_BYTES
    try:
        found = re2.compile(pattern, options)
    except re2.error as error:
        raise BadPattern(f"it is no pattern of RE2's: {pattern}") from error
    if found.search("") is not None:
        raise BadPattern(f"it matches also where nothing stands: {pattern}")
    return found


class Masks:
    """All that one session has been obliged to hide, so far."""

    def __init__(self) -> None:
        self._patterns: dict[str, Any] = {}
        self._env: set[str] = set()

    def add(self, masks: Iterable[Mask]) -> None:
        """All of them, or none.  Raises BadPattern."""
        masks = list(masks)
        patterns = {text: compiled(text) for mask in masks for text in mask.patterns}
        self._patterns |= patterns
        self._env.update(name for mask in masks for name in mask.env)

    def hides(self, name: str) -> bool:
        """Whether the value of this variable is hidden."""
        return any(fnmatchcase(name, pattern) for pattern in self._env)

    def text(self, text: str) -> str:
        for pattern in self._patterns.values():
            text = pattern.sub(HIDDEN, text)
        return text

    def facts(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """`facts` as they may stand in a record."""
        return self._mapping(facts) if self._patterns or self._env else dict(facts)

    def _mapping(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        masked = {name: fact if name in KEPT else self._value(fact) for name, fact in facts.items()}
        if facts.get("kind") == "env" and self.hides(str(facts.get("name"))):
            masked["value"] = HIDDEN
        if "command_base64" in facts:
            masked["command_base64"] = self._base64(facts["command_base64"])
        return masked

    def _value(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return self._mapping(value)
            case list() | tuple():
                return [self._value(item) for item in value]
        return value

    def _base64(self, encoded: Any) -> Any:
        """The same bytes once more, which must not tell what the text beside them hides."""
        try:
            shown = base64.b64decode(str(encoded), validate=True).decode("utf-8", "backslashreplace")
        except binascii.Error:
            return HIDDEN
        return encoded if self.text(shown) == shown else HIDDEN


def withholding(facts: Mapping[str, Any]) -> dict[str, Any]:
    """`facts` of a decision without what was asked for, where nobody knows what to hide in it."""
    question = facts.get("input", {})
    return {**facts, "input": {**question, "request": _withheld(question.get("request", {}))}}


def _withheld(value: Any) -> Any:
    match value:
        case str():
            return WITHHELD
        case Mapping():
            return {name: fact if name in KEPT else _withheld(fact) for name, fact in value.items()}
        case list() | tuple():
            return [_withheld(item) for item in value]
    return value
