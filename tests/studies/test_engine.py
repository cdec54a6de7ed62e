"""An OPA of a study's own."""

from __future__ import annotations

import json
import os
import tarfile
import tempfile
from pathlib import Path

import pytest

from gateway.policy.contract import Decision
from gateway.studies.engine import Change, studied
from gateway.studies.errors import StudyError
from gateway.studies.sources import Data, Policies, live_data, live_policies, read_data, read_policies
from tests.policy.world import data, inhabited, settings_for
from tests.stack.opa import Opa
from tests.studies.world import POLICIES, asked, ours, study

NO_DATA = Data.of({})


def rego(**files: str) -> Policies:
    return Policies({f"policies/{name}.rego": text.encode() for name, text in files.items()})


async def test_it_decides_as_the_policies_say() -> None:
    async with study() as opa:
        answer = await opa.ask(Decision.CONFIG, asked("config"))
        assert answer.defined
        assert answer.result["permit"]["grant"] == "INC-1"
        assert not (await opa.ask("gateway/nowhere", {})).defined


async def test_many_questions_are_answered_in_their_order() -> None:
    people = [f"person-{number}" for number in range(1201)]
    questions = [asked("config", login={"user": name}, identity={**asked("config")["identity"], "person": name})
                 for name in [*people, "alice"]]  # fmt: skip
    async with study() as opa:
        answers = await opa.ask_each(Decision.CONFIG, questions)
        assert [answer.result["allow"] for answer in answers] == [False] * 1201 + [True]
        undefined = await opa.ask_each("gateway/nowhere", [{}, {}])
    assert [answer.defined for answer in undefined] == [False, False]


async def test_a_change_holds_while_the_body_runs_and_is_undone_whole() -> None:
    async with study() as opa:
        question = asked("config")
        changes = [
            Change(("people", "alice", "disabled"), True),
            Change(("grants", "bob", "INC-9"), {"target": "reports"}),
            Change(("targets", "reports"), remove=True),
        ]
        async with opa.changed(changes):
            assert (await opa.ask(Decision.CONFIG, question)).result["reasons"][0]["code"] == "person_disabled"
            assert await opa.read("grants", "bob", "INC-9") == {"target": "reports"}
            assert await opa.read("targets", "reports") is None
        assert (await opa.ask(Decision.CONFIG, question)).result["allow"]
        assert {root: await opa.read(root) for root in data()} == data()


async def test_a_builtin_that_fails_is_an_error_with_file_and_line() -> None:
    policies = rego(broken='package gateway.broken\n\ndecision := {"at": time.parse_rfc3339_ns(input.text)}\n')
    async with studied(policies, NO_DATA) as opa:
        with pytest.raises(StudyError, match=r"policies/broken\.rego:3.*parse_rfc3339_ns"):
            await opa.ask("gateway/broken/decision", {"text": "tomorrow"})
        with pytest.raises(StudyError, match=r"policies/broken\.rego:3.*parse_rfc3339_ns"):
            await opa.ask_each("gateway/broken/decision", [{"text": "tomorrow"}])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("package gateway.x\n\nallow if nonsense(input.x)\n", r"policies/x\.rego:3: .*undefined function nonsense"),
        ("package gateway.x\n\nallow if {\n", r"policies/x\.rego:\d+: rego_parse_error"),
        ("package gateway.x\n\na if b\n\nb if a\n", r"policies/x\.rego:3: rego_recursion_error"),
    ],
)
async def test_policies_that_do_not_compile_are_told_with_file_and_line(text: str, told: str) -> None:
    with pytest.raises(StudyError, match=told):
        async with studied(rego(x=text), NO_DATA):
            pass


async def test_policies_that_are_no_text_are_told() -> None:
    with pytest.raises(StudyError, match=r"policies/x\.rego"):
        async with studied(Policies({"policies/x.rego": b'package gateway.x\n\na := "\xff\xfe"\n'}), NO_DATA):
            pass


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("data.json", b'{"people": [', "data.json"),
        ("data.json", b"[1, 2]", "data.json"),
        ("data.yaml", b"people: *nobody\n", "data.yaml"),
        ("data.yaml", b"people: &a\n  self: *a\n", "data.yaml"),
        ("data.json", b'{"gateway": {"config": {"decision": 1}}}', "gateway"),
    ],
)
async def test_data_that_cannot_be_loaded_is_told(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StudyError, match=told):
        async with studied(ours(), read_data(tmp_path / name)):
            pass


def test_files_that_are_none_are_told_by_their_option(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"people": {"ren\xe9": {}}}')
    with pytest.raises(StudyError, match=r"--data .*latin\.json.*cannot be read"):
        read_data(tmp_path / "latin.json")
    with pytest.raises(StudyError, match=r"--data .*is no \.json"):
        read_data(tmp_path / "data.toml")
    with pytest.raises(StudyError, match=r"--policies .*nowhere: cannot be read"):
        read_policies(tmp_path / "nowhere")
    with pytest.raises(StudyError, match="there is no Rego"):
        read_policies(tmp_path)
    (tmp_path / "bundle.tar.gz").write_bytes(b"nothing of the kind")
    with pytest.raises(StudyError, match="cannot be read"):
        read_policies(tmp_path / "bundle.tar.gz")


async def test_a_bundle_and_a_yaml_file_do_as_well(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bundle.tar.gz", "w:gz") as bundle:
        bundle.add(POLICIES, arcname=".")
    (tmp_path / "data.yaml").write_text(json.dumps(data()))  # JSON is YAML
    policies = read_policies(tmp_path / "bundle.tar.gz")
    assert len(policies.files) == len(ours().files)
    async with studied(policies, read_data(tmp_path / "data.yaml")) as opa:
        assert (await opa.ask(Decision.CONFIG, asked("config"))).result["allow"]


async def test_nobody_else_reaches_it_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as place:
        monkeypatch.setattr("tempfile.tempdir", place)
        async with studied(ours(), NO_DATA):
            (folder,) = Path(place).iterdir()
            assert folder.stat().st_mode & 0o077 == 0
            assert (folder / "socket").is_socket()
        assert list(Path(place).iterdir()) == []


async def test_a_tmpdir_with_a_long_name_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    async with studied(ours(), NO_DATA) as opa:
        assert (await opa.ask(Decision.CONFIG, {})).defined


async def test_policies_and_data_are_read_from_the_live_opa(opa_server: Opa) -> None:
    with inhabited(opa_server):
        opa_server.put("grants/alice", data()["grants"]["alice"])
        settings = settings_for(opa_server, auditor_token={"file": opa_server.token_files["auditor"]})
        policies, documents = await live_policies(settings), await live_data(settings)
        tree = json.loads(documents.content)
        assert tree["people"].keys() == data()["people"].keys()
        assert "tokens" not in tree
        async with studied(policies, documents) as opa:
            assert (await opa.ask(Decision.CONFIG, asked("config"))).result["allow"]
            assert any(name.endswith("config.rego") for name in policies.files)


async def test_a_token_that_may_not_read_is_told_what_to_set(opa_server: Opa) -> None:
    with pytest.raises(StudyError, match="does not let this token read") as told:
        await live_policies(settings_for(opa_server))
    assert "policy.auditor_token" in told.value.reasons[0].remedy
    nowhere = settings_for(opa_server).model_copy(update={"url": f"http://127.0.0.1:{os.getpid() % 1000 + 1}"})
    with pytest.raises(StudyError, match="did not give") as told:
        await live_data(nowhere)
    assert "policy.url" in told.value.reasons[0].remedy
