"""The decisions on record, read back: whole, with what they stood on, and no damage passed over."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.basis import read
from gateway.audit.log import AuditLog
from gateway.errors import Denied
from gateway.studies import documents
from gateway.studies.decisions import Fault, Recorded, find, opened
from gateway.studies.errors import StudyError
from tests.policy.test_contract import SUBJECT
from tests.policy.world import ALICE, ORDERS, Asking, grant
from tests.stack.opa import Opa


def question(**facts: Any) -> dict[str, Any]:
    return {"schema": 1, "now_ns": 0, "login": {"user": "alice+orders-db"}, **facts}


async def written(file: Path, *records: dict[str, Any], documents: list[dict[str, Any]] | None = None) -> Path:
    """A log by the gateway's own writer."""
    basis = read(documents or [])
    async with AuditLog.open(file) as audit:
        for record in records:
            whole = {"decision": "gateway/authz/decision", "input": question(), **record, **basis.facts()}
            await audit.record("request", whole, basis.documents)
    return file


def all_of(file: Path) -> list[Recorded | Fault]:
    with opened(file) as decisions:
        return list(decisions)


async def test_a_decision_is_found_by_its_id_with_what_it_stood_on(asked: Asking, world: Opa) -> None:
    held = grant()
    world.put(f"grants/{ALICE}", {"INC-1": held})
    permit = (await asked.policy.configure(asked.journal(), SUBJECT, {"kind": "session"})).granted()
    with pytest.raises(Denied) as refused:
        await asked.policy.authorize(asked.journal(), SUBJECT, permit, {"kind": "x11-req"})
    world.put(f"grants/{ALICE}", {})

    found, documents = find(asked.file, refused.value.decision_id)

    assert (found.kind, found.person, found.target, found.request) == ("authz", ALICE, ORDERS, "x11-req")
    assert (found.outcome, found.reasons) == ("deny", ("x11_refused",))
    assert documents["grants"] == {ALICE: {"INC-1": held}}
    assert documents.keys() == {"people", "grants", "targets"}
    assert [one.kind for one in all_of(asked.file) if isinstance(one, Recorded)] == ["config", "authz"]


async def test_all_files_of_a_log_are_read_and_a_packed_one_that_was_cut_is_said(tmp_path: Path) -> None:
    file = await written(tmp_path / "audit.jsonl", *({"decision_id": f"d-{number}"} for number in range(4)))
    first, second, third, fourth = file.read_bytes().splitlines(keepends=True)
    packed = tmp_path / "audit.000000000001-20260101T000000Z.jsonl.gz"
    packed.write_bytes(gzip.compress(first + second))
    file.write_bytes(third + fourth)
    assert [one.id for one in all_of(file) if isinstance(one, Recorded)] == ["d-0", "d-1", "d-2", "d-3"]

    packed.write_bytes(packed.read_bytes()[:-9])
    damaged = [str(one) for one in all_of(file) if isinstance(one, Fault)]
    assert damaged == [f"{packed.name}, line 3: the file was cut short or changed, and cannot be unpacked"]
    assert find(file, "d-3")[0].place == "audit.jsonl, line 2"


async def test_no_such_decision_and_no_such_log_are_said(tmp_path: Path) -> None:
    file = await written(tmp_path / "audit.jsonl", {"decision_id": "d-1"})
    with pytest.raises(StudyError, match="no decision 'd-2' is on record"):
        find(file, "d-2")
    with pytest.raises(StudyError, match="cannot be read: No such file"):
        find(tmp_path / "none.jsonl", "d-1")


async def test_what_cannot_be_read_comes_in_its_place_and_the_rest_is_read(tmp_path: Path) -> None:
    file = await written(tmp_path / "audit.jsonl", *({"decision_id": f"d-{number}"} for number in range(6)))
    lines = file.read_bytes().splitlines(keepends=True)
    lines[1] = b"{" + lines[1][9:]
    del lines[3]
    lines[-1] = lines[-1][:-20]
    file.write_bytes(b"".join(lines))

    found = [one.id if isinstance(one, Recorded) else str(one) for one in all_of(file)]

    assert found == [
        "d-0",
        "audit.jsonl, line 2: not JSON: the record was changed",
        "d-2",
        "audit.jsonl, line 4: record 5 follows record 3: some were removed or reordered",
        "d-4",
        "audit.jsonl, line 5: the last record is incomplete",
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"input": None}, "is a decision without its name, its time or its question"),
        ({"decision": 7}, "is a decision without its name, its time or its question"),
        ({"basis": ["people/alice"]}, "has a basis that is none"),
        ({"basis": {"people/alice": 7}}, "has a basis that is none"),
        ({"basis_omitted": "grants/alice"}, "names no documents as omitted"),
    ],
)
async def test_a_decision_that_is_none_is_a_fault(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    file = await written(tmp_path / "audit.jsonl", {"decision_id": "d-1", **change})
    [fault] = all_of(file)
    assert isinstance(fault, Fault)
    assert told in fault.message


async def test_a_document_that_was_changed_or_removed_is_not_made_up(tmp_path: Path) -> None:
    alice = [{"path": ["people", "alice"], "value": {"groups": ["oncall"]}}]
    file = await written(tmp_path / "audit.jsonl", {"decision_id": "d-1"}, documents=alice)
    whole = file.read_text()

    file.write_text(whole.replace('"value":{"groups":["oncall"]}', '"value":{"groups":["admins"]}'))
    assert [str(one) for one in all_of(file) if isinstance(one, Fault)] == [
        "audit.jsonl, line 1: record 1 was changed: the document is not what its digest says"
    ]
    with pytest.raises(StudyError, match="stood on a document that is not on record"):
        find(file, "d-1")
    file.write_text(whole.partition("\n")[2])
    with pytest.raises(StudyError, match="stood on a document that is not on record"):
        find(file, "d-1")


async def test_a_decision_about_what_looks_like_a_document_is_found(tmp_path: Path) -> None:
    """Whoever writes a grant that says so does not hide the writing of it."""
    asked = question(new={"event": "data"})
    file = await written(tmp_path / "audit.jsonl", {"decision_id": "d-1", "input": asked})
    with opened(file) as decisions:
        [found] = decisions.some(lambda line: b"d-1" in line, with_documents=False)
    assert isinstance(found, Recorded)


async def test_documents_that_do_not_fit_into_memory_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "RECENT_BYTES", 100)
    people = {f"p{number}": {"groups": ["x" * 60, str(number)]} for number in range(20)}
    told = [{"path": ["people", name], "value": value} for name, value in people.items()]
    file = await written(tmp_path / "audit.jsonl", {"decision_id": "d-1"}, documents=told)

    _, tree = find(file, "d-1")

    assert tree == {"people": people}


async def test_a_document_within_another_is_the_same_and_what_was_absent_is_not_there(tmp_path: Path) -> None:
    held = {"INC-1": {"target": "orders-db"}}
    told: list[dict[str, Any]] = [
        {"path": ["grants", "alice", "INC-1"], "value": held["INC-1"]},
        {"path": ["grants", "alice"], "value": held},
        {"path": ["targets", "orders-db"]},
        {"path": ["reviews", "alice"], "omitted": True},
    ]
    file = await written(tmp_path / "audit.jsonl", {"decision_id": "d-1"}, documents=told)
    found, tree = find(file, "d-1")
    assert tree == {"grants": {"alice": held}}
    assert found.omitted == ("reviews/alice",)
    assert json.dumps(found.basis, sort_keys=True).count("null") == 1
