"""What a permit obliges to before anything is started: a reason, somebody else's word, a webhook told.

With the stock client on a terminal and without, and a real OPA.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import httpx
import pytest
from aiohttp import web

from gateway.sections import SecretRef
from gateway.settings import to_toml
from tests.authn.serving import Served, never, serving
from tests.e2e.world import Terminal
from tests.ssh.obliging import codes, on_disk, ssh
from tests.ssh.test_desk import at_terminal
from tests.ssh.world import ALICE, Site, running, target
from tests.stack import IN_THE_CLEAR
from tests.stack.opa import Opa
from tests.waiting import until

LONG = 60.0
EYES = {"people": ["erin"], "groups": ["dba"], "seconds": 60}
REASON = {"prompt": "Which incident?", "min_length": 5, "pattern": "INC-[0-9]+", "seconds": 60}
GIVEN = ["-o", 'SetEnv=LC_DOORWARD_REASON="INC-7 orders are stuck"']
SECRET = "of the hook"

Opened = Callable[..., Any]


@pytest.fixture
def opened(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> Opened:
    """A gateway whose target obliges to `oblige`.  Erin is one of dba, Carol too but disabled, Mallory is nobody."""

    @asynccontextmanager
    async def opening(
        oblige: dict[str, Any], more: dict[str, Any] | None = None, **settings: Any
    ) -> AsyncIterator[Site]:
        targets = {"plain": target(oblige=oblige), **(more or {})}
        async with running(opa_server, tmp_path, targets=targets, **settings) as site:
            for person, groups, disabled in (
                ("erin", ["dba"], False),
                ("carol", ["dba"], True),
                ("mallory", [], False),
            ):
                opa_server.put(f"people/{person}", {"keys": [], "groups": groups, "disabled": disabled})
            opa_server.put("joins", {})
            try:
                yield site
                await site.nothing_left()
                assert (await admin(site, "GET", "/v1/approvals")).json() == {"waiting": []}
            finally:
                opa_server.put("joins", {})
                for person in ("erin", "carol", "mallory"):
                    opa_server.delete(f"people/{person}")

    return opening


async def admin(site: Site, method: str, path: str, value: Any = None) -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(uds=str(site.directory / "state" / "admin.sock"), verify=IN_THE_CLEAR)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin", timeout=LONG) as client:
        return await client.request(method, path, json=value)


async def waiting(site: Site) -> str:
    """The id of the one session that waits, once there is one."""

    async def ids() -> list[str]:
        return [one["id"] for one in (await admin(site, "GET", "/v1/approvals")).json()["waiting"]]

    async with asyncio.timeout(LONG):
        while not (found := await ids()):  # noqa: ASYNC110  # the gateway is asked, as an approver would
            await asyncio.sleep(0.02)
    [session] = found
    return session


async def answer(site: Site, by: str = "erin", approve: bool = True) -> httpx.Response:
    return await admin(site, "POST", f"/v1/approvals/{await waiting(site)}", {"approve": approve, "by": by})


def started(site: Site) -> list[dict[str, Any]]:
    return [*site.audit("workspace"), *site.audit("lease")]


# -- a reason --------------------------------------------------------------------------------------------------------


async def test_a_reason_is_asked_for_on_a_terminal_until_it_fits_and_goes_on_record(opened: Opened) -> None:
    def play(terminal: Terminal) -> int:
        terminal.wait_for("doorward: Which incident?")
        assert "grant" not in terminal.seen, "nothing has begun"
        terminal.type("no\r")
        terminal.wait_for("it needs at least 5 characters")
        terminal.type("because\r")
        terminal.wait_for("it has to hold something like INC-[0-9]+")
        terminal.type("INX\x7f\x7fNC-7 für Kundenx\x7f\r")
        terminal.wait_for("grant g1")
        terminal.type("exit 4\n")
        return terminal.wait_end()

    async with opened({"reason": REASON}) as site:
        assert await at_terminal(site, ALICE, play) == 4
        [step] = site.audit("reason")
        assert (step["outcome"], step["reason"]) == ("ok", "INC-7 für Kunden")
        first, judged = site.audit("config")
        assert "reason" not in first["input"]["request"]
        assert judged["input"]["request"] == {"kind": "session", "reason": "INC-7 für Kunden"}
        order = [record["event"] for record in site.audit()]
        assert order.index("workspace") > order.index("reason"), "nothing is started before"


async def test_what_was_typed_ahead_of_the_question_is_the_answer_and_the_rest_the_programs(opened: Opened) -> None:
    async with opened({"reason": REASON}) as site, site.connect() as connection:
        process = await connection.create_process(term_type="xterm", encoding=None)
        process.stdin.write(b"INC-7 is it\rexit 5\n")
        done = await asyncio.wait_for(process.wait(), LONG)
        assert done.exit_status == 5


async def test_without_a_terminal_the_reason_comes_from_the_environment(opened: Opened) -> None:
    async with opened({"reason": REASON}) as site:
        told = await ssh(site, "echo", "$LC_DOORWARD_REASON", options=GIVEN)
        assert (told.returncode, told.stdout) == (0, "INC-7 orders are stuck\n")
        assert site.audit("reason")[0]["reason"] == "INC-7 orders are stuck"
        assert site.audit("config")[-1]["input"]["request"]["reason"] == "INC-7 orders are stuck"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "reason_missing: this needs a reason"),
        (["-o", "SetEnv=LC_DOORWARD_REASON=x"], "the reason that you gave is not enough: it needs at least 5"),
        (["-o", "SetEnv=LC_DOORWARD_REASON=whatever"], "it has to hold something like INC-[0-9]+"),
    ],
)
async def test_without_a_reason_there_is_a_refusal_that_says_how_to_give_one(
    opened: Opened, options: list[str], says: str
) -> None:
    async with opened({"reason": REASON}) as site:
        told = await ssh(site, "echo", "ran", options=options)
        assert (told.returncode, told.stdout) == (254, "")
        assert says in told.stderr
        assert "ssh -o SetEnv=LC_DOORWARD_REASON=" in told.stderr
        assert not started(site)


async def test_a_forward_alone_has_no_place_to_be_asked(opened: Opened) -> None:
    async with opened({"reason": REASON}) as site, site.connect() as connection:
        with pytest.raises(asyncssh.ChannelOpenError, match="reason_missing"):
            await connection.open_connection("127.0.0.1", 7)
        assert not started(site)


@pytest.mark.parametrize("key", ["\x03", "\x04", "no\rno\rno\r"])
async def test_whoever_leaves_the_question_starts_nothing(opened: Opened, key: str) -> None:
    def play(terminal: Terminal) -> int:
        terminal.wait_for("Reason: ")
        terminal.type(key)
        return terminal.wait_end()

    async with opened({"reason": REASON}) as site:
        assert await at_terminal(site, ALICE, play) == 254
        assert codes(site, "reason") == ["reason_missing"]
        assert not started(site)


async def test_a_reason_that_nobody_types_is_waited_for_only_so_long(opened: Opened) -> None:
    async with opened({"reason": {**REASON, "seconds": 1}}) as site:
        assert await at_terminal(site, ALICE, lambda terminal: terminal.wait_end(LONG)) == 254
        assert codes(site, "reason") == ["reason_missing"]


async def test_whoever_goes_away_from_the_question_leaves_nothing(opened: Opened) -> None:
    async with opened({"reason": REASON}) as site:
        async with site.connect() as connection:
            process = await connection.create_process(term_type="xterm", encoding=None)
            await asyncio.wait_for(process.stdout.readuntil(b"Reason: "), LONG)
            connection.abort()
        await site.nothing_left()
        assert not started(site)


# -- four eyes -------------------------------------------------------------------------------------------------------


async def test_a_session_waits_on_its_terminal_until_somebody_joins(opened: Opened) -> None:
    def play(terminal: Terminal) -> int:
        terminal.wait_for("they answer: doorward sessions approve ", LONG)
        assert "who may: erin, or anyone of dba" in terminal.seen
        terminal.wait_for("doorward: approved.", LONG)
        terminal.type("exit 6\n")
        return terminal.wait_end(LONG)

    async with opened({"four_eyes": EYES, "reason": REASON}) as site:
        playing = asyncio.ensure_future(at_terminal(site, ALICE, play, options=GIVEN))
        [shown] = (await admin(site, "GET", "/v1/approvals")).json()["waiting"] if await waiting(site) else []
        assert (shown["person"], shown["reason"]) == (ALICE, "INC-7 orders are stuck")
        assert not started(site)
        told = await answer(site)
        assert (told.status_code, told.json()["outcome"]) == (200, "approved")
        assert await playing == 6
        [step] = [record for record in site.audit("approval") if "approvers" in record]
        assert (step["outcome"], step["approvals"]) == ("ok", [{"by": "erin", "approve": True}])
        assert [record["by"] for record in site.audit("approval") if "by" in record] == ["erin"]
        assert site.audit("config")[-1]["input"]["request"]["approvals"] == [{"by": "erin", "approve": True}]
        assert not site.audit("config")[-1]["answer"]["permit"]["obligations"][1:], "only the reason is left"


async def test_a_script_waits_as_well_and_is_told_on_stderr(opened: Opened) -> None:
    async with opened({"four_eyes": EYES}) as site:
        waits = asyncio.ensure_future(ssh(site, "echo", "ran"))
        await answer(site)
        told = await waits
        assert (told.returncode, told.stdout) == (0, "ran\n")
        assert "who may: erin, or anyone of dba" in told.stderr


UNCOUNTED = [
    (ALICE, "approver_is_oneself"),
    ("carol", "approver_disabled"),
    ("mallory", "approver_not_listed"),
    ("ghost", "approver_disabled"),
]


async def test_who_may_not_is_told_so_and_the_session_waits_on(opened: Opened) -> None:
    async with opened({"four_eyes": EYES}) as site:
        waits = asyncio.ensure_future(ssh(site, "true"))
        for by, code in UNCOUNTED:
            for approve in (True, False):
                told = await answer(site, by, approve)
                assert (told.status_code, told.json()["outcome"]) == (202, "waiting"), by
                assert code in [reason["code"] for reason in told.json()["reasons"]], by
        assert not started(site)
        await answer(site)
        assert (await waits).returncode == 0


async def test_a_no_refuses_at_once(opened: Opened) -> None:
    async with opened({"four_eyes": EYES}) as site:
        waits = asyncio.ensure_future(ssh(site, "true"))
        told = await answer(site, approve=False)
        assert (told.status_code, told.json()["outcome"]) == (200, "refused")
        refused = await waits
        assert (refused.returncode, "approval_refused: erin refused this session" in refused.stderr) == (254, True)
        assert not started(site)


async def test_an_answer_in_opas_data_counts_as_one_at_the_gateway(opened: Opened) -> None:
    async with opened({"four_eyes": EYES}) as site:
        for approve, status in ((True, 0), (False, 254)):
            waits = asyncio.ensure_future(ssh(site, "true"))
            session = await waiting(site)
            before = len(site.audit("config"))

            def is_news(before: int = before) -> bool:
                return len(site.audit("config")) > before

            site.opa.put(f"joins/{session}/mallory", {"approve": approve}, "automation")
            await until(is_news)
            assert len(site.audit("config")) == before + 1, "that it does not count is news, once"
            site.opa.put(f"joins/{session}/erin", {"approve": approve}, "automation")
            assert (await waits).returncode == status


async def test_nobody_joins_in_time(opened: Opened) -> None:
    async with opened({"four_eyes": {**EYES, "seconds": 1}}) as site:
        told = await ssh(site, "true")
        assert (told.returncode, "approval_timeout: nobody who may has joined within 1 s" in told.stderr) == (254, True)
        assert len(site.audit("config")) == 1, "asking in vain is no news"
        assert not started(site)


async def test_what_is_withdrawn_while_it_waits_is_no_longer_to_be_approved(opened: Opened) -> None:
    async with opened({"four_eyes": EYES}) as site:
        waits = asyncio.ensure_future(ssh(site, "true"))
        session = await waiting(site)
        site.opa.delete(f"grants/{ALICE}/g1")
        told = await waits
        assert (told.returncode, "no_grant" in told.stderr) == (254, True)
        late = await admin(site, "POST", f"/v1/approvals/{session}", {"approve": True, "by": "erin"})
        assert late.status_code == 404
        assert not started(site)


async def test_an_approval_is_for_the_permit_as_it_is_then(opened: Opened) -> None:
    """Config is asked again: an allowance that was changed while it waited is not what it was."""
    async with opened({"four_eyes": EYES}) as site:
        waits = asyncio.ensure_future(ssh(site, "echo", "$WHICH"))
        await waiting(site)
        site.opa.put("targets/plain", target(oblige={"four_eyes": EYES}, env={"WHICH": "new"}))
        await answer(site)
        assert (await waits).stdout == "new\n"


@pytest.mark.parametrize("way", ["interrupt", "gone"])
async def test_whoever_does_not_wait_leaves_nothing(opened: Opened, way: str) -> None:
    async with opened({"four_eyes": EYES}) as site, site.connect() as connection:
        process = await connection.create_process(term_type="xterm", encoding=None)
        session = await waiting(site)
        if way == "interrupt":
            process.stdin.write(b"\x03")
            done = await asyncio.wait_for(process.wait(), LONG)
            assert done.exit_status == 254
            assert codes(site, "approval") == ["not_waited"]
        else:
            connection.abort()
        await site.nothing_left()
        assert (
            await admin(site, "POST", f"/v1/approvals/{session}", {"approve": True, "by": "erin"})
        ).status_code == 404
        assert not started(site)


async def test_a_second_program_and_a_forward_wait_with_the_first(opened: Opened) -> None:
    async with opened({"four_eyes": EYES}) as site, site.connect() as connection:
        first = await connection.create_process("echo first")
        await waiting(site)
        second = await connection.create_process("echo second")
        forward = asyncio.ensure_future(connection.open_connection("127.0.0.1", 7))
        await asyncio.wait_for(second.stderr.readuntil("who may"), LONG)
        assert not forward.done()
        await answer(site)
        assert [(await process.wait()).stdout for process in (first, second)] == ["first\n", "second\n"]
        with pytest.raises(asyncssh.ChannelOpenError, match=r"[Cc]onnect"):  # allowed, and nobody listens at port 7
            await forward


async def test_a_gateway_that_ends_tells_those_who_wait(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    async with running(opa_server, tmp_path, targets={"plain": target(oblige={"four_eyes": EYES})}) as site:
        waits = asyncio.ensure_future(ssh(site, "true"))
        await waiting(site)
    told = await waits
    assert (told.returncode, "gateway_shutdown" in told.stderr) == (254, True)
    assert not started(site)


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("GET", None, 405),
        ("POST", {}, 400),
        ("POST", {"approve": "yes", "by": "erin"}, 400),
        ("POST", {"approve": True}, 400),
        ("POST", {"approve": True, "by": "../x y"}, 400),
        ("POST", {"approve": True, "by": "erin", "also": 1}, 400),
        ("POST", [], 400),
        ("POST", {"approve": True, "by": "erin"}, 404),
    ],
)
async def test_a_nonsense_answer_is_told_what_is_wrong(opened: Opened, method: str, body: Any, status: int) -> None:
    async with opened({}) as site:
        told = await admin(site, method, "/v1/approvals/none", body)
        assert (told.status_code, bool(told.json()["message"])) == (status, True)
        assert (await admin(site, "DELETE", "/v1/approvals")).status_code == 405


async def test_the_operators_command_shows_who_waits_and_answers(opened: Opened, tmp_path: Path) -> None:
    async def doorward(*words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", *words, "--config", str(tmp_path / "doorward.toml"),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), LONG)
        return process.returncode or 0, out.decode()

    async with opened({"four_eyes": EYES}) as site:
        (tmp_path / "doorward.toml").write_text(to_toml({"state_dir": str(tmp_path / "state")}))
        waits = asyncio.ensure_future(ssh(site, "true"))
        session = await waiting(site)
        status, out = await doorward("sessions")
        assert (status, session in out, "erin, or anyone of dba" in out) == (0, True, True)
        assert json.loads((await doorward("sessions", "--json"))[1])[0]["waiting"] is True
        status, out = await doorward("sessions", "approve", session, "--by", "mallory")
        assert (status, "approver_not_listed" in out) == (1, True)
        status, out = await doorward("sessions", "approve", session)
        assert (status, "--by NAME" in out) == (1, True), "whose answer is not said"
        status, out = await doorward("sessions", "approve", session, "--by", "erin")
        assert (status, out) == (0, f"session {session}: approved\n")
        assert (await waits).returncode == 0


async def test_two_answers_at_once_are_both_judged(opened: Opened) -> None:
    async with opened({"four_eyes": EYES}) as site:
        waits = asyncio.ensure_future(ssh(site, "true"))
        session = await waiting(site)
        told = await asyncio.gather(
            *(
                admin(site, "POST", f"/v1/approvals/{session}", {"approve": approve, "by": by})
                for by, approve in [("mallory", True), ("erin", True), ("erin", False), (ALICE, True)]
            )
        )
        assert {answer.status_code for answer in told} <= {200, 202, 404}
        assert [answer.json().get("outcome") for answer in told].count("approved") <= 1
        assert (await waits).returncode in (0, 254)


# -- webhooks --------------------------------------------------------------------------------------------------------


class Receiver:
    """A webhook that keeps what it was sent, and answers as it is told."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.hangs = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.received.append((dict(request.headers), await request.read()))
        if self.hangs:
            return await never(request)
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.received]


def hooks(served: Served, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    (tmp_path / "hook.secret").write_text(SECRET)
    reference = SecretRef(file=tmp_path / "hook.secret")
    return {"hooks": {"security": {"url": f"{served.url}/in", "secret": reference, "timeout_seconds": 5, **changes}}}


async def test_a_webhook_is_told_of_a_session_and_of_a_request_signed(opened: Opened, tmp_path: Path) -> None:
    receiver = Receiver()
    told = [{"hook": "security"}]
    oblige = {"notify": told, "requests": {"exec": {"notify": told}}, "mask": {"patterns": ["s3-[a-z]+"]}}
    async with serving(receiver.answer) as served, opened(oblige, **hooks(served, tmp_path)) as site:
        assert (await ssh(site, "echo s3-orders")).stdout == "s3-orders\n"
        await site.nothing_left(LONG)
        await until(lambda: len(site.audit("notify")) == 2, LONG)
        session, request = receiver.bodies()
        assert (session["event"], session["person"], session["target"]) == ("session", ALICE, "plain")
        assert session["facts"]["client_address"] == "127.0.0.1"
        assert (request["event"], request["facts"]["request"]["command"]) == ("request", "echo [masked]")
        assert session["session"] == request["session"] == site.audit("relay")[0]["session"]
        for headers, body in receiver.received:
            signed = headers["doorward-timestamp"].encode() + b"." + body
            assert (
                headers["doorward-signature"]
                == f"sha256={hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()}"
            )
            assert headers["doorward-delivery"] == json.loads(body)["delivery"]
        assert {record["outcome"] for record in site.audit("notify")} == {"ok"}
        assert SECRET not in on_disk(site)


async def test_a_required_webhook_that_answers_late_is_tried_again_with_one_delivery_id(
    opened: Opened, tmp_path: Path
) -> None:
    receiver = Receiver(503, 204)
    oblige: dict[str, Any] = {"notify": [{"hook": "security", "required": True}]}
    async with serving(receiver.answer) as served, opened(oblige, **hooks(served, tmp_path)) as site:
        assert (await ssh(site, "true")).returncode == 0
        [record] = site.audit("notify")
        assert (record["outcome"], record["attempts"], record["status"]) == ("ok", 2, 204)
        assert len({headers["doorward-delivery"] for headers, _ in receiver.received}) == 1
        order = [record["event"] for record in site.audit()]
        assert order.index("workspace") > order.index("notify"), "nothing is started before"


@pytest.mark.parametrize("how", ["refuses", "hangs", "is not there"])
async def test_where_a_required_webhook_cannot_be_told_nothing_starts(opened: Opened, tmp_path: Path, how: str) -> None:
    receiver = Receiver(403)
    receiver.hangs = how == "hangs"
    async with serving(receiver.answer) as served:
        settings = hooks(served, tmp_path, timeout_seconds=0.5, attempts=1)
        if how == "is not there":
            await served.stop()
        async with opened({"notify": [{"hook": "security", "required": True}]}, **settings) as site:
            told = await ssh(site, "true")
            assert (told.returncode, "hook_unavailable: the webhook security" in told.stderr) == (254, True)
            assert codes(site, "notify") == ["hook_unavailable"]
            assert not started(site)


async def test_a_request_waits_for_its_required_webhook_and_is_refused_without(opened: Opened, tmp_path: Path) -> None:
    receiver = Receiver(400)
    oblige = {"requests": {"exec": {"notify": [{"hook": "security", "required": True}]}}}
    async with serving(receiver.answer) as served, opened(oblige, **hooks(served, tmp_path)) as site:
        told = await ssh(site, "echo ran")
        assert (told.returncode, told.stdout, "hook_unavailable" in told.stderr) == (254, "", True)
        assert (await ssh(site, "echo ran")).stdout == "ran\n"


async def test_a_webhook_that_fails_stops_nobody_and_its_failure_is_on_record(opened: Opened, tmp_path: Path) -> None:
    receiver = Receiver(500, 500)
    oblige: dict[str, Any] = {"notify": [{"hook": "security"}]}
    async with serving(receiver.answer) as served, opened(oblige, **hooks(served, tmp_path, attempts=2)) as site:
        assert (await ssh(site, "true")).returncode == 0
        await until(lambda: site.audit("notify"), LONG)
        [record] = site.audit("notify")
        assert (record["outcome"], record["attempts"], record["status"]) == ("failed", 2, 500)


async def test_who_waits_for_four_eyes_is_told_to_a_webhook(opened: Opened, tmp_path: Path) -> None:
    receiver = Receiver()
    oblige: dict[str, Any] = {"four_eyes": {**EYES, "hook": "security"}}
    async with serving(receiver.answer) as served, opened(oblige, **hooks(served, tmp_path)) as site:
        waits = asyncio.ensure_future(ssh(site, "true"))
        session = await waiting(site)
        await until(lambda: receiver.received, LONG)
        [told] = receiver.bodies()
        assert (told["event"], told["session"], told["facts"]["person"]) == ("approval_wanted", session, ALICE)
        await answer(site)
        assert (await waits).returncode == 0
