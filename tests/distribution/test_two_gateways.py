"""Two gateways that ask one OPA: what is written at one door holds at the other."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway import assets
from tests.door.engineer import connected, granted
from tests.door.running import running
from tests.fakes import ProcessBackend
from tests.policy.world import ALICE, grant
from tests.stack.opa import Opa

TRIES = 5
SWEEP_SECONDS = 1.0


@pytest.mark.slow
async def test_a_grant_written_at_one_door_is_usable_and_ends_at_the_other(opa_server: Opa, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    sweep = {"policy": {"sweep_seconds": SWEEP_SECONDS}}
    ends: list[float] = []
    async with (
        granted(tmp_path, opa_server, **sweep) as one,
        running(tmp_path / "b", opa_server, backends=[ProcessBackend(assets.agent_binary())], **sweep) as other,
    ):
        await one.http.delete(f"/v1/data/grants/{ALICE}/INC-1")
        for number in range(TRIES):
            assert (await one.put(f"{ALICE}/T-{number}", grant())).status_code == 204
            async with connected(other) as connection:
                process = await connection.create_process("echo up; cat")
                assert await process.stdout.readline() == "up\n"  # no try before this one failed
                told = time.monotonic()
                assert (await one.http.delete(f"/v1/data/grants/{ALICE}/T-{number}")).status_code == 204
                assert (await process.wait()).exit_status == 254
                ends.append(time.monotonic() - told)

    ends.sort()
    print(f"usable at once, {TRIES} of {TRIES}; ended by a DELETE at the other door after p50 {ends[TRIES // 2]:.2f} s,"
          f" longest {ends[-1]:.2f} s, with a sweep of {SWEEP_SECONDS:g} s")  # fmt: skip
