"""The clocks of a session, on the loop's own clock and with small numbers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.clocks import Clocks
from gateway.errors import SessionEnded
from gateway.model import Limits, Permit, SessionLimits, WorkspaceSpec

LONG = 3600.0
EARLY = 0.005
"""A timer of the loop may fire this much before its time, by the clock's resolution."""
LATE = 5.0
"""And this much after it, on a machine that is busy elsewhere; LONG is longer by far."""


class Engineer:
    """Whoever is warned; idle since the loop's time `active`."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.active = self.loop.time()
        self.warned: list[tuple[float, str]] = []
        self.heard = asyncio.Event()

    def idle_seconds(self) -> float:
        return self.loop.time() - self.active

    def warn(self, text: str) -> None:
        self.warned.append((self.loop.time() - self.began, text))
        self.heard.set()

    async def ended(self, grant_seconds: float = LONG, **limits: Any) -> tuple[str, float]:
        """The code of the end, and after how long it came."""
        whole = {"idle_seconds": LONG, "max_seconds": LONG, "warn_seconds": 0.1, **limits}
        permit = Permit(
            grant="INC-1",
            target="orders-db",
            expires_at=datetime.now(UTC) + timedelta(seconds=grant_seconds),
            workspace=WorkspaceSpec(
                backend="b", image="i", limits=Limits(memory_bytes=2**24, cpus=1, pids=32, tmpfs_bytes=2**20)
            ),
            session=SessionLimits(max_channels=1, policy_grace_seconds=0, **whole),
        )
        with pytest.raises(SessionEnded) as caught:
            async with asyncio.timeout(LATE):
                await Clocks(permit, self.idle_seconds, self.warn).wait_over()
        assert caught.value.reasons[0].remedy
        return caught.value.reasons[0].code, self.loop.time() - self.began


@pytest.fixture
async def engineer() -> Engineer:
    return Engineer()


async def test_the_grants_end_ends_it_after_one_warning(engineer: Engineer) -> None:
    code, after = await engineer.ended(grant_seconds=0.3)

    assert code == "grant_ended"
    assert after >= 0.3 - EARLY
    [(moment, text)] = engineer.warned
    assert 0.2 - EARLY <= moment < after
    assert "the grant ends in 0 s" in text


async def test_the_longest_duration_ends_it_after_one_warning(engineer: Engineer) -> None:
    code, after = await engineer.ended(max_seconds=0.3)

    assert code == "max_duration"
    assert after >= 0.3 - EARLY
    assert len(engineer.warned) == 1
    assert "longest duration" in engineer.warned[0][1]


async def test_idleness_ends_it_after_one_warning(engineer: Engineer) -> None:
    # Between warning and end it looks several times, a quarter of a second apart.
    code, after = await engineer.ended(idle_seconds=0.7, warn_seconds=0.35)

    assert code == "idle"
    assert after >= 0.7 - EARLY
    assert len(engineer.warned) == 1
    assert "idle" in engineer.warned[0][1]


async def test_the_first_clock_to_run_out_is_the_one_that_is_told(engineer: Engineer) -> None:
    assert (await engineer.ended(grant_seconds=4, max_seconds=0.1, idle_seconds=4))[0] == "max_duration"


async def test_activity_starts_idleness_anew_and_warns_again(engineer: Engineer) -> None:
    async def work_once_warned() -> None:
        await engineer.heard.wait()
        engineer.active = engineer.loop.time()

    working = asyncio.ensure_future(work_once_warned())
    code, after = await engineer.ended(idle_seconds=0.6, warn_seconds=0.4)
    await working

    assert code == "idle"
    assert after >= 0.8 - EARLY, "0.2 s to the warning, and 0.6 s from the activity on"
    assert len(engineer.warned) == 2


class Busy(Engineer):
    """Always at work."""

    def idle_seconds(self) -> float:
        return 0.0


async def test_a_busy_session_is_not_idle() -> None:
    assert (await Busy().ended(idle_seconds=0.05, max_seconds=0.3))[0] == "max_duration"


async def test_a_grant_that_is_over_ends_it_at_once_without_a_warning(engineer: Engineer) -> None:
    code, _ = await engineer.ended(grant_seconds=-5)

    assert (code, engineer.warned) == ("grant_ended", [])


async def test_a_warning_longer_than_the_clock_comes_half_way(engineer: Engineer) -> None:
    _, after = await engineer.ended(max_seconds=0.3, warn_seconds=60)

    warnings = [moment for moment, text in engineer.warned if "duration" in text]
    assert len(warnings) == 1
    assert 0.15 - EARLY <= warnings[0] < after


async def test_no_warning_is_given_where_none_is_wanted(engineer: Engineer) -> None:
    await engineer.ended(max_seconds=0.1, warn_seconds=0)

    assert engineer.warned == []
