"""A gateway closes a file of its log as its settings say, and a session that is on record can be read back whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.audit.chain import verify
from gateway.audit.log import AuditLog
from gateway.audit.segments import closed, records
from tests.ssh.world import running
from tests.stack.opa import Opa
from tests.waiting import until


async def test_a_session_is_whole_in_the_file_that_follows_an_old_one(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    log = tmp_path / "state" / "audit.jsonl"
    async with AuditLog.open(log) as audit:
        await audit.record("step", {"time": (datetime.now(UTC) - timedelta(hours=2)).isoformat()})
    async with running(opa_server, tmp_path, audit={"rotate_seconds": 3600, "compress": True}) as site:
        async with site.connect() as connection:
            assert (await connection.run("echo here")).stdout == "here\n"
        await site.nothing_left()
        await until(lambda: [segment.is_packed for segment in closed(log)] == [True])
        mode = closed(log)[0].path.stat().st_mode & 0o777

    assert mode == 0o600
    assert list(verify(log)) == []
    old, opening, *session = records(log)
    assert (old["event"], opening["event"], opening["outcome"]) == ("step", "segment", "closed")
    kept = {record["digest"] for record in session if record["event"] == "data"}
    named = {digest for record in session for digest in record.get("basis", {}).values()} - {None}
    assert named
    assert named <= kept
