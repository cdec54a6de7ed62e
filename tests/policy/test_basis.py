"""What a decision stands on is on record with it: every document that it may read, once for each file of the log."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import basis
from gateway.audit.chain import verify
from gateway.embedded.tools import find_or_build
from gateway.errors import PolicyUnavailable
from gateway.policy.contract import Decision
from gateway.settings import PolicySettings
from tests.policy.schemas import POLICIES
from tests.policy.servers import always, serving
from tests.policy.test_contract import SUBJECT
from tests.policy.world import ALICE, ORDERS, Asking, asking, grant
from tests.stack.opa import Opa


def documents(asked: Asking) -> dict[str, Any]:
    return {record["digest"]: record["value"] for record in asked.records("data")}


async def test_a_decision_is_on_record_with_the_documents_that_it_may_have_read(asked: Asking, world: Opa) -> None:
    held = grant()
    world.put(f"grants/{ALICE}", {"INC-1": held})

    permit = (await asked.policy.configure(asked.journal(), SUBJECT, {"kind": "session"})).granted()
    await asked.policy.authorize(asked.journal(), SUBJECT, permit, {"kind": "shell"})

    [configured] = asked.records("config")
    [judged] = asked.records("request")
    kept = documents(asked)
    assert configured["basis"].keys() == {
        f"people/{ALICE}", f"grants/{ALICE}", f"targets/{ORDERS}", f"joins/{SUBJECT.connection.id}",
    }  # fmt: skip
    assert kept[configured["basis"][f"grants/{ALICE}"]] == {"INC-1": held}
    assert judged["basis"].keys() == {f"people/{ALICE}", f"grants/{ALICE}/INC-1", f"targets/{ORDERS}"}
    assert kept[judged["basis"][f"grants/{ALICE}/INC-1"]] == held
    assert kept[judged["basis"][f"targets/{ORDERS}"]]["ask"]
    assert "basis" not in configured["answer"]
    assert list(verify(asked.file)) == []


async def test_a_document_is_written_once_and_before_it_is_named(asked: Asking, world: Opa) -> None:
    world.put(f"grants/{ALICE}", {"INC-1": grant()})
    journal = asked.journal(session="s-1")
    for _ in range(3):
        await asked.policy.configure(journal, SUBJECT, {"kind": "session"})
    world.put(f"grants/{ALICE}", {"INC-2": grant()})
    await asked.policy.configure(journal, SUBJECT, {"kind": "session"})

    records = asked.records()
    seen: set[str] = set()
    for record in records:
        assert set(record.get("basis", {}).values()) - {None} <= seen
        seen |= {record["digest"]} if record["event"] == "data" else set()
    written = [record["digest"] for record in records if record["event"] == "data"]
    assert len(written) == len(set(written)) == 4  # the person, the target, the grants before and after
    assert {record["session"] for record in records} == {"s-1"}


async def test_what_was_not_there_is_named_as_absent(asked: Asking, world: Opa) -> None:
    world.put(f"grants/{ALICE}", {})
    await asked.policy.configure(asked.journal(), SUBJECT, {"kind": "exec", "target": "nowhere"})

    [record] = asked.records("config")
    assert record["basis"]["targets/nowhere"] is None


async def test_more_than_a_record_holds_is_named_as_missing_and_the_decision_is_made(asked: Asking, world: Opa) -> None:
    many = {f"INC-{number}": grant(reason="x" * 1000) for number in range(basis.MOST_BYTES // 1000)}
    world.put(f"grants/{ALICE}", many)
    configured = await asked.policy.configure(asked.journal(), SUBJECT, {"kind": "session"})

    assert configured.permit is not None
    [record] = asked.records("config")
    assert record["basis_omitted"] == [f"grants/{ALICE}"]
    assert record["basis"].keys() == {f"people/{ALICE}", f"targets/{ORDERS}", f"joins/{SUBJECT.connection.id}"}


@pytest.mark.parametrize("decision", [decision.value for decision in Decision if decision.has_basis])
def test_a_decision_reads_no_root_that_its_basis_does_not_know(decision: str) -> None:
    """Whoever has a rule read another document names it in policies/gateway/basis/documents.rego."""
    name = decision.split("/")[1]
    assert roots_of(f"data.{decision.replace('/', '.')}") <= roots_of(f"data.gateway.basis.{name}_documents")


def roots_of(query: str) -> set[str]:
    """The base documents that `query` depends on, by their first word."""
    told = subprocess.run(
        [find_or_build(), "deps", "--format", "json", "--data", POLICIES, query], capture_output=True, check=True
    )
    refs = [[part["value"] for part in ref] for ref in json.loads(told.stdout)["base"]]
    roots = {ref[1] for ref in refs if ref[0] == "data" and len(ref) > 1}
    assert roots, told.stdout
    return roots


@pytest.mark.parametrize(
    "told",
    [
        {},
        "people",
        [None],
        [{}],
        [{"path": []}],
        [{"path": "people"}],
        [{"path": ["people", 7]}],
        [{"path": ["people/alice"]}],
        [{"path": ["people"], "more": 1}],
    ],
)
async def test_a_basis_outside_the_contract_allows_nothing(told: Any, tmp_path: Path) -> None:
    answer = {"allow": True, "obligations": [], "reasons": [], "basis": told}
    async with (
        serving(always({"result": answer})) as url,
        asking(PolicySettings(url=url), tmp_path / "audit.jsonl") as asked,
    ):
        with pytest.raises(PolicyUnavailable) as caught:
            await asked.policy.configure(asked.journal(), SUBJECT, {"kind": "shell"})
    assert caught.value.reasons[0].code == "policy_malformed"


async def test_documents_of_a_batch_that_could_not_be_written_are_written_with_the_next(tmp_path: Path) -> None:
    from gateway.audit.log import AuditLog
    from gateway.errors import AuditUnavailable
    from tests.audit.test_chain import file_size_limit

    path = tmp_path / "audit.jsonl"
    named = basis.read([{"path": ["people", "alice"], "value": {"groups": ["x" * 2000]}}])
    async with AuditLog.open(path) as audit:
        with file_size_limit(1000), pytest.raises(AuditUnavailable):
            await audit.record("config", named.facts(), named.documents)
        await audit.record("config", named.facts(), named.documents)

    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["data", "config"]
    assert list(verify(path)) == []
