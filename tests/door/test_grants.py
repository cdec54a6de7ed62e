"""The grants door: what automation may write, what is put on record, and what happens when a part is missing."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.audit.test_chain import file_size_limit
from tests.door.running import TOKEN, Running, running
from tests.policy.test_opa import certificates
from tests.policy.world import REPORTS, grant, in_minutes, populate
from tests.stack import IN_THE_CLEAR
from tests.stack.opa import Opa, opa
from tests.waiting import until

INC = "alice/INC-1"


def stored(server: Opa, path: str = INC) -> Any:
    """What OPA holds, asked of OPA itself."""
    with server.client() as client:
        return client.get(f"/v1/data/grants/{path}").json().get("result")


def refused(answer: httpx.Response, status: int = 400) -> dict[str, str]:
    """The refusal's codes by field."""
    assert answer.status_code == status, answer.text
    return {error.get("field", ""): error["code"] for error in answer.json()["errors"]}


# -- accepted -------------------------------------------------------------------------------------------------------


async def test_a_grant_is_stored_with_who_asked_and_when(door: Running, world: Opa) -> None:
    answer = await door.put(INC, {**grant(), "requested_by": "somebody else"})

    assert (answer.status_code, answer.content) == (204, b"")
    held = stored(world)
    assert held["requested_by"] == "ticketing"
    assert in_minutes(-1) < held["requested_at"] <= in_minutes(0)
    assert held["reason"] == "orders are stuck"


async def test_an_overwritten_grant_leaves_its_old_value_on_record(door: Running) -> None:
    await door.put(INC, grant(reason="first"))
    await door.put(INC, grant(reason="second"))

    [first, second] = door.records("grant")
    assert (first["old"], first["new"]["reason"]) == (None, "first")
    assert (second["old"]["reason"], second["new"]["reason"]) == ("first", "second")
    assert second["client"] == "ticketing"
    assert second["path"] == "grants/alice/INC-1"


async def test_the_decision_is_on_record_before_the_write(door: Running) -> None:
    await door.put(INC, grant())

    events = [record["event"] for record in door.records() if record["event"] in ("admission", "grant")]
    assert events == ["admission", "grant"]
    [decision], [write] = door.records("admission"), door.records("grant")
    assert (decision["outcome"], write["outcome"]) == ("allow", "ok")
    assert decision["input"]["new"]["reason"] == "orders are stuck"
    assert decision["trace_id"] == write["trace_id"] != "0" * 32


async def test_a_grant_can_be_read_alone_of_one_person_and_of_all(door: Running) -> None:
    await door.put(INC, grant())
    await door.put("bob/INC-2", grant(target=REPORTS))

    one, person, everyone, nothing = [
        (await door.http.get(f"/v1/data/grants{path}")).json() for path in ("/alice/INC-1", "/alice", "", "/bob/INC-9")
    ]
    assert one["result"]["approved_by"] == "erin"
    assert person["result"] == {"INC-1": one["result"]}
    assert everyone["result"].keys() == {"alice", "bob"}
    assert nothing == {}


async def test_a_removed_grant_is_gone_and_its_value_on_record(door: Running, world: Opa) -> None:
    await door.put(INC, grant())
    answer = await door.http.delete(f"/v1/data/grants/{INC}")

    assert answer.status_code == 204
    assert stored(world) is None
    assert door.records("grant")[-1]["old"]["reason"] == "orders are stuck"


async def test_removing_what_is_not_there_is_fine_and_on_record(door: Running) -> None:
    assert (await door.http.delete("/v1/data/grants/alice/INC-404")).status_code == 204
    assert (await door.http.delete("/v1/data/grants/nobody/INC-404")).status_code == 204

    assert [record["old"] for record in door.records("grant")] == [None, None]


async def test_two_writers_of_one_persons_grants_take_turns(door: Running, world: Opa) -> None:
    answers = await asyncio.gather(*(door.put(INC, grant(reason=f"writer {number}")) for number in range(8)))

    assert {answer.status_code for answer in answers} == {204}
    writes = door.records("grant")
    olds = [(record["old"] or {}).get("reason") for record in writes]
    news = [record["new"]["reason"] for record in writes]
    assert olds == [None, *news[:-1]], "each saw what the one before had written"
    assert stored(world)["reason"] == news[-1]


# -- refused --------------------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "missing target": ({"target": None}, {"target": "missing"}),
    "missing reason": ({"reason": None}, {"reason": "missing"}),
    "missing approver": ({"approved_by": None}, {"approved_by": "missing"}),
    "missing start": ({"starts_at": None}, {"starts_at": "missing"}),
    "missing end": ({"ends_at": None}, {"ends_at": "missing"}),
    "several": ({"reason": None, "approved_by": 7}, {"reason": "missing", "approved_by": "wrong_type"}),
    "number for a text": ({"reason": 42}, {"reason": "wrong_type"}),
    "empty text": ({"reason": "  "}, {"reason": "wrong_type"}),
    "list for a target": ({"target": ["orders-db"]}, {"target": "wrong_type"}),
    "number for a ticket": ({"ticket": 7}, {"ticket": "wrong_type"}),
    "time without zone": ({"ends_at": "2099-01-01T00:00:00"}, {"ends_at": "not_a_time"}),
    "time of no day": ({"starts_at": "2026-02-30T00:00:00Z"}, {"starts_at": "not_a_time"}),
    "end before start": ({"starts_at": in_minutes(60), "ends_at": in_minutes(30)}, {"ends_at": "ends_before_start"}),
    "end in the past": ({"starts_at": in_minutes(-60), "ends_at": in_minutes(-30)}, {"ends_at": "already_ended"}),
    "unknown target": ({"target": "no-such"}, {"target": "unknown_target"}),
    "longer than allowed": ({"ends_at": in_minutes(24 * 60)}, {"ends_at": "too_long"}),
    "unknown field": ({"aproved_by": "erin"}, {"aproved_by": "unknown_field"}),
    "approved by oneself": ({"approved_by": " Alice "}, {"approved_by": "self_approved"}),
}


@pytest.mark.parametrize("case", FAULTS)
async def test_a_refusal_names_the_field_and_nothing_is_written(door: Running, world: Opa, case: str) -> None:
    changes, faults = FAULTS[case]
    answer = await door.put(INC, grant(**changes))

    assert refused(answer) == faults
    assert all(error["message"] and error["remedy"] for error in answer.json()["errors"])
    assert answer.json()["code"] == "invalid_parameter"
    assert stored(world) is None
    assert [record["outcome"] for record in door.records("admission")] == ["deny"]
    assert door.records("grant") == []


async def test_an_unknown_person_gets_no_grant(door: Running) -> None:
    assert refused(await door.put("nobody/INC-1", grant())) == {"person": "unknown_person"}


BODIES: dict[str, bytes] = {
    "not JSON": b"{target: orders-db}",
    "empty": b"",
    "NaN": b'{"target": NaN}',
    "infinity": b'{"target": -Infinity}',
    "a number that is infinite": b'{"target": 1e999}',
    "half": b'{"target": "orders-',
    "not UTF-8": b'{"target": "\xff\xfe"}',
    "nested too deeply": b"[" * 30_000 + b"]" * 30_000,
    "nested": b'{"target":' * 900 + b"1" + b"}" * 900,
    "a number too long": b'{"target":' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("case", BODIES)
async def test_what_is_no_json_is_refused_as_that_and_harms_nothing(door: Running, world: Opa, case: str) -> None:
    answer = await door.http.put(f"/v1/data/grants/{INC}", content=BODIES[case])

    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "invalid_parameter"
    assert stored(world) is None
    assert (await door.put(INC, grant())).status_code == 204, "the door and its record still work"


@pytest.mark.parametrize("body", [[], [grant()], "text", 7, True, None])
async def test_json_that_is_no_object_is_refused(door: Running, body: Any) -> None:
    answer = await door.http.put(f"/v1/data/grants/{INC}", content=json.dumps(body))

    assert answer.status_code == 400, answer.text
    assert "not_an_object" in refused(answer).values()


@pytest.mark.parametrize("depth", [3, 16, 40, 200, 400])
async def test_no_depth_of_nesting_reaches_the_record_and_stops_it(door: Running, depth: int) -> None:
    body = '{"target":' * depth + "1" + "}" * depth
    answer = await door.http.put(f"/v1/data/grants/{INC}", content=body)

    assert answer.status_code == 400, answer.text
    assert (await door.put(INC, grant())).status_code == 204


async def test_nesting_is_told_as_that_before_anybody_is_asked(door: Running) -> None:
    answer = await door.http.put(f"/v1/data/grants/{INC}", content="[" * 100 + "]" * 100)

    assert answer.status_code == 400
    assert "nested" in answer.json()["message"]
    assert door.records("admission") == []


async def test_query_parameters_are_told_as_that_before_anybody_is_asked(door: Running) -> None:
    status, answer = await door.at(f"/v1/data/grants/{INC}?metrics=true")

    assert status == 400
    assert b"query parameter metrics=true is not offered" in answer
    assert door.records("admission") == []


async def test_a_body_of_100_kilobytes_is_refused(door: Running) -> None:
    answer = await door.put(INC, grant(reason="x" * 100_000))

    assert answer.status_code == 413
    assert answer.json()["code"] == "invalid_request"
    assert door.records("admission") == []


async def test_half_a_pair_of_surrogates_is_no_harm_to_the_record(door: Running) -> None:
    from gateway.audit.chain import verify

    answer = await door.http.put(f"/v1/data/grants/{INC}", content=json.dumps(grant(reason="\ud800 stuck")))

    assert answer.status_code == 204
    assert list(verify(door.settings.audit_file)) == []


# -- who asks, and for what -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer x {TOKEN}"],
)
async def test_without_a_known_bearer_token_nothing_is_offered(
    door: Running, world: Opa, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    async with httpx.AsyncClient(base_url=door.http.base_url, headers=headers, verify=IN_THE_CLEAR) as stranger:
        answers = [
            await stranger.put(f"/v1/data/grants/{INC}", json=grant()),
            await stranger.get("/v1/data/grants"),
            await stranger.get("/nothing"),
        ]

    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert stored(world) is None
    refusals = [record for record in door.records("grant") if record["outcome"] == "refused"]
    assert len(refusals) == 3
    assert TOKEN not in json.dumps(refusals)


PATHS = {
    "/v1/data/people/alice": {400, 403},
    "/v1/data/targets/orders-db": {400, 403},
    "/v1/data/tokens": {400, 403},
    "/v1/data/gateway/authz/decision": {400, 403},
    "/v1/data/grants/alice": {400},
    "/v1/data/grants": {400},
    "/v1/data/grants/alice/INC-1/reason": {400},
    "/v1/data/grants/alice/INC-1/": {400},
    "/v1/data/grants//INC-1": {400},
    "/v1/data//grants/alice/INC-1": {400},
    "/v1/data/grants/alice/..": {400},
    "/v1/data/grants/../people/alice": {400},
    "/v1/data/grants/../people": {400},
    "/v1/data/grants/%2e%2e/people": {400},
    "/v1/data/grants/..%2fpeople/x": {400},
    "/v1/data/grants/alice%2FINC-1/x": {400},
    "/v1/data/grants/alice/INC%2F1": {400},
    "/v1/data/grants/alice/INC%001": {400},
    "/v1/data/grants/alice/%F0%9F%92%A9": {400},
    "/v1/data/grants/alice/" + "x" * 129: {400},
    "/v1/data/grants/./x": {400},
    "/v1/data/grants/alice/INC-1?metrics=true": {400},
    "/v1/data/grants/alice?pretty": {400},
    "//v1/data/grants/alice/INC-1": {400, 404},
    "/v1/data": {404},
    "/v1/data/": {400, 403},
    "/v1/policies/x": {404},
    "/v1/query": {404},
    "/": {404},
    "/health": {404},
}


@pytest.mark.parametrize("path", PATHS)
async def test_no_other_path_is_written_however_it_is_spelt(door: Running, world: Opa, path: str) -> None:
    before = everything(world)
    for method, body in (("PUT", json.dumps(grant()).encode()), ("DELETE", b"")):
        status, answer = await door.at(path, method, body)
        assert status in PATHS[path], answer
    assert everything(world) == before
    assert all(record["outcome"] != "ok" for record in door.records("grant"))


@pytest.mark.parametrize(
    "path", ["grants/../people/alice", "grants/%2e%2e/people", "people/alice", "grants//x", "grants/..", "tokens"]
)
async def test_nothing_but_grants_is_read_and_nothing_else_gets_on_record(door: Running, path: str) -> None:
    status, answer = await door.at(f"/v1/data/{path}")

    assert status in (400, 403), answer
    assert b"ssh-ed25519" not in answer
    assert [record["input"]["old"] for record in door.records("admission")] == [None]


@pytest.mark.parametrize("verb", ["POST", "HEAD", "OPTIONS", "TRACE"])
async def test_a_verb_that_is_not_offered_is_refused(door: Running, world: Opa, verb: str) -> None:
    await door.put(INC, grant())
    before = everything(world)
    answer = await door.http.request(verb, f"/v1/data/grants/{INC}")

    assert answer.status_code == 405
    assert everything(world) == before


def everything(server: Opa) -> Any:
    with server.client() as client:
        return {root: client.get(f"/v1/data/{root}").json().get("result") for root in ("people", "targets", "grants")}


# -- parts that are missing -----------------------------------------------------------------------------------------


async def test_without_opa_nothing_is_written_and_the_client_is_told(tmp_path: Path) -> None:
    with opa(tmp_path / "opa") as own:
        populate(own)
        async with running(tmp_path, own) as door:
            own.process.end()
            answers = [
                await door.put(INC, grant()),
                await door.http.delete(f"/v1/data/grants/{INC}"),
                await door.http.get(f"/v1/data/grants/{INC}"),
            ]
            assert [answer.status_code for answer in answers] == [503, 503, 503]
            assert answers[0].json()["errors"][0]["code"] == "policy_unreachable"
            assert door.records("grant") == []
        with opa(tmp_path / "opa", port=int(own.url.rpartition(":")[2])) as again:
            assert stored(again) is None


async def test_what_cannot_be_recorded_is_not_written_through(door: Running, world: Opa) -> None:
    with file_size_limit(door.settings.audit_file.stat().st_size + 1):
        answer = await door.put(INC, grant())
        reading = await door.http.get(f"/v1/data/grants/{INC}")

    assert (answer.status_code, reading.status_code) == (503, 503)
    assert answer.json()["errors"][0]["code"] == "audit_unavailable"
    assert stored(world) is None
    assert (await door.put(INC, grant())).status_code == 204, "it works again when the log does"


async def test_a_write_whose_own_record_fails_is_answered_503_and_its_decision_is_on_record(
    door: Running, world: Opa
) -> None:
    """What then holds: the grant is in OPA and its whole value in the decision's record; a repeated PUT is harmless."""
    await door.put(INC, grant(reason="a try"))
    decision = _length(door, "admission")
    with file_size_limit(door.settings.audit_file.stat().st_size + decision + 150):
        answer = await door.put("alice/INC-2", grant(reason="a try"))

    assert answer.status_code == 503
    assert answer.json()["errors"][0]["code"] == "audit_unavailable"
    assert stored(world, "alice/INC-2")["reason"] == "a try"
    assert [record["outcome"] for record in door.records("admission")] == ["allow", "allow"]
    assert door.records("admission")[1]["answer"]["value"] == stored(world, "alice/INC-2")
    assert len(door.records("grant")) == 1
    assert (await door.put("alice/INC-2", grant(reason="a try"))).status_code == 204


async def test_a_delete_whose_own_record_fails_still_takes_the_grant_away(door: Running, world: Opa) -> None:
    for name in (INC, "alice/INC-2"):
        await door.put(name, grant())
    await door.http.delete(f"/v1/data/grants/{INC}")
    decision = _length(door, "admission")
    with file_size_limit(door.settings.audit_file.stat().st_size + decision + 150):
        answer = await door.http.delete("/v1/data/grants/alice/INC-2")

    assert answer.status_code == 503
    assert stored(world, "alice/INC-2") is None
    assert door.records("admission")[-1]["input"]["old"]["reason"] == "orders are stuck"


def _length(door: Running, event: str) -> int:
    """How long the last record of this event is, in bytes."""
    lines = door.settings.audit_file.read_bytes().splitlines(keepends=True)
    return len([line for line in lines if json.loads(line)["event"] == event][-1])


async def test_a_policy_that_does_not_say_what_to_store_stores_nothing(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "a.rego").write_text("package system.authz\nallow := true\n")
    (policies / "b.rego").write_text(
        'package gateway.basis\nadmission := {"allow": true, "reasons": [], "value": null}\n'
    )
    (policies / "c.rego").write_text("package gateway.grants\nmalformed := []\n")
    with opa(tmp_path / "opa", policies=policies) as own:
        async with running(tmp_path, own) as door:
            assert (await door.put(INC, grant())).status_code == 503
            assert stored(own) is None
            assert [record["outcome"] for record in door.records("grant")] == ["failed"]


async def test_a_refusal_without_reasons_is_still_a_refusal(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "a.rego").write_text("package system.authz\nallow := true\n")
    (policies / "b.rego").write_text('package gateway.basis\nadmission := {"allow": false, "reasons": []}\n')
    with opa(tmp_path / "opa", policies=policies) as own:
        async with running(tmp_path, own) as door:
            answer = await door.put(INC, grant())
            assert answer.status_code == 403
            assert "policy refused grants/alice/INC-1" in answer.json()["message"]


# -- TLS ------------------------------------------------------------------------------------------------------------


async def test_a_door_with_a_certificate_speaks_tls_and_nothing_else(world: Opa, tmp_path: Path) -> None:
    authority, certificate, key = certificates(tmp_path)
    tls = {"tls_certificate": str(certificate), "tls_key": str(key)}
    async with running(tmp_path, world, door=tls) as door:
        assert door.gateway.door is not None
        url = f"https://127.0.0.1:{door.gateway.door[1]}/v1/data/grants"
        headers = {"authorization": f"Bearer {TOKEN}"}
        trusting = ssl.create_default_context(cafile=str(authority))
        async with httpx.AsyncClient(verify=trusting, headers=headers) as client:
            assert (await client.get(url)).status_code == 200
        async with httpx.AsyncClient(headers=headers) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(url)
        with pytest.raises(httpx.TransportError):
            await door.http.get("/v1/data/grants")


async def test_a_certificate_that_is_missing_or_nonsense_is_a_settings_error(world: Opa, tmp_path: Path) -> None:
    from gateway.errors import SettingsError

    (tmp_path / "nonsense.pem").write_text("nonsense")
    for name in ("missing.pem", "nonsense.pem"):
        with pytest.raises(SettingsError, match=r"door\.tls_certificate"):
            async with running(
                tmp_path, world, door={"tls_certificate": str(tmp_path / name), "tls_key": str(tmp_path / name)}
            ):
                pass


async def test_a_client_whose_token_is_missing_stops_the_start(world: Opa, tmp_path: Path) -> None:
    from gateway.errors import SettingsError

    clients = {"clients": {"broken": {"token": {"file": str(tmp_path / "missing")}}}}
    with pytest.raises(SettingsError, match="missing"):
        async with running(tmp_path, world, door=clients):
            pass


# -- straight at OPA ------------------------------------------------------------------------------------------------

ROLES: dict[str, list[tuple[str, str, bool]]] = {
    "gateway": [
        ("POST", "data/gateway/authz/decision", True),
        ("POST", "data/gateway", False),
        ("POST", "data/grants", False),
        ("GET", "data/gateway/authz/decision", False),
        ("PUT", "data/grants/alice/INC-1", True),
        ("DELETE", "data/grants/alice/INC-1", True),
        ("GET", "data/grants", True),
        ("GET", "data/people/alice", True),
        ("GET", "data/targets/orders-db", True),
        ("PUT", "data/people/alice", False),
        ("PUT", "data/targets/orders-db", False),
        ("GET", "data/tokens", False),
        ("GET", "data", False),
        ("PUT", "policies/x", False),
        ("GET", "policies", False),
        ("POST", "query", False),
        ("GET", "config", False),
    ],
    "auditor": [
        ("GET", "data/people", True),
        ("GET", "data/door", True),
        ("GET", "data/grants", True),
        ("GET", "policies", True),
        ("GET", "data/tokens", False),
        ("GET", "data", False),
        ("GET", "config", False),
        ("PUT", "data/grants/alice/INC-1", False),
        ("DELETE", "data/grants/alice/INC-1", False),
        ("PUT", "data/people/alice", False),
        ("PUT", "policies/x", False),
        ("POST", "data/gateway/authz/decision", False),
        ("POST", "query", False),
    ],
    "automation": [
        ("GET", "data/grants", True),
        ("PUT", "data/grants/alice/INC-1", True),
        ("DELETE", "data/grants/alice/INC-1", True),
        ("PUT", "data/grants/alice", False),
        ("PUT", "data/grants", False),
        ("DELETE", "data/grants", False),
        ("GET", "data/people", False),
        ("GET", "data/targets", False),
        ("GET", "data/tokens", False),
        ("POST", "data/gateway/authz/decision", False),
        ("PUT", "people/alice", False),
        ("GET", "policies", False),
        ("POST", "query", False),
    ],
    "": [("GET", "data/grants", False), ("POST", "data/gateway/authz/decision", False), ("GET", "policies", False)],
}


@pytest.mark.parametrize("role", ROLES)
def test_straight_at_opa_a_token_reaches_its_own_paths_and_verbs_only(world: Opa, role: str) -> None:
    headers = {"authorization": f"Bearer {world.token(role)}"} if role else {}
    before = everything(world)
    with httpx.Client(base_url=f"{world.url}/v1/", headers=headers, verify=IN_THE_CLEAR) as client:
        for method, path, offered in ROLES[role]:
            body = {"json": {} if method == "POST" else grant()} if method in ("PUT", "POST") else {}
            answer = client.request(method, path, **body)  # type: ignore[arg-type]  # a body or none
            assert (answer.status_code not in (401, 403)) is offered, (method, path, answer.text)
    after = everything(world)
    assert (after["people"], after["targets"]) == (before["people"], before["targets"])


@pytest.mark.parametrize("path", ["/v1/data/grants/../people/x", "/v1/data/grants//people", "/v1/data/grants/a%2fb/c"])
def test_straight_at_opa_no_spelling_of_a_path_opens_more(world: Opa, path: str) -> None:
    import http.client

    before = everything(world)
    host, _, port = world.url.removeprefix("http://").partition(":")
    for role in ("automation", "gateway"):
        connection = http.client.HTTPConnection(host, int(port))  # sends the path as it is
        headers = {"authorization": f"Bearer {world.token(role)}"}
        connection.request("PUT", path, json.dumps(grant()), headers)
        assert connection.getresponse().status in (301, 307, 308, 401, 403)
        connection.close()
    assert everything(world) == before


async def test_a_malformed_grant_written_straight_to_opa_has_no_effect_and_is_reported_once(
    door: Running, world: Opa
) -> None:
    world.put("grants/alice/INC-7", grant(reason=None), role="automation")
    await until(lambda: malformed(door))
    world.put("grants/alice/INC-8", {"target": 7}, role="automation")
    await until(lambda: len(malformed(door)) == 2)

    assert [(record["person"], record["id"]) for record in malformed(door)] == [("alice", "INC-7"), ("alice", "INC-8")]
    assert malformed(door)[0]["problems"] == ["reason: missing"]
    with world.client("gateway") as client:
        asked = {
            "now_ns": 1, "identity": {"person": "alice", "groups": []}, "login": {"user": "alice"},
        }  # fmt: skip
        answer = client.post("/v1/data/gateway/config/decision", json={"input": asked}).json()["result"]
    assert answer["allow"] is False


def malformed(door: Running) -> list[dict[str, Any]]:
    return [record for record in door.records("grant") if record["outcome"] == "malformed"]
