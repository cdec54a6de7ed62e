"""What crosses the border between the gateway and OPA is written down once, and both sides keep to it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gateway.embedded.tools import find_or_build
from gateway.errors import Denied, PolicyUnavailable
from gateway.model import Identity, Permit, Reason, Value
from gateway.policy import Outcome, Subject
from gateway.policy.contract import (
    AdminAnswer,
    AdmissionAnswer,
    AuthnAnswer,
    AuthzAnswer,
    Automation,
    ConfigAnswer,
    Connection,
    LiveAnswer,
    LiveSession,
    rfc3339,
)
from gateway.policy.questions import QUESTIONS
from gateway.proofs import Attempt, Key
from gateway.telemetry import Step
from tests.policy.schemas import ANSWERS, POLICIES, SCHEMAS, generated, properties
from tests.policy.world import (
    ALICE,
    BOB,
    ORDERS,
    REPORTS,
    Asking,
    asking,
    data,
    grant,
    question,
    settings_for,
)
from tests.stack.opa import Opa

CONNECTION = Connection(id="c-1", client_address="192.0.2.7", client_port=50022, client_software="SSH-2.0-OpenSSH_9.2")
SUBJECT = Subject(CONNECTION, ALICE, Identity(person=ALICE, groups=("oncall",)))
REQUESTS: list[dict[str, Any]] = [
    {"kind": "session"},
    {"kind": "pty-req", "term": "xterm", "columns": 80, "rows": 24},
    {"kind": "env", "name": "LANG", "value": "C.UTF-8"},
    {"kind": "env", "name": "LD_PRELOAD", "value": "/tmp/x.so"},
    {"kind": "env", "name": "MY_WORD", "value": "x"},
    {"kind": "shell"},
    {"kind": "exec", "command": "psql -c 'select 1' | cat\n"},
    {"kind": "subsystem", "name": "sftp"},
    {"kind": "subsystem", "name": "netconf"},
    {"kind": "window-change", "columns": 80, "rows": 24},
    {"kind": "signal", "name": "TERM"},
    {"kind": "break", "milliseconds": 500},
    {"kind": "eow@openssh.com"},
    {"kind": "x11-req"},
    {"kind": "auth-agent-req@openssh.com"},
    {"kind": "direct-tcpip", "host": "orders-db", "port": 5432, "originator_host": "::1", "originator_port": 1},
    {"kind": "direct-tcpip", "host": "10.0.0.1", "port": 22, "originator_host": "::1", "originator_port": 1},
    {"kind": "direct-streamlocal@openssh.com", "path": "/run/docker.sock"},
    {"kind": "tcpip-forward", "host": "", "port": 8080},
    {"kind": "streamlocal-forward@openssh.com", "path": "/tmp/x"},
    {"kind": "anything-else"},
]
STEPS = {
    "authn": Step.AUTHN, "config": Step.CONFIG, "authz": Step.REQUEST, "admission": Step.ADMISSION, "admin": Step.ADMIN,
}  # fmt: skip
TICKETING = Automation(name="ticketing", proof="token")
FILES: list[dict[str, Any]] = [
    {"kind": "sftp", "operation": "open", "path": "/srv/reports/x", "read": True, "write": False, "flags": ["read"]},
    {"kind": "sftp", "operation": "open", "path": "/etc/passwd", "read": True, "write": False, "flags": ["read"]},
    {"kind": "sftp", "operation": "setstat", "path": "/srv/reports/x", "changes": ["mode"]},
    {"kind": "sftp", "operation": "rename", "path": "/srv/reports/inbox/a", "to": "/srv/reports/b"},
    {"kind": "sftp", "operation": "symlink", "path": "/srv/reports/inbox/l", "target": "/etc/passwd"},
]


def key(person: str = ALICE, *, index: int = 0) -> Key:
    kind, material = data()["people"][person]["keys"][index].split()[:2]
    return Key(
        type=kind, fingerprint="SHA256:x", public_key=f"{kind} {material}", bits=3072 if kind == "ssh-rsa" else None
    )


@pytest.fixture
async def asked(world: Opa, tmp_path: Path) -> AsyncIterator[Asking]:
    world.put("grants", {ALICE: {"INC-1": grant()}, BOB: {}})
    async with asking(settings_for(world), tmp_path / "audit.jsonl") as everything:
        yield everything


def inputs(asked: Asking, name: str) -> list[dict[str, Any]]:
    """The questions that were really asked, from the audit log, each held to its schema."""
    schema = json.loads((SCHEMAS / f"input.{name}.json").read_text())
    found = [record["input"] for record in asked.records(STEPS[name])]
    for one in found:
        jsonschema.Draft7Validator(schema).validate(one)
    return found


def test_the_generated_schemas_are_as_the_models_and_the_policies_say() -> None:
    stale = [path.name for path, text in generated().items() if path.read_text() != text]

    assert stale == [], "run scripts/schemas"


def test_every_decision_has_a_schema_of_its_question_and_one_of_its_answer() -> None:
    for kind in ("input", "answer"):
        assert {path.name for path in SCHEMAS.glob(f"{kind}.*.json")} == {f"{kind}.{name}.json" for name in ANSWERS}
    assert {ANSWERS[name][1] for name in ANSWERS} == set(QUESTIONS)


@pytest.mark.parametrize("file", sorted(SCHEMAS.glob("*.json")), ids=lambda file: file.name)
def test_every_schema_and_every_property_in_it_says_what_it_is(file: Path) -> None:
    schema = json.loads(file.read_text())
    unsaid = [path for path, said in properties(schema) if not (said.get("title") and said.get("description"))]

    assert schema.get("title")
    assert unsaid == []


async def test_a_question_outside_its_schema_is_not_asked(asked: Asking, caplog: pytest.LogCaptureFixture) -> None:
    permit = await _permit(asked)
    with pytest.raises(PolicyUnavailable) as caught:
        await asked.policy.authorize(
            asked.journal(), SUBJECT, permit, {"kind": "exec", "command": "x", "cmd": "s3cret"}
        )

    assert caught.value.reasons[0].code == "question_malformed"
    [record] = [record for record in caplog.records if record.message == "question_malformed"]
    assert record.faults == ["request.cmd: Extra inputs are not permitted"]  # type: ignore[attr-defined]
    assert "s3cret" not in caplog.text
    [refused] = asked.records(Step.REQUEST)
    assert (refused["outcome"], refused["reasons"][0]["code"]) == ("failed", "question_malformed")


@pytest.mark.parametrize("schema", [2, 0, "1", None])
async def test_the_policies_refuse_a_question_of_another_version(world: Opa, schema: Any, tmp_path: Path) -> None:
    async with asking(settings_for(world), tmp_path / "audit.jsonl") as asked:
        for name, (model, decision) in ANSWERS.items():
            answer = await asked.opa.query(decision, {**question(name), "schema": schema}, {})
            read = model.model_validate_json(json.dumps(answer.result))
            assert {reason.code for reason in reasons_of(read)} == {"schema_unknown"}, name


def reasons_of(answer: Value) -> Sequence[Reason]:
    if isinstance(answer, LiveAnswer):
        return [reason for judgement in answer.sessions.values() for reason in judgement.reasons]
    assert isinstance(answer, AdminAnswer | AdmissionAnswer | AuthnAnswer | AuthzAnswer | ConfigAnswer)
    return answer.reasons


async def test_authn_asks_by_its_schema_and_reads_every_answer(asked: Asking) -> None:
    async def outcome(login: str, offered: Key | None, proven: bool = True, method: str = "publickey") -> Outcome:
        subject = Subject(CONNECTION, login)
        attempt = Attempt(method=method, proven=proven, key=offered)
        return (await asked.policy.authenticate(asked.journal(), subject, attempt, [])).outcome

    strong, rsa = key(), key(index=1)
    weak = rsa.model_copy(update={"bits": 1024})
    table = [
        (ALICE, strong, Outcome.ACCEPT),
        (f"{ALICE}+{ORDERS}", rsa, Outcome.ACCEPT),
        (ALICE, key(BOB), Outcome.REJECT),
        (ALICE, weak, Outcome.REJECT),
        ("carol", key("carol"), Outcome.REJECT),
        ("nobody\x1b[2J", strong, Outcome.REJECT),
        ("", None, Outcome.REJECT),
        ("a" * 5000, strong, Outcome.REJECT),
    ]
    found = [await outcome(login, offered) for login, offered, _ in table]

    assert found == [wanted for _, _, wanted in table]
    assert await outcome(ALICE, None, method="password") is Outcome.REJECT
    assert len(inputs(asked, "authn")) == len(table) + 1


async def test_config_asks_by_its_schema_and_reads_every_answer(asked: Asking, world: Opa) -> None:
    async def code(login: str, person: str = ALICE) -> str:
        subject = Subject(CONNECTION, login, Identity(person=person))
        try:
            return (await asked.policy.configure(asked.journal(), subject, {"kind": "session"})).granted().grant
        except Denied as refusal:
            return refusal.reasons[0].code

    assert await code(ALICE) == "INC-1"
    assert await code(f"{ALICE}+{REPORTS}") == "no_grant"
    assert await code(BOB, BOB) == "no_grant"
    assert await code("carol", "carol") == "person_disabled"
    world.put("grants/bob/early", grant(starts_at=grant()["ends_at"], ends_at="2099-01-01T00:00:00Z"))
    assert await code(BOB, BOB) == "grant_not_started"
    world.put("grants/alice/INC-2", grant(target=REPORTS))
    assert await code(ALICE) == "target_needed"

    subject = Subject(CONNECTION, ALICE, Identity(person=ALICE))
    several = await asked.policy.configure(asked.journal(), subject, {"kind": "session"})
    assert [choice.target for choice in several.desk.choices] == [ORDERS, REPORTS]
    assert [line.partition(" ")[0] for line in several.refusal.lines] == [f"{ALICE}+{ORDERS}", f"{ALICE}+{REPORTS}"]
    chosen = await asked.policy.configure(asked.journal(), subject, {"kind": "shell", "target": REPORTS})
    assert chosen.granted().grant == "INC-2"
    for word in several.desk.words:
        assert (await asked.policy.configure(asked.journal(), subject, {"kind": "exec", "command": word})).desk.text
    assert len(inputs(asked, "config")) == 8 + len(several.desk.words)


async def test_authz_asks_by_its_schema_and_reads_every_answer(asked: Asking) -> None:
    permit = await _permit(asked)
    allowed, codes = [], []
    for request in REQUESTS:
        try:
            await asked.policy.authorize(asked.journal(), SUBJECT, permit, request)
            allowed.append(request["kind"])
        except Denied as refusal:
            codes.append(refusal.reasons[0].code)

    assert set(allowed) == {
        "session", "pty-req", "env", "shell", "exec", "subsystem", "window-change", "signal", "break",
        "eow@openssh.com", "direct-tcpip",
    }  # fmt: skip
    assert [allowed.count(kind) for kind in ("env", "subsystem", "direct-tcpip")] == [1, 1, 1]
    assert set(codes) == {
        "agent_refused", "env_dangerous", "env_refused", "forward_refused", "remote_forward_refused",
        "request_unknown", "subsystem_refused", "unix_socket_refused", "x11_refused",
    }  # fmt: skip
    assert len(inputs(asked, "authz")) == len(REQUESTS)


async def test_files_are_judged_one_by_one_where_the_target_has_rules_for_them(asked: Asking, world: Opa) -> None:
    permit = (await _permit(asked)).model_copy(update={"grant": "INC-2", "target": REPORTS})
    world.put("grants/alice/INC-2", grant(target=REPORTS))
    subsystem = {"kind": "subsystem", "name": "sftp"}
    codes = []
    for request in FILES:
        try:
            await asked.policy.authorize(asked.journal(), SUBJECT, permit, request)
            codes.append("")
        except Denied as refusal:
            codes.append(refusal.reasons[0].code)

    assert codes == ["", "sftp_path_refused", "sftp_write_refused", "sftp_rename_refused", ""]
    [obliged] = await asked.policy.authorize(asked.journal(), SUBJECT, permit, subsystem)
    assert obliged.kind == "judge_sftp"
    forced = permit.model_copy(update={"workspace": permit.workspace.model_copy(update={"force_command": "true"})})
    with pytest.raises(PolicyUnavailable):  # an allow on a condition that nobody keeps
        await asked.policy.authorize(asked.journal(), SUBJECT, forced, subsystem)
    assert len(inputs(asked, "authz")) == len(FILES) + 2


async def test_live_asks_by_its_schema_and_reads_every_answer(asked: Asking, world: Opa) -> None:
    world.put("grants/alice/INC-9", grant(ends_at=rfc3339_in(30)))
    sessions = [
        _session("kept", "INC-1"),
        _session("warned", "INC-9"),
        _session("ended", "INC-404"),
        _session("foreign", "INC-1", person="carol"),
    ]
    judged = await asked.policy.judge(asked.journal(), sessions)

    jsonschema.Draft7Validator(json.loads((SCHEMAS / "input.live.json").read_text())).validate(dict(judged.question))
    assert {id: judgement.verdict.value for id, judgement in judged.sessions.items()} == {
        "kept": "keep", "warned": "warn", "ended": "end", "foreign": "end",
    }  # fmt: skip


async def test_admission_asks_by_its_schema_and_reads_every_answer(asked: Asking) -> None:
    table: list[tuple[str, list[str], Any, bool]] = [
        ("PUT", ["grants", ALICE, "INC-2"], grant(), True),
        ("PUT", ["grants", ALICE, "INC-2"], [None, 1.5, {"a": "b"}], False),
        ("PUT", ["grants", ALICE, "INC-2"], None, False),
        ("PUT", ["people", ALICE], {"keys": []}, False),
        ("DELETE", ["grants", ALICE, "INC-1"], None, True),
        ("GET", ["grants"], None, True),
        ("PATCH", ["grants", ALICE, "INC-1"], [], False),
        ("GET", ["", "..", "a/b"], None, False),
    ]
    answers = [
        await asked.policy.admit(asked.journal(), TICKETING, verb, path, None, new) for verb, path, new, _ in table
    ]

    assert [answer.allow for answer in answers] == [allowed for *_, allowed in table]
    assert all(answer.allow != bool(answer.reasons) for answer in answers)
    assert len(inputs(asked, "admission")) == len(table)


async def test_admin_asks_by_its_schema_and_reads_every_answer(asked: Asking, world: Opa) -> None:
    session = {"id": "s-1", "person": ALICE, "grant": "INC-1", "target": ORDERS}
    world.put("automations/monitor", {"actions": ["status", "sessions:list"]})
    table: list[tuple[str, str, dict[str, str] | None, bool]] = [
        ("ticketing", "reevaluate", None, True),
        ("ticketing", "sessions:end", session, True),
        ("ticketing", "sessions:end", None, True),
        ("ticketing", "no:such\x1b", None, False),
        ("monitor", "status", None, True),
        ("monitor", "sessions:end", session, False),
        ("nobody", "status", None, False),
    ]
    answers = [
        await asked.policy.manage(asked.journal(), Automation(name=name, proof="token"), action, session, "why", "erin")
        for name, action, session, _ in table
    ]
    world.delete("automations/monitor")

    assert [answer.allow for answer in answers] == [allowed for *_, allowed in table]
    assert all(answer.allow != bool(answer.reasons) for answer in answers)
    assert len(inputs(asked, "admin")) == len(table)


async def test_the_recorded_answers_fit_the_answer_schemas(asked: Asking) -> None:
    permit = await _permit(asked)
    await asked.policy.authorize(asked.journal(), SUBJECT, permit, {"kind": "shell"})
    await asked.policy.admit(asked.journal(), TICKETING, "GET", ["grants"], None, None)
    await asked.policy.manage(asked.journal(), TICKETING, "reevaluate", None)
    attempt = Attempt(method="publickey", proven=True, key=key())
    await asked.policy.authenticate(asked.journal(), Subject(CONNECTION, ALICE), attempt, [])
    for name, step in STEPS.items():
        schema = json.loads((SCHEMAS / f"answer.{name}.json").read_text())
        [record] = asked.records(step)
        jsonschema.Draft202012Validator(schema).validate(record["answer"])


@pytest.mark.parametrize("name", ["authn", "config", "authz", "live", "admission", "admin"])
def test_a_question_with_a_field_more_or_less_is_outside_its_schema(name: str) -> None:
    schema = jsonschema.Draft7Validator(json.loads((SCHEMAS / f"input.{name}.json").read_text()))
    assert schema.is_valid(question(name))
    assert not schema.is_valid({**question(name), "extra": 1})
    for field in question(name):
        assert not schema.is_valid({key: value for key, value in question(name).items() if key != field}), field


@pytest.mark.parametrize("name", sorted(data()))
def test_the_fixtures_fit_the_schemas_of_the_data(name: str) -> None:
    schema = jsonschema.Draft7Validator(json.loads((SCHEMAS / f"data.{name}.json").read_text()))

    schema.validate(data()[name])


async def test_opa_check_passes_and_finds_a_misspelt_input_field(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    shutil.copytree(POLICIES, policies)
    as_is = await asyncio.to_thread(opa_check, policies)
    file = policies / "gateway" / "authz" / "authz.rego"
    file.write_text(file.read_text().replace("input.permit.target", "input.permit.trget"))
    misspelt = await asyncio.to_thread(opa_check, policies)

    assert (as_is.returncode, as_is.stdout + as_is.stderr) == (0, "")
    assert misspelt.returncode != 0
    assert "undefined ref: input.permit.trget" in misspelt.stdout + misspelt.stderr


def opa_check(policies: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [find_or_build(), "check", "--strict", "--schema", SCHEMAS, policies]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rfc3339_in(seconds: float) -> str:
    from datetime import UTC, datetime, timedelta

    return rfc3339(datetime.now(UTC) + timedelta(seconds=seconds))


def _session(id: str, grant: str, person: str = ALICE) -> LiveSession:
    return LiveSession(
        id=id, person=person, grant=grant, target=ORDERS,
        started_at=rfc3339_in(-60), expires_at=rfc3339_in(3600), idle_seconds=0.5,
    )  # fmt: skip


async def _permit(asked: Asking) -> Permit:
    return (await asked.policy.configure(asked.journal(), SUBJECT, {"kind": "session"})).granted()
