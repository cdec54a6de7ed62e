"""What an explanation does not show: what the target's masks hide in records, and whatever is called a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from gateway.masks import HIDDEN, BadPattern, Masks
from gateway.obligations import Mask
from gateway.studies.proofs import mapping

_SECRET = re.compile(r"pass(word|wd|phrase|code)|secret|token|api_?key|credential(s)?$|private", re.IGNORECASE)
SHORTEST = 4
"""Of what is hidden wherever it stands: a shorter one would hide half of everything."""


class Veil:
    """Hides in text, and in values."""

    def __init__(self, question: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        self._masks = Masks()
        for mask in _masks(data.get("targets")):
            try:
                self._masks.add([mask])
            except BadPattern:
                continue  # the gateway refuses whatever it stands in the way of
        request = mapping(question.get("request"))
        hidden = {*_secrets(question), *_secrets(data)}
        name, value = request.get("name"), request.get("value")
        is_variable = request.get("kind") == "env" and isinstance(name, str) and isinstance(value, str)
        if is_variable and (self._masks.hides(str(name)) or _SECRET.search(str(name))):
            hidden.add(str(value))
        self._hidden = sorted((one for one in hidden if len(one) >= SHORTEST), key=len, reverse=True)

    def text(self, text: str) -> str:
        for one in self._hidden:
            text = text.replace(one, HIDDEN)
        return self._masks.text(text)

    def value(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {self.text(str(key)): self._field(str(key), inner) for key, inner in value.items()}
            case list() | tuple():
                return [self.value(inner) for inner in value]
        return value

    def _field(self, name: str, value: Any) -> Any:
        return HIDDEN if _SECRET.search(name) and isinstance(value, str) and value else self.value(value)


def _secrets(value: Any, name: str = "") -> Iterator[str]:
    match value:
        case str() if _SECRET.search(name):
            yield value
        case Mapping():
            for key, inner in value.items():
                yield from _secrets(inner, str(key))
        case list() | tuple():
            for inner in value:
                yield from _secrets(inner)


def _masks(value: Any, name: str = "") -> Iterator[Mask]:
    """Every mask of a target, whichever request it is for."""
    if not isinstance(value, Mapping):
        return
    if name == "mask":
        try:
            yield Mask.model_validate_json(json.dumps({"kind": "mask", **value}))
        except ValidationError:
            return
    for key, inner in value.items():
        yield from _masks(inner, str(key))
