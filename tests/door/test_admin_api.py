"""The admin API over TCP: who is known there, what each may do by its entry in the data, and what is on record."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from pydantic import ValidationError

from gateway.contracts.waiting import until
from gateway.settings_door import DoorSettings
from tests.door.engineer import connected, granted
from tests.door.running import TOKEN, Running, running
from tests.door.test_clients import AUDIENCE, ISSUER, Keys, bearer, token, with_certificates
from tests.policy.servers import serving
from tests.policy.world import ALICE, ORDERS, inhabited
from tests.stack import IN_THE_CLEAR
from tests.stack.opa import Opa

ANYWHERE = {"admin_listen": "127.0.0.1:0"}
NOBODY = "0123456789abcdef"
CALLS = [
    ("GET", "/v1/status", "status"),
    ("GET", "/v1/sessions", "sessions:list"),
    ("DELETE", f"/v1/sessions/{NOBODY}", "sessions:end"),
    ("POST", "/v1/reevaluate", "reevaluate"),
    ("GET", "/v1/approvals", "approvals:list"),
    ("POST", f"/v1/approvals/{NOBODY}", "approvals:answer"),
]
ANSWER = {"approve": True, "by": "erin"}


@pytest.fixture
def world(opa_server: Opa) -> Iterator[Opa]:
    with inhabited(opa_server):
        yield opa_server


@pytest.fixture
async def door(world: Opa, tmp_path: Path) -> AsyncIterator[Running]:
    """A gateway nobody is inside of."""
    async with running(tmp_path, world, door=ANYWHERE) as opened:
        yield opened


@asynccontextmanager
async def entry(world: Opa, name: str, **rights: Any) -> AsyncIterator[None]:
    """What the data say of a client while the body runs."""
    world.put(f"automations/{name}", rights)
    try:
        yield
    finally:
        world.delete(f"automations/{name}")


def at_admin(door: Running, headers: dict[str, str] | None = None, **more: Any) -> httpx.AsyncClient:
    assert door.gateway.admin is not None
    scheme = "https" if "verify" in more else "http"
    base = f"{scheme}://127.0.0.1:{door.gateway.admin[1]}"
    sent = bearer(TOKEN) if headers is None else headers
    return httpx.AsyncClient(base_url=base, headers=sent, timeout=30, **{"verify": IN_THE_CLEAR, **more})


async def every_call(http: httpx.AsyncClient) -> list[httpx.Response]:
    return [
        await http.request(method, path, json=ANSWER if method == "POST" and "approvals" in path else None)
        for method, path, _ in CALLS
    ]


# -- who is known ---------------------------------------------------------------------------------------------------


async def test_a_client_that_may_do_everything_gets_the_answers_of_the_socket(door: Running) -> None:
    async with at_admin(door) as http:
        answers = await every_call(http)

    assert [answer.status_code for answer in answers] == [200, 200, 404, 200, 200, 404]
    assert answers[0].json()["sessions"] == 0
    assert [answer.json() for answer in answers[1:5:2]] == [{"sessions": []}, {"judged": 0}]
    assert answers[0].headers["doorward-client"] == "ticketing"
    records = door.records("admin")
    assert [record["input"]["action"] for record in records] == [action for *_, action in CALLS]
    assert {(record["client"], record["outcome"]) for record in records} == {("ticketing", "allow")}
    assert all(record["trace_id"] and record["decision_id"] for record in records)


async def test_a_client_is_known_by_the_hash_of_its_token(world: Opa, tmp_path: Path) -> None:
    clients = {"by-hash": {"token_sha256": [hashlib.sha256(b"its-token").hexdigest()]}}
    async with (
        entry(world, "by-hash", actions=["status"]),
        running(tmp_path, world, door={**ANYWHERE, "clients": clients}) as door,
        at_admin(door, bearer("its-token")) as http,
    ):
        assert (await http.get("/v1/status")).status_code == 200
        assert (await http.get("/v1/status", headers=bearer("another"))).status_code == 401


async def test_a_client_is_known_by_a_jwt(world: Opa, tmp_path: Path) -> None:
    keys = Keys()
    async with serving(keys.answer) as url, entry(world, "login:ticketing", actions=["status"], proofs=["jwt"]):
        issuer = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": f"{url}/keys", "timeout_seconds": 1}
        async with (
            running(tmp_path, world, door={**ANYWHERE, "issuers": {"login": issuer}}) as door,
            at_admin(door, bearer(token())) as http,
        ):
            assert (await http.get("/v1/status")).status_code == 200
            refused = await http.get("/v1/status", headers=bearer(token(aud="another")))
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
            [known] = [record for record in door.records("admin") if record["outcome"] == "allow"]
            assert known["input"]["client"]["proof"] == "jwt"


async def test_a_client_is_known_by_a_certificate(world: Opa, tmp_path: Path) -> None:
    async with (
        entry(world, "by-name", actions=["status"], proofs=["certificate"]),
        with_certificates(world, tmp_path, **ANYWHERE) as (door, made, _),
    ):
        tls = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        async with at_admin(door, {}, verify=tls) as nobody:
            assert (await nobody.get("/v1/status")).status_code == 401
        tls.load_cert_chain(*made("one"))
        async with at_admin(door, {}, verify=tls) as http:
            assert (await http.get("/v1/status")).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, bearer("wrong"), {"authorization": f"Basic {TOKEN}"}], ids=["none", "wrong", "another scheme"]
)
async def test_nobody_who_is_not_known_gets_anything(door: Running, headers: dict[str, str]) -> None:
    async with at_admin(door, headers) as http:
        answers = await every_call(http)

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["code"] for answer in answers} == {"unauthorized"}
    refused = door.records("admin")
    assert [(record["outcome"], record["path"]) for record in refused] == [("refused", path) for _, path, _ in CALLS]
    assert "wrong" not in str(refused), "what was offered is not on record"


async def test_whoever_guesses_pays_here_as_at_the_grants_door(world: Opa, tmp_path: Path) -> None:
    penalties = {"exempt": [], "auth_fail_seconds": 300, "min_seconds": 1}
    async with (
        running(tmp_path, world, door=ANYWHERE, ssh={"penalties": penalties}) as door,
        at_admin(door) as http,
    ):
        assert (await http.get("/v1/status", headers=bearer("wrong"))).status_code == 401
        assert (await http.get("/v1/status")).status_code == 429
        assert (await door.http.get("/v1/data/grants")).status_code == 429, "one account for both"


# -- what it may ----------------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[dict[str, Any] | None, str]] = {
    "no entry": (None, "client_unknown"),
    "rights at the grants door alone": ({"roots": ["grants"], "verbs": ["GET", "DELETE"]}, "action_not_yours"),
    "a limit that is misspelt": ({"actions": [action for *_, action in CALLS], "target": []}, "client_misconfigured"),
    "another proof": ({"actions": [action for *_, action in CALLS], "proofs": ["jwt"]}, "proof_refused"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_who_may_not_is_told_in_the_shape_of_opas_errors_and_it_is_on_record(
    world: Opa, tmp_path: Path, fault: str
) -> None:
    rights, code = FAULTS[fault]
    clients = {"robot": {"token_sha256": [hashlib.sha256(b"its-token").hexdigest()]}}
    if rights is not None:
        world.put("automations/robot", rights)
    try:
        async with (
            running(tmp_path, world, door={**ANYWHERE, "clients": clients}) as door,
            at_admin(door, bearer("its-token")) as http,
        ):
            answers = await every_call(http)
            records = door.records("admin")
    finally:
        if rights is not None:
            world.delete("automations/robot")

    assert {answer.status_code for answer in answers} == {403}
    for answer in answers:
        assert answer.json()["code"] == "unauthorized"
        [error] = answer.json()["errors"]
        assert (error["code"], bool(error["message"]), bool(error["remedy"])) == (code, True, True)
    assert [(record["outcome"], record["client"]) for record in records] == [("deny", "robot")] * len(CALLS)


async def test_each_action_opens_itself_and_nothing_else(world: Opa, tmp_path: Path) -> None:
    clients = {"robot": {"token_sha256": [hashlib.sha256(b"its-token").hexdigest()]}}
    async with (
        running(tmp_path, world, door={**ANYWHERE, "clients": clients}) as door,
        at_admin(door, bearer("its-token")) as http,
    ):
        for *_, action in CALLS:
            async with entry(world, "robot", actions=[action]):
                answers = await every_call(http)
            assert [known for (*_, known), answer in zip(CALLS, answers, strict=True) if answer.status_code != 403] == [
                action
            ]


async def test_without_policy_nothing_may_be_done(world: Opa, tmp_path: Path) -> None:
    async def broken(_request: web.Request) -> web.Response:
        return web.json_response({}, status=500)

    async with (
        serving(broken) as url,
        running(tmp_path, world, door=ANYWHERE, policy={"url": url}) as door,
        at_admin(door) as http,
    ):
        answers = await every_call(http)
        assert {answer.status_code for answer in answers} == {503}
        async with at_socket(door) as operator:
            assert (await operator.get("/v1/status")).status_code == 200, "the operator needs no policy"


# -- what is not right ----------------------------------------------------------------------------------------------


async def test_what_is_not_offered_is_told(door: Running) -> None:
    async with at_admin(door) as http:
        other = await http.get("/v1/reevaluate")
        nowhere = await http.get("/v1/data/grants")
        query = await http.delete(f"/v1/sessions/{NOBODY}?why=x")
        body = await http.post(f"/v1/approvals/{NOBODY}", json={"approve": "perhaps"})

    assert (other.status_code, nowhere.status_code, query.status_code, body.status_code) == (405, 404, 400, 400)
    assert "use POST" in other.json()["message"]
    assert "only reason" in query.json()["message"]
    assert "approve" in body.json()["message"]


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[2J", "x" * 301], ids=["lines", "escapes", "long"])
async def test_a_reason_that_no_terminal_should_show_is_refused(door: Running, reason: str) -> None:
    async with at_admin(door) as http:
        answer = await http.delete(f"/v1/sessions/{NOBODY}", params={"reason": reason})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
    assert door.records("admin") == []


def test_tokens_do_not_travel_in_the_clear() -> None:
    with pytest.raises(ValidationError, match=r"admin_listen: 0\.0\.0\.0 is not loopback"):
        DoorSettings(admin_listen="0.0.0.0:8283")
    assert DoorSettings(admin_listen="0.0.0.0:8283", plain_http=True).admin_listen
    assert DoorSettings(admin_listen="[::1]:8283").admin_listen


# -- sessions -------------------------------------------------------------------------------------------------------


def at_socket(door: Running) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(door.settings.admin_socket), verify=IN_THE_CLEAR)
    return httpx.AsyncClient(transport=transport, base_url="http://admin", timeout=30)


@asynccontextmanager
async def inside(world: Opa, directory: Path, **changes: Any) -> AsyncIterator[tuple[Running, Any, str]]:
    """Somebody inside: the gateway, their process, their session."""
    async with granted(directory, world, door=ANYWHERE, **changes) as door, connected(door) as connection:
        process = await connection.create_process("echo up; cat")
        assert await process.stdout.readline() == "up\n"
        [session] = door.gateway.live.ids()
        yield door, process, session


async def test_a_session_that_automation_ends_is_told_who_and_why(opa_server: Opa, tmp_path: Path) -> None:
    async with inside(opa_server, tmp_path) as (door, process, session), at_admin(door) as http:
        listed = (await http.get("/v1/sessions")).json()["sessions"]
        ended = await http.delete(f"/v1/sessions/{session}", params={"reason": "the incident is over"})
        async with asyncio.timeout(20):
            result = await process.wait()

        assert [(one["id"], one["person"]) for one in listed] == [(session, ALICE)]
        assert (ended.status_code, ended.content) == (204, b"")
        assert result.exit_status == 254
        assert "ended_by_automation: ticketing ended this session: the incident is over" in str(result.stderr)
        [decided] = [record for record in door.records("admin") if record["input"]["action"] == "sessions:end"]
        about = {"id": session, "person": ALICE, "grant": "INC-1", "target": ORDERS}
        assert (decided["input"]["session"], decided["input"]["reason"]) == (about, "the incident is over")
        [record] = [record for record in door.records("live") if "ended" in record]
        assert (record["client"], record["ended"], record["outcome"]) == ("ticketing", session, "ended by word")
        assert record["trace_id"] == decided["trace_id"]


async def test_of_two_who_end_a_session_one_did_and_both_are_content(opa_server: Opa, tmp_path: Path) -> None:
    async with (
        inside(opa_server, tmp_path) as (door, process, session),
        at_admin(door) as http,
        at_socket(door) as operator,
    ):
        ends = await asyncio.gather(
            http.delete(f"/v1/sessions/{session}", params={"reason": "by a program"}),
            operator.delete(f"/v1/sessions/{session}", params={"reason": "by hand"}),
        )
        async with asyncio.timeout(20):
            result = await process.wait()
        await until(lambda: not door.gateway.live.ids())
        late = await http.delete(f"/v1/sessions/{session}")

        assert {end.status_code for end in ends} <= {204, 404}, "404: it was over before the second was judged"
        records = [record for record in door.records("live") if "ended" in record]
        [first] = [record for record in records if record["outcome"] == "ended by word"]
        why = "by a program" if first["client"] == "ticketing" else "by hand"
        assert why in str(result.stderr)
        assert str(result.stderr).count(" ended this session") == 1
        assert late.status_code == 404


async def test_a_client_with_targets_ends_the_sessions_of_those_alone(opa_server: Opa, tmp_path: Path) -> None:
    clients = {"robot": {"token_sha256": [hashlib.sha256(b"its-token").hexdigest()]}}
    async with granted(tmp_path, opa_server, door={**ANYWHERE, "clients": clients}) as door, connected(door) as ssh:
        process = await ssh.create_process("echo up; cat")
        await process.stdout.readline()
        [session] = door.gateway.live.ids()
        async with at_admin(door, bearer("its-token")) as http:
            for targets, statuses in ((["reports"], (403, 403)), ([ORDERS], (404, 204))):
                async with entry(opa_server, "robot", actions=["sessions:end"], targets=targets):
                    answers = [await http.delete(f"/v1/sessions/{one}") for one in (NOBODY, session)]
                assert answers[1].status_code == statuses[1]
                if statuses[1] == 403:
                    assert answers[1].json()["errors"][0]["code"] == "target_not_yours"
                    assert not process.exit_status
        async with asyncio.timeout(20):
            assert (await process.wait()).exit_status == 254


async def test_the_operator_is_on_record_by_name_and_needs_no_entry(opa_server: Opa, tmp_path: Path) -> None:
    async with inside(opa_server, tmp_path) as (door, process, session), at_socket(door) as operator:
        await operator.get("/v1/sessions")
        assert door.records("admin") == [], "looking is not recorded"
        assert (await operator.delete(f"/v1/sessions/{session}")).status_code == 204
        async with asyncio.timeout(20):
            result = await process.wait()
        [record] = door.records("admin")

        assert "ended_by_operator: an operator ended this session\n" in str(result.stderr).replace("\r", "")
        assert record["client"].startswith("local:")
        assert (record["outcome"], record["action"], record["of"]["id"]) == ("operator", "sessions:end", session)


# -- judged again ---------------------------------------------------------------------------------------------------


class Relay:
    """In front of a real OPA: counts what is asked, and holds the first judgement back until all have asked for one."""

    def __init__(self, behind: Opa, http: httpx.AsyncClient, storm: int) -> None:
        self._behind = behind
        self._http = http
        self._storm = storm
        self.judgements = 0
        self.decisions = 0

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        is_judgement = request.path.endswith("/authz/live")
        self.judgements += is_judgement
        if is_judgement and self._storm:
            with contextlib.suppress(AssertionError):  # on a machine that busy, a few more
                await until(lambda: self.decisions >= self._storm, 1)
        answer = await self._http.request(
            request.method, f"{self._behind.url}{request.raw_path}", content=body,
            headers={"authorization": request.headers["authorization"]},
        )  # fmt: skip
        self.decisions += request.path.endswith("/basis/admin")
        return web.Response(body=answer.content, status=answer.status_code, content_type="application/json")


async def test_a_storm_of_calls_is_a_few_judgements(opa_server: Opa, tmp_path: Path) -> None:
    storm = 24
    limits = httpx.Limits(max_connections=storm)
    async with httpx.AsyncClient(timeout=30, limits=limits) as behind:
        relay = Relay(opa_server, behind, storm)
        async with (
            serving(relay.answer) as url,
            inside(opa_server, tmp_path, policy={"url": url, "sweep_seconds": 60}) as (door, process, _),
            at_admin(door, limits=limits) as http,
        ):
            relay.judgements = 0  # of the grant's own writing
            answers = await asyncio.gather(*(http.post("/v1/reevaluate") for _ in range(storm)))
            judgements = relay.judgements

            judged = [answer.json() for answer in answers if answer.status_code == 200]
            assert judged == [{"judged": 1}] * len(judged)
            assert len(judged) > 2 * storm / 3, "a busy machine may answer one or the other too late"
            assert 1 <= judgements <= storm / 2, "without sharing, each of them is one"
            assert process.exit_status is None


@pytest.mark.parametrize("whose", [{}, {"person": ALICE}], ids=["all", "the person's"])
async def test_a_grant_deleted_straight_at_opa_ends_its_session_at_a_push(
    opa_server: Opa, tmp_path: Path, whose: dict[str, str]
) -> None:
    """No sweep comes to its help: it is a minute away."""
    async with (
        inside(opa_server, tmp_path, policy={"sweep_seconds": 60}) as (door, process, _),
        at_admin(door) as http,
    ):
        opa_server.delete(f"grants/{ALICE}/INC-1", role="automation")
        others = await http.post("/v1/reevaluate", params={"person": "bob"})
        judged = await http.post("/v1/reevaluate", params=whose)
        async with asyncio.timeout(20):
            result = await process.wait()

        assert (others.json(), judged.json()) == ({"judged": 0}, {"judged": 1})
        assert (result.exit_status, "grant_deleted" in str(result.stderr)) == (254, True)


async def test_a_grant_deleted_straight_at_opa_ends_its_session_at_the_next_sweep(
    opa_server: Opa, tmp_path: Path
) -> None:
    async with inside(opa_server, tmp_path, policy={"sweep_seconds": 0.2}) as (_, process, _session):
        opa_server.delete(f"grants/{ALICE}/INC-1", role="automation")
        async with asyncio.timeout(20):
            result = await process.wait()

        assert (result.exit_status, "grant_deleted" in str(result.stderr)) == (254, True)
