"""What has to happen at the grants door so that it holds what a folder says: a plan, and the one patch that does it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from jsonpointer import JsonPointer

from gateway.cli.manifests import Manifest
from gateway.errors import DoorwardError
from gateway.model import Reason

FILLED = frozenset({"requested_by", "requested_at", "extended", "ended_at", "ended_by"})
"""What the door writes into a grant, and no folder says."""


class Action(StrEnum):
    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one grant."""

    action: Action
    person: str
    id: str
    file: str
    old: Mapping[str, Any] | None = field(repr=False)
    new: Mapping[str, Any] | None = field(repr=False)

    def fields(self) -> str:
        """What differs, for the table."""
        old = _own(self.old or {})
        new = self.new or {}
        match self.action:
            case Action.CHANGE:
                names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
                return ", ".join(f"{name}: {_said(old.get(name))} -> {_said(new.get(name))}" for name in names)
            case Action.UNCHANGED:
                return ""
            case _:
                held = new or old
                return f"{_said(held.get('target', held.get('targets')))} until {_said(held.get('ends_at'))}"

    def operations(self) -> list[dict[str, Any]]:
        """On what it was when it was read, or on nothing: a change meanwhile is a conflict."""
        path = str(JsonPointer.from_parts([self.person, self.id]).path)
        test = {"op": "test", "path": path, "value": self.old}
        if self.new is None:
            return [test, {"op": "remove", "path": path}]
        return [test, {"op": "add", "path": path, "value": self.new}]


def plan(manifests: Sequence[Manifest], stored: Mapping[str, Any], client: str, *, prune: bool) -> list[Step]:
    """The steps, by person and id; with `prune`, those grants of this client that the folder does not name are removed.

    `stored` is what the door holds, by person and id.  Raises DoorwardError for grants that another client wrote.
    """
    foreign = [
        Reason(
            code="not_yours",
            message=f"{manifest.file}: id: {old.get('requested_by', 'somebody')} wrote {manifest.person}/{manifest.id}",
            remedy="Choose another id; what another client wrote is for that client to change.",
        )
        for manifest in manifests
        if (old := _held(stored, manifest.person, manifest.id)) and old.get("requested_by") != client
    ]
    if foreign:
        refusal = DoorwardError(foreign[0].message)
        refusal.reasons = tuple(foreign)
        raise refusal
    steps = [_step(manifest, _held(stored, manifest.person, manifest.id)) for manifest in manifests]
    named = {(manifest.person, manifest.id) for manifest in manifests}
    if prune:
        steps += [
            Step(Action.DELETE, person, name, "", old, None)
            for person, grants in stored.items()
            for name, old in grants.items()
            if (person, name) not in named and isinstance(old, dict) and old.get("requested_by") == client
        ]
    return sorted(steps, key=lambda step: (step.person, step.id))


def _held(stored: Mapping[str, Any], person: str, name: str) -> Mapping[str, Any] | None:
    found = stored.get(person, {}).get(name)
    return found if isinstance(found, dict) else None


def _step(manifest: Manifest, old: Mapping[str, Any] | None) -> Step:
    new = _own(manifest.grant)
    action = Action.CREATE
    if old is not None:
        action = Action.UNCHANGED if _own(old) == new else Action.CHANGE
    return Step(action, manifest.person, manifest.id, manifest.file, old, new)


def _own(grant: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in grant.items() if name not in FILLED}


def _said(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
