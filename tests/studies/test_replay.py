"""What a gateway decided, asked again from its log: the same under the same policies, else exactly what was changed."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import httpx
import pytest

from gateway.cli import main
from gateway.cli.policy.replay import status_of
from gateway.cli.policy.replay_report import markdown, text
from gateway.policy.contract import Decision
from gateway.standalone import AUTOMATION
from gateway.studies.decisions import Recorded
from gateway.studies.differences import SHAPES, Difference, Effect
from gateway.studies.engine import studied
from gateway.studies.replaying import Span, replay, unrecorded
from gateway.studies.sources import Data, read_policies
from gateway.studies.tally import LEFT_OUT, Tally
from tests.cli.commands import Ran, doorward
from tests.door.running import TOKEN
from tests.e2e.world import grant_of
from tests.reading import records
from tests.ssh.world import ALICE, BOB, Site, running, target
from tests.stack import IN_THE_CLEAR
from tests.stack.opa import POLICIES, Opa, opa
from tests.stack.process import write_secret

SECRET = "hunter2-of-alice"
MASKED = {"mask": {"patterns": ["hunter2\\S*"], "env": ["LC_TOKEN"]}}


@dataclass(frozen=True)
class Lived:
    """A log of a gateway that is gone."""

    file: Path

    def records(self) -> list[dict[str, Any]]:
        return [record for record in records(self.file) if "decision" in record]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """Some minutes of everybody's life, in a second."""
    directory = tmp_path_factory.mktemp("lived")
    with opa(directory / "opa") as server:
        asyncio.run(_live(server, directory))
    return Lived(directory / "state" / "audit.jsonl")


async def _live(server: Opa, directory: Path) -> None:
    token = write_secret(directory / "door.token", TOKEN)
    door = {"listen": "127.0.0.1:0", "clients": {AUTOMATION: {"token": {"file": str(token)}}}}
    targets = {"plain": target(oblige=MASKED)}
    async with running(server, directory, targets=targets, door=door) as site:
        async with site.connect(ALICE) as alice:
            await alice.run("echo hi", check=True)
            await alice.run(f"echo {SECRET}", env={"LANG": "C", "LC_TOKEN": SECRET}, check=True)
            with pytest.raises(asyncssh.ChannelOpenError):
                await alice.open_connection("127.0.0.1", 8)  # the target forwards to another port
            async with alice.start_sftp_client() as sftp:
                await sftp.listdir("/tmp")
        async with site.connect(ALICE, username=f"{ALICE}+nowhere") as lost:
            assert (await lost.run("true")).exit_status == 254
        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect("127.0.0.1", site.port, **site.options(BOB, username=SECRET))
        async with site.connect(BOB, term_type="xterm") as bob, bob.create_process() as shell:
            await _automation(site)
            await shell.wait()
        await site.nothing_left()


async def _automation(site: Site) -> None:
    """Writes for Alice, one of them refused, and takes away what Bob stands on."""
    assert site.gateway.door is not None
    host, port = site.gateway.door
    headers = {"authorization": f"Bearer {TOKEN}"}
    url = f"http://{host}:{port}"
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, verify=IN_THE_CLEAR) as door:
        assert (await door.put(f"/v1/data/grants/{ALICE}/g3", json=grant_of(target="beside"))).is_success
        assert (await door.put(f"/v1/data/grants/{ALICE}/g4", json={"target": "beside"})).status_code == 400
        assert (await door.delete(f"/v1/data/grants/{BOB}/g2")).is_success


def changed(folder: Path, name: str, before: str, after: str) -> Path:
    """Our policies with one change."""
    policies = folder / "policies"
    if not policies.exists():
        shutil.copytree(POLICIES, policies)
    file = policies / "gateway" / name
    text = file.read_text()
    assert before in text, name
    file.write_text(text.replace(before, after))
    return policies


async def replayed(file: Path, policies: Path = POLICIES, span: Span | None = None) -> Tally:
    async with studied(read_policies(policies), Data.of({})) as server:
        return await replay(server, file, span or Span())


def rules(tally: Tally) -> list[tuple[str, str, str, int]]:
    return [(one["effect"], one["decision"], one["rule"], one["decisions"]) for one in tally.told()["rules"]]


def who(tally: Tally) -> set[tuple[str, str, str]]:
    return {(one["effect"], one["person"], one["target"]) for one in tally.told()["who"]}


async def test_the_same_policies_decide_the_same(lived: Lived) -> None:
    tally = await replayed(lived.file)
    tally.unrecorded = unrecorded(read_policies(POLICIES), tally)

    found = tally.told()
    assert (found["who"], found["rules"], found["faults"], found["unrecorded"]) == ([], [], [], {})
    kinds = {record["decision"].split("/")[1] for record in lived.records() if record["event"] != "live"}
    assert kinds == {"authn", "config", "authz", "admission"}
    assert {record["outcome"] for record in lived.records()} >= {"allow", "deny", "accept", "continue", "reject", "end"}
    assert found["left_out"] == {"live": sum(record["event"] == "live" for record in lived.records())}
    assert found["same"] == found["asked"] == len(lived.records()) - found["left_out"]["live"] > 20
    assert found["whole"]


def test_every_decision_with_a_basis_can_be_asked_again() -> None:
    assert set(SHAPES) == {decision for decision in Decision if decision.has_basis}


CHANGES: list[tuple[str, str, str, str, set[tuple[str, str, str, int]]]] = [
    # what is changed, in which file, from, to: effect, decision, rule and how many decisions
    (
        "somebody is locked out",
        "config/config.rego",
        "_is_active if people.is_active(_person)",
        '_is_active if {\n\tpeople.is_active(_person)\n\t_person != "bob"\n}',
        {("changes", "config", "desk: gone", 1)},
    ),
    (
        "a group has no permit any more",
        "config/permit.rego",
        "\tpeople.is_active(_person)\n",
        '\tnot "oncall" in data.people[_person].groups\n',
        {("loses", "config", "target_misconfigured", 2)},
    ),
    (
        "sessions are shorter",
        "config/permit.rego",
        '"session": data.targets[_target].session,',
        '"session": object.union(data.targets[_target].session, {"max_seconds": 60}),',
        {("changes", "config", "permit.session.max_seconds: less", 2)},
    ),
    (
        "every forward is allowed",
        "requests/requests.rego",
        "\tforward.port == request.port\n",
        "",
        {("gains", "authz", "forward_refused", 1)},
    ),
    (
        "a window without the afternoon",
        "authz/authz.rego",
        "_stands if grants.stands(_holding, input.now_ns)",
        '_stands if {\n\tgrants.stands(_holding, input.now_ns)\n\tinput.request.kind != "pty-req"\n}',
        {("loses", "authz", "grant_window_closed", 1)},
    ),
    (
        "a login needs a code as well",
        "authn/authn.rego",
        "_person := _login.person if people.is_active(_login.person)",
        '_person := _login.person if {\n\tpeople.is_active(_login.person)\n\t_login.person != "bob"\n}',
        {("loses", "authn", "not_recognised", 2)},
    ),
    (
        "a decision is undefined",
        "authz/authz.rego",
        "else := _refuse(requests.refusal(input.request, _allow, input.permit.target)) if _stands\n\n"
        "else := _refuse(grants.ending(_holding, input.now_ns))",
        "else := _refuse(grants.ending(_holding, input.now_ns)) if not _stands",
        {("changes", "authz", "forward_refused → policy_undefined", 1)},
    ),
    (
        "a builtin fails for one kind of request",
        "authz/authz.rego",
        "_stands if grants.stands(_holding, input.now_ns)",
        '_stands if {\n\tgrants.stands(_holding, input.now_ns)\n\tobject.get(input.request, "term", "1") != "xterm"\n'
        '}\n\n_stands if {\n\tinput.request.term == "xterm"\n\ttime.parse_rfc3339_ns(input.request.term)\n}',
        {("loses", "authz", "policy_failed", 1)},
    ),
    (
        "what is no answer",
        "authz/authz.rego",
        '_refuse(reason) := {"allow": false,',
        '_refuse(reason) := {"allow": "no",',
        {("changes", "authz", "forward_refused → policy_malformed", 1)},
    ),
    (
        "a command is judged that the record hides",
        "requests/requests.rego",
        "\tis_string(request.command)\n",
        '\tnot startswith(request.command, "echo [")\n',
        {("masked", "authz", "exec_refused", 1)},
    ),
]


@pytest.mark.parametrize(
    ("file", "before", "after", "expected"), [change[1:] for change in CHANGES], ids=[change[0] for change in CHANGES]
)
async def test_what_a_change_does_is_told_and_nothing_else(
    file: str, before: str, after: str, expected: set[tuple[str, str, str, int]], lived: Lived, tmp_path: Path
) -> None:
    tally = await replayed(lived.file, changed(tmp_path, file, before, after))
    assert set(rules(tally)) == expected


def test_what_is_on_no_record_is_said_and_not_taken_to_be_empty(lived: Lived, tmp_path: Path) -> None:
    policies = changed(
        tmp_path, "authz/authz.rego",
        "_stands if grants.stands(_holding, input.now_ns)",
        "_stands if {\n\tgrants.stands(_holding, input.now_ns)\n\tnot data.freezes[input.permit.target]\n}",
    )  # fmt: skip
    ran = command(lived.file, policies, "--json")
    assert (ran.status, ran.json["same"]) == (2, ran.json["asked"])
    assert ran.json["unrecorded"] == {"gateway/authz/decision": ["freezes"]}


# -- the command -----------------------------------------------------------------------------------------------------


def command(file: Path, policies: Path, *words: str) -> Ran:
    return ran_here("policy", "replay", "--against", policies, "--log", file, *words)


def ran_here(*words: str | Path) -> Ran:
    """The command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(word) for word in words])
    return Ran(status, out.getvalue(), err.getvalue())


def shorter(folder: Path) -> Path:
    return changed(folder, *CHANGES[2][1:4])


def test_the_report_names_who_and_by_what_and_the_exit_status_gates(lived: Lived, tmp_path: Path) -> None:
    """Nothing in it that somebody typed: not the password that was typed as a name, not what the record hides."""
    ran = command(lived.file, changed(tmp_path, *CHANGES[2][1:4]), "--json", "--max", "1")
    assert (ran.status, ran.err) == (1, "")
    found = ran.json
    assert (found["counted"], found["met"], found["changes"]) == (2, False, 2)
    told = markdown(found)
    assert told.startswith("### Policy replay: more than the threshold allows\n")
    assert "| changed | `alice` | `plain` | `1` | `permit.session.max_seconds: less` |" in told
    assert "| changed | `config` | `permit.session.max_seconds: less` | `2` | `2` |" in told
    assert "changed  alice   plain   1          permit.session.max_seconds: less" in text(found)
    assert SECRET not in ran.out


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--max", "2"], 0),
        (["--fail-on", "gains,losses"], 0),
        (["--fail-on", "nothing"], 0),
        (["--until", "1d"], 0),
    ],
)
def test_what_is_within_the_threshold_passes(words: list[str], status: int, lived: Lived, tmp_path: Path) -> None:
    ran = command(lived.file, changed(tmp_path, *CHANGES[2][1:4]), "--markdown", *words)
    assert ran.status == status
    assert ran.out.startswith("### Policy replay: within the threshold\n")


def test_a_report_is_markdown_whatever_somebody_calls_themselves() -> None:
    tally = Tally()
    evil = "@all | `x` <b>[y](https://x.example)\x1b[2J"
    asked = {"login": {"user": "x"}, "identity": {"person": evil}, "request": {"kind": "exec"}, "schema": 1}
    record = {"decision": "gateway/authz/decision", "time": "2026-01-01T00:00:00Z", "input": asked}
    recorded = Recorded("line 1", record)
    tally.saw(recorded, "")
    tally.compared(Difference(recorded, Effect.LOSES, ("no_grant",), evil, is_masked=False))
    told = markdown({**tally.told(), "met": False})
    assert "| loses | `@all \\| 'x' <b>[y](https://x.example)?[2J` | `-` | `1` | `no_grant` | - |" in told.splitlines()


async def test_it_runs_as_a_process_of_its_own_without_a_bar_where_nobody_looks(lived: Lived) -> None:
    ran = await doorward("policy", "replay", "--against", POLICIES, "--log", lived.file)
    assert (ran.status, ran.err) == (0, "")


def test_whoever_was_not_recognised_has_no_name_in_a_report(lived: Lived, tmp_path: Path) -> None:
    policies = changed(tmp_path, "authn/authn.rego", "not_recognised", "not_known")
    ran = command(lived.file, policies, "--json")
    assert [(one["effect"], one["person"]) for one in ran.json["who"]] == [("changes", "somebody unknown")]
    assert ran.json["who"][0]["rules"][0] == "not_recognised → not_known"
    assert SECRET not in ran.out


SPOILT: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("version", lambda record: record["input"].update(schema=2)),
    ("unknown", lambda record: record.update(decision="gateway/authz/other")),
    ("no_basis", lambda record: record.pop("basis")),
    ("no_basis", lambda record: record.update(basis={"gateway/authz": None})),
    ("omitted", lambda record: record.update(basis_omitted=["grants/alice"])),
    ("missing", lambda record: record["basis"].update({"people/alice": "00"})),
    ("unanswered", lambda record: record.pop("answer")),
]


def test_what_cannot_be_asked_again_is_counted_and_no_report_is_whole_without_it(lived: Lived, tmp_path: Path) -> None:
    whole = records(lived.file)
    judged = [record for record in whole if record["event"] == "request"]
    for record, (_, spoil) in zip(judged, SPOILT, strict=False):
        spoil(record)
    file = tmp_path / "audit.jsonl"
    file.write_text("".join(json.dumps(record, separators=(",", ":")) + "\n" for record in whole))

    ran = command(file, POLICIES, "--json")

    assert ran.status == 2
    found = ran.json["left_out"]
    assert found.pop("live") > 0
    assert found == Counter(why for why, _ in SPOILT)
    assert ran.json["same"] == ran.json["asked"] > 10
    assert (status_of(ran.json, allow_incomplete=True), status_of(ran.json, allow_incomplete=False)) == (0, 2)


@pytest.mark.parametrize("why", sorted(LEFT_OUT))
def test_only_what_had_no_answer_leaves_a_report_whole(why: str) -> None:
    tally = Tally()
    tally.saw(Recorded("line 1", {"decision": "gateway/authz/decision", "input": {"schema": 1}}), why)
    assert tally.is_whole == (why in {"live", "unanswered"})


def test_damage_is_named_and_the_rest_is_asked(lived: Lived, tmp_path: Path) -> None:
    lines = lived.file.read_bytes().splitlines(keepends=True)
    number = max(number for number, line in enumerate(lines) if b'"event":"request"' in line)
    file = tmp_path / "audit.jsonl"
    file.write_bytes(b"".join([*lines[:number], lines[number][:50] + b"\n", *lines[number + 1 :]]))

    ran = command(file, POLICIES, "--json")

    assert (ran.status, ran.json["fault_count"]) == (2, 1)
    assert ran.json["faults"] == [f"audit.jsonl, line {number + 1}: not JSON: the record was changed"]
    assert f"log_damaged: audit.jsonl, line {number + 1}" in ran.err
    assert ran.json["same"] == ran.json["asked"] > 10


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--fail-on", "everything"], "--fail-on 'everything' is none"),
        (["--max", "-1"], "--max -1 is below none"),
        (["--since", "yesterday"], "Write RFC 3339"),
        (["--data", "data.txt"], "it is no .json"),
        (["--log", "nowhere.jsonl"], "nowhere.jsonl cannot be read"),
        (["--against", "nowhere"], "--policies nowhere"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(words: list[str], told: str, lived: Lived) -> None:
    ran = command(lived.file, POLICIES, *words)
    assert (ran.status, ran.out) == (2, "")
    assert told in ran.err


def test_decisions_can_be_asked_with_the_data_of_today(lived: Lived, tmp_path: Path) -> None:
    """Nobody is there any more, so nobody gets in; what is unknown stays unknown."""
    data = tmp_path / "data.json"
    data.write_text("{}")
    ran = command(lived.file, POLICIES, "--data", str(data), "--json")
    assert (ran.status, ran.json["gains"]) == (1, 0)
    assert {one["person"] for one in ran.json["who"] if one["effect"] == "loses"} == {"alice", "bob", AUTOMATION}


# -- the log ---------------------------------------------------------------------------------------------------------


def log(file: Path, *words: str) -> Ran:
    return ran_here("policy", "log", "--log", file, *words)


def test_decisions_are_searched_by_person_target_reason_outcome_and_time(lived: Lived) -> None:
    ran = log(lived.file, "--person", "alice", "--reason", "forward_refused", "--json")
    [found] = ran.json["decisions"]
    assert (found["target"], found["outcome"], found["request"]) == ("plain", "deny", "direct-tcpip")
    at = found["time"]

    def ids(*words: str) -> list[str]:
        return [one["id"] for one in (log(lived.file, *words, "--json")).json["decisions"]]

    refused = ids("--outcome", "deny", "--decision", "authz")
    assert refused == [found["id"]] == ids("--target", "plain", "--outcome", "deny")
    assert found["id"] in ids("--since", at)
    assert found["id"] not in ids("--until", at)
    assert ids("--decision", "admission", "--target", "grants/alice/g4", "--person", AUTOMATION)
    assert ids("--since", "1d") == ids() != []
    told = log(lived.file, "--limit", "2")
    assert told.out.splitlines()[0].split() == [
        "TIME",
        "DECISION",
        "PERSON",
        "TARGET",
        "REQUEST",
        "OUTCOME",
        "REASONS",
        "ID",
    ]
    assert len(told.out.splitlines()) == 4
    assert "older ones; --limit shows more" in told.out
    assert SECRET not in (log(lived.file, "--person", "alice")).out


def test_none_found_is_1_and_what_cannot_be_asked_2(lived: Lived, tmp_path: Path) -> None:
    assert (log(lived.file, "--person", "nobody")).status == 1
    assert (log(lived.file, "--limit", "0")).status == 2
    assert (log(tmp_path / "none")).status == 2
    torn = tmp_path / "audit.jsonl"
    torn.write_bytes(lived.file.read_bytes()[:-20])
    ran = log(torn, "--person", "alice")
    assert (ran.status, "the last record is incomplete" in ran.err) == (2, True)
