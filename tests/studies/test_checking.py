"""What `doorward policy check` says of the mistakes that people make, each made in the real policies or data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.studies.checking import check
from gateway.studies.errors import StudyError
from gateway.studies.findings import REMEDIES, Finding
from tests.policy.world import data

ROOT = Path(__file__).parents[2]


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A copy of ours, somewhere else."""
    return Path(shutil.copytree(ROOT / "policies", tmp_path / "mine"))


async def found(policies: Path, tree: Mapping[str, Any] | None = None) -> list[Finding]:
    given = {} if tree is None else {Path("data.json"): tree}
    return await check(policies, None, given, 100)


def changed(policies: Path, file: str, old: str, new: str) -> Path:
    path = policies / "gateway" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def added(policies: Path, rule: str, file: str = "authz/authz.rego") -> Path:
    path = policies / "gateway" / file
    path.write_text(f"{path.read_text()}\n{rule}\n")
    return path


async def test_ours_have_no_faults(policies: Path) -> None:
    assert await found(policies, {root: value for root, value in data().items() if root != "fixtures"}) == []


async def test_a_misspelt_input_field_is_named_with_those_there_are(policies: Path) -> None:
    path = changed(policies, "authz/authz.rego", "input.permit.target", "input.permit.trget")
    first = (await found(policies))[0]

    assert (first.file, first.code) == (str(path), "misspelt_field")
    assert "undefined ref: input.permit.trget" in first.message


IMPORTS = "import data.gateway.reasons\nimport data.gateway.requests\n"
RULES = {
    "an unknown builtin": ("_x if strings.upper(input.login.user)", "unknown_builtin", "strings.upper"),
    "recursion": ("_x if _y\n\n_y if _x", "recursive", "recursive"),
    "a circle of packages": ("_x if data.gateway.authz._y\n\n_y if data.gateway.authz._x", "recursive", "recursive"),
    "OPA's clock": ("_x if time.now_ns() > 0", "own_clock", "time.now_ns"),
    "the network": (
        '_x if http.send({"method": "GET", "url": "http://x"}).status_code == 200',
        "outside_world",
        "http",
    ),
    "chance": ('_x := rand.intn("x", 2)', "outside_world", "rand.intn"),
    "a loop over all grants": (
        "_x if {\n\tsome person, id\n\tdata.grants[person][id].target\n}",
        "walks_everything",
        "",
    ),
    "a loop by a wildcard": ("_x if data.people[_].disabled", "walks_everything", "data.people"),
    "a loop by membership": ("_x if {\n\tsome grants in data.grants\n\tgrants.a\n}", "walks_everything", "data.grants"),
    "a code in no catalogue": ('_x := reasons.reason("new_code", "a", "b")', "code_undocumented", "new_code"),
}


@pytest.mark.parametrize("mistake", RULES)
async def test_a_mistake_in_a_rule_is_found_where_it_is(policies: Path, mistake: str) -> None:
    rule, code, words = RULES[mistake]
    path = changed(policies, "authz/authz.rego", "import data.gateway.requests\n", IMPORTS)
    lines = len(path.read_text().splitlines())
    added(policies, rule)
    matching = [finding for finding in await found(policies) if finding.code == code]

    assert matching
    assert matching[0].file == str(path)
    assert matching[0].line > lines
    assert words in matching[0].message


async def test_a_decision_without_a_default_is_undefined_for_somebody(policies: Path) -> None:
    changed(policies, "authz/authz.rego", "else := _refuse(contract.unanswerable) if not _is_complete\n\n", "")
    changed(policies, "authz/authz.rego", "else := _refuse(grants.ending(_holding, input.now_ns))", "")
    codes = {finding.code for finding in await found(policies)}

    assert "undefined" in codes


async def test_two_values_at_once_are_found_when_a_question_shows_them(policies: Path) -> None:
    added(policies, 'decision := {"allow": true, "obligations": [], "reasons": []} if not input.identity')
    [finding] = [finding for finding in await found(policies) if finding.code == "fails"]

    assert "asked nothing" in finding.message
    assert "authz.rego:" in finding.message


async def test_an_answer_of_a_wrong_type_is_outside_the_contract(policies: Path) -> None:
    changed(policies, "authz/authz.rego", '_refuse(reason) := {"allow": false', '_refuse(reason) := {"allow": "no"')
    [finding] = [finding for finding in await found(policies) if finding.code == "outside_contract"]

    assert "allow: Input should be a valid boolean" in finding.message


async def test_a_builtin_that_gets_a_wrong_type_fails_the_decision(policies: Path) -> None:
    changed(policies, "authz/authz.rego", "\tis_number(input.now_ns)\n", "\tinput.now_ns + 1 > 0\n")

    assert "fails" in {finding.code for finding in await found(policies)}


async def test_a_local_time_compared_as_text_is_a_grant_that_does_not_fit(policies: Path) -> None:
    tree = data()
    tree["grants"]["alice"]["INC-1"]["ends_at"] = "2030-01-31 14:00"
    [finding] = await found(policies, {"grants": tree["grants"]})

    assert (finding.file, finding.code) == ("data.json", "data_misfit")
    assert "ends_at" in finding.message


async def test_misspelt_and_mistyped_data_is_named(policies: Path) -> None:
    people = {"alice": {"keys": [], "disbled": True}, "bob": {"keys": "ssh-ed25519 AAAA"}}
    messages = " ".join(finding.message for finding in await found(policies, {"people": people, "grnts": {}}))

    [other] = await found(policies, {"grants": 7})

    assert other.message == "grants: it is no object"
    assert "disbled" in messages
    assert "keys" in messages
    assert "grnts: no decision reads" in messages


async def test_a_code_that_no_rule_gives_is_unreachable(policies: Path) -> None:
    readme = policies / "README.md"
    readme.write_text(readme.read_text().replace("`shell_refused`", "`shell_refused`, `shell_gone`"))
    [finding] = await found(policies)

    assert (finding.code, finding.file) == ("code_unreachable", str(readme))
    assert "shell_gone" in finding.message


async def test_a_failing_test_and_uncovered_lines_are_found(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "t").mkdir()
    (tmp_path / "p" / "a.rego").write_text("package a\n\nx if input.y == 1\n\nz if input.y == 2\n")
    (tmp_path / "t" / "a_test.rego").write_text("package a_test\n\nimport data.a\n\ntest_x if a.x with input.y as 1\n")
    covered = await check(tmp_path / "p", tmp_path / "t", {}, 100)
    (tmp_path / "t" / "a_test.rego").write_text("package a_test\n\nimport data.a\n\ntest_x if a.x with input.y as 3\n")
    failing = await check(tmp_path / "p", tmp_path / "t", {}, 100)

    assert [(finding.code, finding.line) for finding in covered] == [("untested", 5)]
    assert [(finding.code, finding.line) for finding in failing] == [("test_fails", 5)]


async def test_a_folder_without_rego_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no Rego"):
        await found(tmp_path)


@pytest.mark.parametrize("words", [["--policies", "nowhere"], ["--tests", "nowhere"], ["--data", "nowhere.json"]])
def test_what_is_not_there_is_a_wrong_use(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", *words]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_command_prints_findings_and_its_status_is_for_ci(
    policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "check", "--policies", str(policies)]) == 0
    path = added(policies, "_x if time.now_ns() > 0")
    capsys.readouterr()

    assert main(["policy", "check", "--policies", str(policies), "--json"]) == 1
    [told] = json.loads(capsys.readouterr().out)
    assert (told["file"], told["code"], told["remedy"]) == (str(path), "own_clock", REMEDIES["own_clock"])
