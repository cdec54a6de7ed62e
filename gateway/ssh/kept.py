"""What was asked on a channel before its program may start, in order."""

from __future__ import annotations

from gateway.ssh.requests import CALLBACKS, Request

MAX_KEPT = 100
BEFORE = frozenset({"pty-req", "env", "window-change", *CALLBACKS})
"""What can be asked of a program before it starts."""


class Kept:
    """Requests that are granted for now, for they grant nothing yet (docs/adr/0005): judged with their program."""

    def __init__(self) -> None:
        self._requests: list[Request] = []

    def __bool__(self) -> bool:
        return bool(self._requests)

    @property
    def is_full(self) -> bool:
        return len(self._requests) >= MAX_KEPT

    def keep(self, request: Request) -> bool:
        """Whether it is kept.  Of a terminal's sizes only the last counts."""
        if request.name not in BEFORE or self.is_full:
            return False
        is_size = request.name == "window-change"
        self._requests = [kept for kept in self._requests if not (is_size and kept.name == "window-change")]
        self._requests.append(request)
        return True

    def take(self) -> list[Request]:
        """All of them; none is kept any more."""
        taken, self._requests = self._requests, []
        return taken

    def last(self) -> Request:
        """The one that came last, kept no more."""
        return self._requests.pop()

    def variable(self, name: str) -> str | None:
        """The value that a variable of the environment was to have, as it was set last."""
        set_to = [kept.facts["value"] for kept in self._requests if kept.name == "env" and kept.facts["name"] == name]
        return str(set_to[-1]) if set_to else None
