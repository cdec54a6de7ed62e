"""The question that is explained: what is none is told, and a record is one too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.policy.contract import Decision
from gateway.policy.questions import QUESTIONS
from gateway.studies import asked
from gateway.studies.asked import of_file, of_log
from gateway.studies.errors import StudyError
from gateway.studies.sources import Data, tree_of
from tests.policy.world import question
from tests.studies.refusals import changed
from tests.studies.test_decisions import written

TO_REPORTS = changed("config", login__user="alice+reports")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read: Expecting property name"),
        (f'{{"new": {"[" * 500}{"]" * 500}}}', "it is nested deeper than 100 levels"),
        (f'{{"new": {"[" * 100000}{"]" * 100000}}}', "cannot be read"),
        ("[]", "it holds no question: it is no object"),
        ("{}", "no decision is asked so: it has none of sessions, attempt, permit"),
        ({**TO_REPORTS, "schema": 7}, "schema: 7 is no version that is known here"),
        ({name: fact for name, fact in TO_REPORTS.items() if name != "schema"}, "schema: null is no version"),
        (changed("config", now_ns="noon"), "gateway/config/decision: now_ns: Input should be a valid integer"),
        ({**TO_REPORTS, "logn": {}}, "logn: Extra inputs are not permitted"),
    ],
)
def test_a_question_that_is_none_is_told_by_its_field(tmp_path: Path, content: Any, told: str) -> None:
    file = tmp_path / "question.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(StudyError) as refused:
        of_file(file)
    assert told in str(refused.value)
    assert str(file) in str(refused.value)
    assert refused.value.reasons[0].remedy


def test_a_file_that_is_not_there_or_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudyError, match=r"nowhere\.json: cannot be read"):
        of_file(tmp_path / "nowhere.json")
    monkeypatch.setattr(asked, "LARGEST_INPUT", 10)
    (tmp_path / "long.json").write_text(" " * 11)
    with pytest.raises(StudyError, match="it is longer than"):
        of_file(tmp_path / "long.json")


@pytest.mark.parametrize("decision", list(QUESTIONS))
def test_what_is_asked_is_seen_from_the_question(tmp_path: Path, decision: Decision) -> None:
    name = "live" if decision is Decision.LIVE else decision.split("/")[1]
    file = tmp_path / "question.json"
    file.write_text(json.dumps({"input": question(name), "decision": "of a record"}))
    found = of_file(file)
    assert (found.decision, found.question) == (decision, question(name))


async def test_a_record_of_something_else_is_no_decision(tmp_path: Path) -> None:
    record = {"decision": "gateway/other", "decision_id": "d-1", "time": "2030-01-31T12:00:00Z"}
    log = await written(tmp_path / "audit.jsonl", record)
    with pytest.raises(StudyError, match="is of gateway/other, which is no decision of ours"):
        of_log(log, "d-1")


async def test_a_record_without_a_basis_has_no_data_of_then(tmp_path: Path) -> None:
    record = {"decision_id": "d-1", "time": "2030-01-31T12:00:00Z", "basis_omitted": ["grants/alice"]}
    found = of_log(await written(tmp_path / "audit.jsonl", record), "d-1")
    assert found.basis is None
    assert found.notes == ("not on record, and so taken as absent: grants/alice (too long)",)


def test_data_may_be_yaml_as_opa_reads_it() -> None:
    text = "grants: {alice: {INC-1: {starts_at: 2030-01-31T10:00:00Z, is_on: true}}}"
    read = tree_of(Data(text.encode(), ".yaml"))
    assert read == {"grants": {"alice": {"INC-1": {"starts_at": "2030-01-31T10:00:00Z", "is_on": True}}}}
    for content, suffix in ((b"{", ".json"), (b"[]", ".json"), (b"a: [", ".yaml")):
        with pytest.raises(StudyError):
            tree_of(Data(content, suffix))
