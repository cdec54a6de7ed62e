"""What can be counted is counted, and kept where nobody else reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.metrics import Metric, metering
from gateway.settings import Settings
from tests.door.running import running
from tests.policy.world import grant, inhabited
from tests.reading import records
from tests.stack.opa import Opa
from tests.waiting import until


def gauges(file: Path) -> list[tuple[dict[str, Any], Any]]:
    """Attributes and values of the gauge of malformed documents, in the order in which they were sent."""
    sent = records(file) if file.exists() else []
    return [
        (point["attributes"], point["value"])
        for batch in sent
        for resource in batch["resource_metrics"]
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
        if metric["name"] == Metric.MALFORMED
        for point in metric["data"]["data_points"]
    ]


async def test_malformed_grants_are_counted_until_they_are_gone(opa_server: Opa, tmp_path: Path) -> None:
    telemetry = {"exporter": "file", "metrics": True, "metrics_seconds": 0.1}
    file = tmp_path / "state" / "metrics.jsonl"
    with inhabited(opa_server):
        async with running(tmp_path, opa_server, telemetry=telemetry) as door:
            await door.put("alice/INC-1", grant())
            await until(lambda: gauges(file)[-1:] == [({"root": "grants"}, 0)], 60)
            opa_server.put("grants/alice/BAD-1", {"target": 7}, role="automation")
            opa_server.put("grants/alice/BAD-2", grant(reason=None), role="automation")
            await until(lambda: gauges(file)[-1:] == [({"root": "grants"}, 2)], 60)
            await door.http.delete("/v1/data/grants/alice/BAD-1")
            await until(lambda: gauges(file)[-1:] == [({"root": "grants"}, 1)], 60)
    assert file.stat().st_mode & 0o777 == 0o600


def test_without_metrics_there_is_nothing_to_send(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, telemetry={"exporter": "file"})
    with metering(settings) as meter:
        meter.create_gauge(Metric.MALFORMED).set(1)
    assert list(tmp_path.iterdir()) == []


def test_the_names_of_metrics_are_a_contract() -> None:
    assert {metric.value for metric in Metric} == {
        "doorward.documents.malformed",
        "doorward.policy.unusable_answers",
        "doorward.pool.ready",
        "doorward.pool.starts",
    }
