"""`doorward policy explain` as CI runs it: of a question in a file, and of a decision on record."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Denied
from tests.cli.commands import Ran, doorward, written
from tests.policy.test_contract import SUBJECT
from tests.policy.world import asking, data, grant, inhabited, settings_for
from tests.stack.opa import Opa
from tests.studies.refusals import changed, patched
from tests.studies.world import POLICIES, data_file


async def explain(*words: str | Path, data: Path, policies: Path = POLICIES) -> Ran:
    return await doorward("policy", "explain", *words, "--policies", policies, "--data", data)


def asked(folder: Path, question: Any) -> Path:
    file = folder / "question.json"
    file.write_text(question if isinstance(question, str) else json.dumps(question))
    return file


DOCUMENT = (Path(__file__).parents[2] / "docs" / "policy-tools.md").read_text()
TO_REPORTS = changed("config", login__user="alice+reports")


async def test_a_refusal_is_told_with_its_rules_its_conditions_and_the_change_that_would_turn_it(
    tmp_path: Path,
) -> None:
    ran = await explain("--input", asked(tmp_path, TO_REPORTS), data=data_file(tmp_path))
    assert (ran.status, ran.err) == (1, "")
    at = (POLICIES / "gateway/grants/grants.rego").read_text().splitlines().index("\tgrant.target == target") + 1
    assert f"gateway/grants/grants.rego:{at}: grant.target == target\n" in ran.out
    assert "grant.target is orders-db; target is reports\n" in ran.out
    assert "  1. a grant for alice on reports, for an hour\n" in ran.out
    assert '     curl -X PUT -H @door.header "$DOOR/v1/data/grants/alice/new-1" -d \'{"target": "reports"' in ran.out


async def test_the_document_shows_what_is_printed(tmp_path: Path) -> None:
    [shown] = re.findall(r"^```console\n\$ doorward policy explain --input .*?\n(.*?)^```", DOCUMENT, re.M | re.S)
    words = ["--policies", "policies", "--data", "policy-tests/fixtures/data.json"]
    ran = await doorward("policy", "explain", "--input", asked(tmp_path, TO_REPORTS), *words)
    # What is written above a line in a policy moves it, and makes the document no less right.
    assert re.sub(r":\d+: ", ":1: ", ran.out) == re.sub(r":\d+: ", ":1: ", shown)


async def test_programs_get_json_patches_that_do_what_is_said_and_ci_can_expect_either(tmp_path: Path) -> None:
    file, question_file = data_file(tmp_path), asked(tmp_path, TO_REPORTS)
    ran = await explain("--input", question_file, "--json", "--expect", "deny:no_grant", data=file)
    assert (ran.status, ran.json["outcome"]) == (0, "deny:no_grant")
    [proposal] = ran.json["proposals"]["found"]
    file.write_text(json.dumps(patched(data(), proposal["data"])))
    ran = await explain("--input", question_file, "--json", "--expect", "deny", data=file)
    assert (ran.status, ran.json["outcome"], ran.json["met"]) == (1, "allow", False)
    assert ran.json["relied_on"]["grant"] == "new-1"


async def test_policies_without_an_answer_are_told_with_status_2(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "other.rego").write_text("package gateway.other\n")
    ran = await explain("--input", asked(tmp_path, TO_REPORTS), data=data_file(tmp_path), policies=folder)
    assert (ran.status, ran.out) == (2, "")
    assert "the policy has no answer: gateway/config/decision is undefined" in ran.err


async def test_what_is_not_there_is_told_with_status_2(tmp_path: Path) -> None:
    file = data_file(tmp_path)
    ran = await explain("--decision", "d-1", "--log", tmp_path / "nowhere.jsonl", data=file)
    assert (ran.status, "nowhere.jsonl" in ran.err) == (2, True)
    ran = await doorward("policy", "explain", "--input", asked(tmp_path, TO_REPORTS), "--policies", POLICIES,
                         "--data", "then")  # fmt: skip
    assert (ran.status, "--data then: it goes with --decision" in ran.err) == (2, True)
    ran = await explain("--input", asked(tmp_path, {**TO_REPORTS, "schema": 7}), data=file)
    assert (ran.status, ran.out) == (2, "")
    assert "schema: 7 is no version that is known here" in ran.err


async def test_a_decision_on_record_is_explained_by_the_data_of_then_or_of_now(tmp_path: Path, opa_server: Opa) -> None:
    log = tmp_path / "audit.jsonl"
    with inhabited(opa_server):
        opa_server.put("grants/alice", {"INC-1": grant()})
        async with asking(settings_for(opa_server), log) as gateway:
            permit = (await gateway.policy.configure(gateway.journal(), SUBJECT, {"kind": "session"})).granted()
            with pytest.raises(Denied) as refused:
                await gateway.policy.authorize(gateway.journal(), SUBJECT, permit, {"kind": "x11-req"})
        words = ["policy", "explain", "--json", "--log", str(log), "--policies", str(POLICIES), "--decision"]

        ran = await doorward(*words, refused.value.decision_id)
        assert (ran.status, ran.json["outcome"], ran.json["recorded"]) == (1, "deny:x11_refused", "deny:x11_refused")
        assert ran.json["data"] == "of then, as the decision on record read them, and nothing else"
        assert "; those of then were " in ran.json["policies"]
        assert ran.json["proposals"]["found"][0]["data"] == [
            {"op": "add", "path": "/targets/orders-db/allow/x11", "value": True}
        ]

        opa_server.put("grants/alice", {})
        settings = {
            "state_dir": str(tmp_path),
            "policy": {"url": opa_server.url, "auditor_token": {"file": str(opa_server.token_files["auditor"])}},
        }
        ran = await doorward("policy", "explain", "--json", "--config", written(tmp_path, settings), "--data", "now",
                             "--decision", refused.value.decision_id)  # fmt: skip
        assert (ran.status, ran.json["outcome"], ran.json["recorded"]) == (1, "deny:grant_deleted", "deny:x11_refused")
        assert ran.json["data"] == "of now, the live OPA's"
        assert ran.json["policies"].startswith("of now, the live OPA's; those of then were ")
        assert ran.json["notes"] == [
            "the answer on record is deny:x11_refused: other policies, or other data, answered then",
        ]
    ran = await doorward(*words, "d-unknown")
    assert (ran.status, "no decision 'd-unknown' is on record" in ran.err) == (2, True)
