"""The gate before a merge, as a forge runs it: a repository, a change of policies, the decisions on record."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.errors import Denied
from tests.policy.test_contract import SUBJECT
from tests.policy.world import ALICE, asking, grant, settings_for
from tests.stack.opa import POLICIES, Opa

ROOT = Path(__file__).parents[2]
GATE = ROOT / "examples" / "policy-gate.sh"
TEST = """package gateway.moments_test

import data.gateway.moments

test_a_second if moments.second == 1000000000
"""


@pytest.fixture
async def log(world: Opa, tmp_path: Path) -> Path:
    """Alice was let in and refused X11, by the gateway's own policy and recorder."""
    file = tmp_path / "audit.jsonl"
    world.put(f"grants/{ALICE}", {"INC-1": grant()})
    async with asking(settings_for(world), file) as asked:
        journal = asked.journal(session="s-1")
        permit = (await asked.policy.configure(journal, SUBJECT, {"kind": "session"})).granted()
        with pytest.raises(Denied):
            await asked.policy.authorize(journal, SUBJECT, permit, {"kind": "x11-req"})
    return file


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Our policies, committed, on a branch of their own."""
    folder = tmp_path / "repository"
    shutil.copytree(POLICIES, folder / "policies")
    (folder / "policy-tests").mkdir()
    (folder / "policy-tests" / "moments_test.rego").write_text(TEST)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=ours")
    git(folder, "checkout", "--quiet", "-b", "change")
    return folder


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def committed(folder: Path, name: str, before: str, after: str) -> None:
    file = folder / "policies" / "gateway" / name
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    git(folder, "commit", "--quiet", "--all", "--message=changed")


def gate(folder: Path, log: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The script as the workflow has it, in that repository."""
    [step] = [step for step in steps() if "policy-gate.sh" in step.get("run", "")]
    wrapper = folder / "doorward"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m gateway "$@"\n')
    wrapper.chmod(0o700)
    (folder / "examples").mkdir(exist_ok=True)
    shutil.copy(GATE, folder / "examples")
    ours = {**os.environ, **step["env"], "DECISION_LOG": str(log), "DOORWARD": str(wrapper), "COVERAGE": "0", **env}
    ran = subprocess.run(["bash", "-c", step["run"]], cwd=folder, env=ours, capture_output=True, text=True, check=False)
    assert (folder / "report.md").read_text() == ran.stdout
    return ran


def steps() -> list[dict[str, Any]]:
    workflow = yaml.safe_load((ROOT / "examples" / "workflows" / "policy.yaml").read_text())
    found: list[dict[str, Any]] = workflow["jobs"]["gate"]["steps"]
    return found


@pytest.mark.slow
def test_what_changes_no_decision_may_be_merged(repository: Path, log: Path) -> None:
    ran = gate(repository, log)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert ran.stdout.splitlines()[2:7] == [
        "| step | result |", "|---|---|", "| check | passed |", "| test | passed |", "| replay | passed |",
    ]  # fmt: skip
    assert "2 asked again, 2 the same, 0 gain, 0 lose, 0 changed" in ran.stdout


@pytest.mark.slow
def test_what_opens_more_than_before_may_not_and_the_report_says_to_whom(repository: Path, log: Path) -> None:
    committed(repository, "requests/requests.rego", "\tallow.x11 == true\n", '\tnot allow.x11 == "never"\n')
    ran = gate(repository, log)
    assert ran.returncode == 1
    assert "| replay | **failed**, exit status 1 |" in ran.stdout
    assert "| gains | `alice` | `orders-db` | `1` | `x11_refused` |" in ran.stdout


@pytest.mark.slow
def test_the_log_is_not_shown_to_policies_that_ask_the_world_outside(repository: Path, log: Path) -> None:
    before = "_stands if grants.stands(_holding, input.now_ns)"
    sent = 'http.send({"method": "GET", "url": "http://192.0.2.1", "raise_error": false})'
    committed(
        repository, "authz/authz.rego", before, f"_stands if {{\n\tgrants.stands(_holding, input.now_ns)\n\t{sent}\n}}"
    )
    ran = gate(repository, log)
    assert ran.returncode == 1
    assert "| replay | not run: the check failed |" in ran.stdout
    assert "outside_world" in ran.stdout
