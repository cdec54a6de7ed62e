"""One trace for each connection, with the names and ids that tie it to the record; and it is no evidence."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings
from gateway.telemetry import Step, tracing
from tests.door.engineer import connected, granted
from tests.door.running import Running
from tests.reading import records
from tests.stack.opa import Opa


def under(spans: Iterable[dict[str, Any]], parent: dict[str, Any]) -> list[str]:
    """Names of the spans right under `parent`, in order of their start."""
    own = parent["context"]["span_id"]
    return [span["name"] for span in sorted(spans, key=lambda span: span["start_time"]) if span["parent_id"] == own]


@pytest.fixture
async def told(opa_server: Opa, tmp_path: Path) -> tuple[list[dict[str, Any]], Running, str]:
    """The spans of a gateway that had one session and one write at its grants door, and what the session printed."""
    telemetry = {"exporter": "file"}
    async with granted(tmp_path, opa_server, telemetry=telemetry) as door, connected(door) as connection:
        printed = (await connection.run("echo $TRACEPARENT")).stdout
    return records(tmp_path / "state" / "traces.jsonl"), door, str(printed).strip()


async def test_a_session_is_one_trace_whose_steps_are_the_story(told: tuple[Any, Running, str]) -> None:
    spans, _, _ = told
    [root] = [span for span in spans if span["name"] == Step.CONNECTION]
    steps = under(spans, root)

    assert root["parent_id"] is None
    assert {span["context"]["trace_id"] for span in spans if span["parent_id"] == root["context"]["span_id"]} == {
        root["context"]["trace_id"]
    }
    assert {Step.AUTHN, Step.CONFIG, Step.LEASE, Step.WORKSPACE, Step.AGENT, Step.REQUEST, Step.RELAY, Step.GONE} <= {
        *steps
    }
    order = [steps.index(step) for step in (Step.AUTHN, Step.CONFIG, Step.WORKSPACE, Step.AGENT, Step.RELAY)]
    assert order == sorted(order)


async def test_every_span_has_a_name_of_ours(told: tuple[Any, Running, str]) -> None:
    assert {span["name"] for span in told[0]} <= {step.value for step in Step}


async def test_the_root_carries_the_ids_of_the_session(told: tuple[Any, Running, str]) -> None:
    spans, door, _ = told
    [root] = [span for span in spans if span["name"] == Step.CONNECTION]
    [relay] = door.records("relay")

    for name in ("session", "person", "grant", "target"):
        assert root["attributes"][f"doorward.{name}"] == relay[name]
    assert root["context"]["trace_id"] == f"0x{relay['trace_id']}"


async def test_decisions_are_spans_with_the_ids_of_their_records(told: tuple[Any, Running, str]) -> None:
    spans, door, _ = told
    [config] = [span for span in spans if span["name"] == Step.CONFIG]
    [record] = door.records("config")

    assert config["attributes"]["doorward.decision_id"] == record["decision_id"]
    assert config["attributes"]["doorward.opa_decision_id"] == record["opa_decision_id"]
    assert config["attributes"]["doorward.decision"] == "gateway/config/decision"


async def test_the_workspace_continues_the_same_trace(told: tuple[Any, Running, str]) -> None:
    spans, _, printed = told
    [root] = [span for span in spans if span["name"] == Step.CONNECTION]

    assert f"0x{printed.split('-')[1]}" == root["context"]["trace_id"]


async def test_a_write_at_the_grants_door_is_a_trace_of_its_own(told: tuple[Any, Running, str]) -> None:
    spans, _, _ = told
    [root] = [span for span in spans if span["name"] == Step.GRANT and span["parent_id"] is None]

    assert under(spans, root) == [Step.ADMISSION, Step.GRANT]
    assert root["attributes"]["doorward.client"] == "ticketing"


async def test_no_secret_and_no_question_is_in_a_trace(told: tuple[Any, Running, str]) -> None:
    from tests.door.running import TOKEN

    text = json.dumps(told[0])
    assert TOKEN not in text
    assert "orders are stuck" not in text


async def test_the_file_is_private(told: tuple[Any, Running, str]) -> None:
    file = told[1].settings.state / "traces.jsonl"

    assert file.stat().st_mode & 0o777 == 0o600


def test_without_an_exporter_there_is_nothing_to_send(tmp_path: Path) -> None:
    with tracing(Settings(state_dir=tmp_path)) as tracer, tracer.start_as_current_span("x") as span:
        assert span.get_span_context().is_valid
    assert list(tmp_path.iterdir()) == []


def test_the_names_of_steps_are_a_contract() -> None:
    assert {step.value for step in Step} == {
        "connection", "refused", "accept", "authn", "verify", "capture", "config", "lease", "workspace", "agent",
        "request", "sftp", "egress", "listener", "arrival", "relay", "live", "gone", "admission", "grant", "data",
        "reason", "notify", "approval", "admin", "segment", "breakglass", "declined",
    }  # fmt: skip
