"""Every decision, and every way in which OPA can fail it: a deny with a code of ours, logged, counted and on record."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from gateway.errors import PolicyUnavailable
from gateway.metrics import Metric
from gateway.policy import Subject
from gateway.policy.contract import Automation, Decision, LiveSession
from gateway.proofs import Attempt
from gateway.settings import PolicySettings
from gateway.telemetry import Step
from tests.live.world import permit
from tests.policy.servers import Conversation, always, http, never, read_request, serving, talking
from tests.policy.test_contract import CONNECTION, SUBJECT
from tests.policy.world import ALICE, Asking, asking, settings_for
from tests.stack.opa import start_opa
from tests.stack.process import Processes, free_port

SESSION = LiveSession(id="a", person="alice", grant="g", target="t", started_at="x", expires_at="x", idle_seconds=0)
ATTEMPT = Attempt(method="password", proven=False)

Ask = Callable[[Asking], Awaitable[Any]]
ASKED: dict[Decision, tuple[Ask, Step | None, dict[str, Any]]] = {
    Decision.AUTHN: (
        lambda asked: asked.policy.authenticate(asked.journal(), Subject(CONNECTION, ALICE), ATTEMPT, []),
        Step.AUTHN,
        {"outcome": "accept", "identity": {"person": ALICE}},
    ),
    Decision.CONFIG: (
        lambda asked: asked.policy.configure(asked.journal(), SUBJECT, {"kind": "session"}),
        Step.CONFIG,
        {"allow": False},
    ),
    Decision.AUTHZ: (
        lambda asked: asked.policy.authorize(asked.journal(), SUBJECT, permit(1), {"kind": "shell"}),
        Step.REQUEST,
        {"allow": True},
    ),
    Decision.LIVE: (
        lambda asked: asked.policy.judge(asked.journal(), [SESSION]),
        None,  # the sweep puts it on record, and only news (docs/adr/0004)
        {"sessions": {"a": {"verdict": "keep"}}},
    ),
    Decision.ADMISSION: (
        lambda asked: asked.policy.admit(
            asked.journal(), Automation(name="ticketing", proof="token"), "GET", ["grants"], None, None
        ),
        Step.ADMISSION,
        {"allow": True},
    ),
    Decision.ADMIN: (
        lambda asked: asked.policy.manage(
            asked.journal(), Automation(name="ticketing", proof="token"), "reevaluate", None
        ),
        Step.ADMIN,
        {"allow": True},
    ),
}
"""How it is asked, where it is on record, and an answer that is taken."""

FAILURES = {
    "undefined": "policy_undefined",
    "a key more": "policy_malformed",
    "a key less": "policy_malformed",
    "another type": "policy_malformed",
    "no object": "policy_malformed",
    "another version": "policy_version",
    "status 500": "policy_failed",
    "too late": "policy_timeout",
    "nobody there": "policy_unreachable",
    "cut off": "policy_unreachable",
    "cut off, and said to be whole": "policy_malformed",
    "no JSON": "policy_malformed",
}


@asynccontextmanager
async def failing(how: str, good: dict[str, Any]) -> AsyncIterator[str]:
    """A server that answers `good`, damaged in this way; yields its URL."""
    [first, *_] = good
    whole = json.dumps({"result": good}).encode()
    answers: dict[str, Any] = {
        "undefined": {},
        "a key more": {"result": {**good, "more": 1}},
        "a key less": {"result": {key: value for key, value in good.items() if key != first}},
        "another type": {"result": {**good, first: 7}},
        "no object": {"result": [good]},
        "another version": {"result": {**good, "schema": 2}},
        "cut off, and said to be whole": whole[:-5],
        "no JSON": b"<html>",
        "nothing": whole,
    }

    async def cut(reader: Any, writer: Any) -> None:
        while await read_request(reader):
            writer.write(http(whole[:-5], length=len(whole)))
            await writer.drain()
            return

    conversation: Conversation = cut
    if how == "nobody there":
        yield f"http://127.0.0.1:{free_port()}"
    elif how == "cut off":
        async with talking(conversation) as url:
            yield url
    else:
        handler = {"status 500": always({"code": "internal_error"}, 500), "too late": never}.get(how)
        async with serving(handler or always(answers[how])) as url:
            yield url


class Counting:
    """A meter, and what was counted on it."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.meter = self._provider.get_meter("tests")

    def close(self) -> dict[tuple[str, str], int]:
        """How often each decision failed, by decision and failure."""
        data = self._reader.get_metrics_data()
        told = json.loads(data.to_json()) if data else {"resource_metrics": []}
        found = {
            (point["attributes"]["decision"], point["attributes"]["failure"]): point["value"]
            for resource in told["resource_metrics"]
            for scope in resource["scope_metrics"]
            for metric in scope["metrics"]
            if metric["name"] == Metric.UNUSABLE
            for point in metric["data"]["data_points"]
        }
        self._provider.shutdown()
        return found


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.mark.parametrize("decision", ASKED)
async def test_the_answer_that_is_damaged_below_is_taken_whole(
    decision: Decision, counting: Counting, tmp_path: Path
) -> None:
    ask, _, good = ASKED[decision]
    async with (
        failing("nothing", good) as url,
        asking(PolicySettings(url=url, timeout_seconds=2.5), tmp_path / "audit.jsonl", counting.meter) as asked,
    ):
        await ask(asked)
    assert counting.close() == {}


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("decision", ASKED)
async def test_a_failure_is_a_deny_that_is_logged_counted_and_recorded(
    decision: Decision, how: str, counting: Counting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ask, step, good = ASKED[decision]
    seconds = 0.3 if how == "too late" else 2.5
    async with (
        failing(how, good) as url,
        asking(PolicySettings(url=url, timeout_seconds=seconds), tmp_path / "audit.jsonl", counting.meter) as asked,
    ):
        with pytest.raises(PolicyUnavailable) as caught:
            await ask(asked)
        records = asked.records(step) if step is not None else []

    [reason] = caught.value.reasons
    assert reason.code == FAILURES[how]
    assert reason.remedy
    [logged] = [record for record in caplog.records if record.message == "policy_unavailable"]
    assert logged.levelno == logging.ERROR
    assert counting.close() == {(decision.value, FAILURES[how]): 1}
    if step is not None:
        [record] = records
        assert (record["outcome"], record["reasons"][0]["code"]) == ("failed", FAILURES[how])
        assert record["input"]["schema"] == 1, "with its question, so that it can be asked again"


async def test_a_real_opa_without_a_policy_admits_nobody(tmp_path: Path) -> None:
    """Nothing loaded but the authorizer: what is left of a bundle that was emptied by mistake."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "authz.rego").write_text("package system.authz\nallow := true\n")
    processes = Processes(tmp_path / "opa")
    try:
        server = start_opa(processes, policies=tmp_path / "policies")
        async with asking(settings_for(server), tmp_path / "audit.jsonl") as asked:
            for decision, (ask, _, _) in ASKED.items():
                with pytest.raises(PolicyUnavailable) as caught:
                    await ask(asked)
                assert caught.value.reasons[0].code == "policy_undefined", decision
    finally:
        processes.end()
