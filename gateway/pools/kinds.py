"""Kinds of workspaces, learned from what permits ask for, so that nobody has to repeat policy in the settings.

A kind is all of a permit's workspace that is fixed at its start.  The file that remembers them over a restart holds no
person's name and no secret: targets, images, limits and ways out, as policy said them.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from gateway.backends import Order
from gateway.model import Holder, Name, SessionId, Value, WorkspaceSpec
from gateway.settings_pools import PoolSettings

log = logging.getLogger(__name__)
OUTDATED_SECONDS = 300.0
"""So long after anybody asked for it, a kind is kept ready of whose target another one is asked for."""
SAVE_SECONDS = 60.0
LONGEST = timedelta(days=7)
"""The latest end of a session that can be given a warm workspace, from its start on."""


class Kind(Value):
    """What is fixed when a workspace starts: two of one kind are interchangeable until they are somebody's."""

    target: Name
    spec: WorkspaceSpec

    @classmethod
    def of(cls, order: Order) -> Kind:
        """Without what the agent is told at the claim, which a permit may make of the person."""
        spec = order.spec.model_copy(update={"env": {}, "shell": "", "force_command": None})
        return cls(target=order.holder.target, spec=spec)

    @cached_property
    def key(self) -> str:
        """The same for the same kind, and for no other."""
        return self.model_dump_json()

    def blank(self, session: SessionId) -> Order:
        """One for nobody."""
        holder = Holder(session, person="", grant="", target=self.target, traceparent="")
        return Order(self.spec, holder, datetime.now(UTC) + LONGEST)


class Remembered(Value):
    """One line of the file."""

    kind: Kind
    asked: float


@dataclass(slots=True)
class _Asked:
    kind: Kind
    at: float


class Kinds:
    """Those of one backend, in the order in which they were asked for last."""

    def __init__(self, file: Path, settings: PoolSettings) -> None:
        self._file = file
        self._settings = settings
        self._asked: dict[str, _Asked] = {}
        self._saved = 0.0
        self._is_new = False

    def load(self) -> None:
        """What was asked for before a restart.  A file that cannot be read is logged, and costs the first a wait."""
        try:
            found = TypeAdapter(tuple[Remembered, ...]).validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValidationError) as error:
            log.warning("pool_kinds_unreadable", extra={"file": str(self._file), "error": type(error).__name__})
            return
        for one in sorted(found, key=lambda one: one.asked):
            self._asked[one.kind.key] = _Asked(one.kind, min(one.asked, time.time()))

    def asked(self, kind: Kind) -> bool:
        """Somebody asks for one; whether such ones are kept ready at all."""
        if not self._is_wanted(kind):
            return False
        key = kind.key
        self._is_new |= key not in self._asked
        self._asked.pop(key, None)
        self._asked[key] = _Asked(kind, time.time())
        return True

    def wanted(self) -> Iterator[tuple[str, Kind]]:
        """Those to keep ready, asked for last first, each with a name of its own; the others are forgotten."""
        now, targets, keep = time.time(), set[str](), dict[str, _Asked]()
        for key, asked in reversed(self._asked.items()):
            patience = OUTDATED_SECONDS if asked.kind.target in targets else self._settings.forget_seconds
            targets.add(asked.kind.target)
            if now - asked.at < patience and len(keep) < self._settings.kinds and self._is_wanted(asked.kind):
                keep[key] = asked
        self._is_new |= len(keep) < len(self._asked)
        self._asked = dict(reversed(keep.items()))
        return ((key, asked.kind) for key, asked in keep.items())

    def save(self) -> None:
        """Remember them, where there is something new to remember.  On a thread.  Raises OSError."""
        if not self._is_new and time.time() - self._saved < SAVE_SECONDS:
            return
        self._is_new, self._saved = False, time.time()
        asked = tuple(self._asked.values())  # in one step of the interpreter: logins ask for more meanwhile
        lines = [Remembered(kind=one.kind, asked=one.at).model_dump(mode="json") for one in asked]
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(lines, indent=1))
        temporary.replace(self._file)

    def _is_wanted(self, kind: Kind) -> bool:
        if kind.spec.pod.beside is not None:
            return False  # nothing is put beside a service before somebody needs it
        return not self._settings.targets or kind.target in self._settings.targets
