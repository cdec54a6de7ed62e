"""Skips a test, by name and reason, where the machine cannot have a part; DOORWARD_REQUIRE=all makes that a failure."""

from __future__ import annotations

import os

import pytest

from tests.stack.machine import obstacle

EVERYTHING = "all"


def require(*parts: str) -> None:
    """Leave the running test unless the machine can have every one of `parts` (see `machine.obstacle`)."""
    reasons = [f"{part}: {reason}" for part in parts if (reason := obstacle(part))]
    if not reasons:
        return
    if os.environ.get("DOORWARD_REQUIRE") == EVERYTHING:
        pytest.fail("; ".join(reasons), pytrace=False)
    pytest.skip("; ".join(reasons))
