"""Why a decision fell as it did: the lines that are named stand in the policies, and say what they are told to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.policy.contract import Decision
from gateway.studies import tracing
from gateway.studies.causes import Condition
from gateway.studies.engine import studied
from gateway.studies.errors import StudyError
from gateway.studies.explaining import Explanation, explain
from gateway.studies.sources import Data, Policies
from gateway.studies.veil import Veil
from tests.policy.world import data
from tests.studies.refusals import DB, INC, REFUSALS, Refusal, authz, changed, config, gone, later, live, put, request
from tests.studies.world import ours


async def explained(refusal: Refusal, session: str = "") -> Explanation:
    return (await veiled(refusal, session))[0]


async def veiled(refusal: Refusal, session: str = "") -> tuple[Explanation, Veil]:
    async with studied(ours(), Data.of(refusal.tree)) as opa:
        return await explain(opa, refusal.tree, refusal.decision, refusal.question, session)


def told(found: Explanation, text: str) -> Condition:
    """The condition of this line, which is written once in our policies."""
    conditions = [one for one in found.failed if one.text == text]
    assert conditions, [one.text for one in found.failed]
    return conditions[0]


def assert_in_place(found: Explanation) -> None:
    places = [(one.file, one.line, one.text) for one in found.fired]
    for file, line, text in places + [(one.file, one.line, one.text) for one in found.failed]:
        assert Path(file).read_text().splitlines()[line - 1].strip() == text


def one_of(code: str, proposed: str = "") -> Refusal:
    return next(one for one in REFUSALS if one.code == code and proposed in one.proposed)


@pytest.mark.parametrize(
    ("refusal", "text", "values"),
    [
        (one_of("no_grant", "on reports"), "grant.target == target",
         {"grant.target": "orders-db", "target": "reports"}),
        (one_of("no_grant", "bob"), "some id, grant in data.grants[person]", {"person": "bob"}),
        (one_of("x11_refused"), "allow.x11 == true", {}),
        (one_of("exec_refused"), "allow.exec == true", {}),
        (authz("grant_ended", "", **later(3)), 'else := "expired" if moments.ns(of(holding).ends_at) <= now_ns',
         {"now_ns": 1896102000000000000}),
        (live("grant_deleted", "", gone("grants")), "grants.stands(session, input.now_ns)", {}),
        (one_of("certificate_expired"), "input.now_ns < certificate.valid_before * moments.second", {}),
        (one_of("not_recognised", "carol"), 'object.get(entry, "disabled", false) == false', {}),
    ],
    ids=lambda one: getattr(one, "code", None),
)  # fmt: skip
async def test_the_condition_that_failed_is_told_with_its_line_and_its_values(
    refusal: Refusal, text: str, values: Mapping[str, Any]
) -> None:
    found = await explained(refusal)
    assert found.outcome == f"deny:{refusal.code}"
    assert_in_place(found)
    condition = told(found, text)
    assert {name: condition.values.get(name) for name in values} == values
    # Whoever reads from the top comes to it.
    assert found.failed[0].depth == 0
    assert condition.depth > 0
    last = found.fired[-1]
    clause = "\n".join(Path(last.file).read_text().splitlines()[last.line - 1 :]).partition("\n\n")[0]
    assert refusal.code in clause or any(refusal.code in one.text for one in found.fired)


async def test_what_is_undefined_is_told_to_be() -> None:
    found = await explained(one_of("x11_refused"))
    assert told(found, "allow.x11 == true").undefined == ("allow.x11",)


async def test_an_allow_names_its_rules_and_what_it_relied_on() -> None:
    found = await explained(config("", ""))
    assert (found.outcome, found.failed, found.proposals.found) == ("allow", (), ())
    assert_in_place(found)
    assert (
        found.fired[0].text == 'decision := {"allow": true, "permit": permit, "desk": _desk, "reasons": []} if permit'
    )
    assert found.fired[0].says.startswith("A permit, or the reason why there is none")
    assert found.relied_on == {
        "person": "alice", "grant": "INC-1", "target": "orders-db", "state": "active",
        "until": "2030-01-31T14:00:00Z", "approved_by": "erin",
    }  # fmt: skip


async def test_an_allow_names_approvals_and_the_window_that_is_open() -> None:
    window = {"days": ["thu"], "from": "11:00", "to": "13:00", "zone": "UTC"}
    grant = {**config("", "").tree["grants"]["alice"]["INC-1"], "windows": [window]}
    essence = {name: grant[name] for name in ("target", "starts_at", "ends_at", "reason", "windows")}
    found = await explained(
        authz("", "", put(*INC, value=grant), put(*DB, "approval", value={"needed": 1, "by": {"people": ["bob"]}}),
              put("approvals", "alice", "INC-1", "bob", value={"at": "2030-01-31T10:00:00Z", "for": essence}))
    )  # fmt: skip
    assert found.outcome == "allow"
    assert found.relied_on["approvals"] == ["bob"]
    assert found.relied_on["windows"] == [window]
    assert found.relied_on["until"] == "2030-01-31T13:00:00Z"


async def test_of_live_sessions_the_first_that_ends_is_told_or_the_one_that_is_named() -> None:
    first = changed("live")["sessions"][0]
    others = [{**first, "id": "s-2", "grant": "GONE"}, {**first, "id": "s-3", "grant": "GONE"}]
    refusal = live("", "", sessions=[first, *others])
    found = await explained(refusal)
    assert (found.about, found.outcome) == ("alice+orders-db, session s-2", "deny:grant_deleted")
    assert found.notes == ("also not kept: s-3; see them with --session",)
    assert (await explained(refusal, "s-1")).outcome == "allow"
    with pytest.raises(StudyError, match="--session s-9"):
        await explained(refusal, "s-9")


async def test_every_kind_of_question_is_explained_and_admission_by_its_fields() -> None:
    tree = data()
    async with studied(ours(), Data.of(tree)) as opa:
        for decision in (Decision.AUTHN, Decision.LIVE, Decision.ADMISSION, Decision.ADMIN):
            name = "live" if decision is Decision.LIVE else decision.split("/")[1]
            found, _ = await explain(opa, tree, decision, changed(name))
            assert found.outcome in ("allow", "accept"), name
            assert_in_place(found)
            assert found.fired
        found, _ = await explain(opa, tree, Decision.ADMISSION, changed("admission", new__target="nowhere"))
        with pytest.raises(StudyError, match="sessions: there is none in the question"):
            await explain(opa, tree, Decision.LIVE, changed("live", sessions=[]))
    assert (found.about, found.outcome) == ("PUT grants/alice/INC-2 by ticketing", "deny:unknown_target")
    assert "as each reason tells" in found.proposals.why_none


async def test_secrets_are_hidden_wherever_they_would_stand() -> None:
    masked = {"mask": {"patterns": ["hunter[0-9]+"], "env": ["EMAIL"]}}
    refusal = request(
        "exec_refused", "", put(*DB, "oblige", value=masked), put(*DB, "allow", value={}),
        put(*DB, "env", value={"APP_TOKEN": "s3cr3t-of-the-app"}), kind="exec", command="login hunter22",
    )  # fmt: skip
    found, veil = await veiled(refusal)
    text = json.dumps(veil.value({"question": refusal.question, "failed": [one.values for one in found.failed],
                                  "entry": refusal.tree["targets"]["orders-db"]}))  # fmt: skip
    assert found.outcome == "deny:exec_refused"
    assert "hunter22" not in text
    assert "s3cr3t" not in text
    assert text.count("[masked]") >= 2
    variable = request("env_refused", "", put(*DB, "oblige", value=masked), kind="env", name="EMAIL", value="a@example")
    found, veil = await veiled(variable)
    assert "a@example" not in json.dumps(veil.value([variable.question, [one.values for one in found.failed]]))


LOOP = """package gateway.config

decision := {"allow": true, "reasons": []} if _has_one

else := {"allow": false, "reasons": [{"code": "none_fits", "message": "No grant fits.", "remedy": ""}]}

_has_one if {
	some person, id
	grant := data.grants[person][id]
	grant.target == input.login.user
	_is_late(grant)
}

_is_late(grant) if grant.ends_at > input.now
"""


async def looped(grants: int) -> Explanation:
    tree = {"grants": {"alice": {f"G-{number}": {"target": "elsewhere", "ends_at": ""} for number in range(grants)}}}
    async with studied(Policies({"loop.rego": LOOP.encode()}), Data.of(tree)) as opa, asyncio.timeout(120):
        return (await explain(opa, tree, Decision.CONFIG, changed("config")))[0]


async def test_a_loop_over_ten_thousand_grants_is_told_by_a_few_of_them() -> None:
    found = await looped(10_000)
    assert (found.outcome, found.proposals.why_none) == ("deny:none_fits", "no change is known for this code")
    condition = told(found, "grant.target == input.login.user")
    assert condition.values == {"grant.target": "elsewhere", "input.login.user": "alice"}
    assert found.notes == ("followed on at most 8 entries of each collection: 9992 left out",)
    assert len(found.failed) < 30


async def test_what_is_too_long_to_be_followed_is_answered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "TRACE_BYTES", 1000)
    found = await looped(10)
    assert (found.outcome, found.fired, found.failed) == ("deny:none_fits", (), ())
    assert found.notes == (tracing.NO_TRACE,)


async def test_who_is_named_by_the_question_is_kept_where_entries_are_left_out() -> None:
    tree = {"people": {f"p-{number}": {"groups": []} for number in range(100)}, "door": dict.fromkeys("abcdefghijkl")}
    few, left_out = tracing.shortened(tree, {"p-77"}, 3)
    assert list(few["people"]) == ["p-0", "p-1", "p-77"]
    assert left_out == 97
    assert few["door"] == tree["door"]
